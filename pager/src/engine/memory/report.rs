//! Statistics, and messages for the user.

use crate::stats::Slot;
use crate::sys::{now_ns, proc, say};
use alloc::format;
use alloc::string::String;

/// Level of messages about failures.
pub(crate) const ERROR: u8 = 0;
/// Level of messages about surprises.
pub(crate) const WARN: u8 = 1;
/// Level of messages about what happens.
pub(crate) const INFO: u8 = 2;
/// Level of messages for debugging.
pub(crate) const DEBUG: u8 = 3;

/// The statistics, and the highest level of messages to print.
#[derive(Clone, Copy)]
pub(crate) struct Report {
    pub(crate) stats: &'static Slot,
    level: u8,
}

impl Report {
    /// Keeps statistics in `stats`, and prints messages up to `level`.
    pub(crate) fn new(stats: &'static Slot, level: u8) -> Report {
        Report { stats, level }
    }

    /// Tells whether messages of a level are wanted.
    pub(crate) fn wants(&self, level: u8) -> bool {
        level <= self.level
    }

    /// Prints a line, if messages of this level are wanted.
    pub(crate) fn say(&self, level: u8, text: &str) {
        if self.wants(level) {
            say::line(text);
        }
    }

    /// Records that a fault was served that was read at `read_ns`.
    pub(crate) fn served(&self, read_ns: u64) {
        let took = now_ns().saturating_sub(read_ns);
        self.stats.fault_ns.record(took);
    }
}

/// Returns the program's name and process number for messages, since messages of several
/// processes may be mixed.
pub(crate) fn program() -> String {
    let pid = crate::sys::program::id();
    match proc::command() {
        Some(name) => format!("{name} (process {pid})"),
        None => format!("process {pid}"),
    }
}
