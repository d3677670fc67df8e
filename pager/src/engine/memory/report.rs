//! What the engine tells: figures, and lines for the user.

use crate::stats::Slot;
use crate::sys::{now_ns, proc, say};
use alloc::format;
use alloc::string::String;

/// Messages that matter to everybody.
pub(crate) const ERROR: u8 = 0;
/// Messages about what will surprise.
pub(crate) const WARN: u8 = 1;
/// Messages about what happens.
pub(crate) const INFO: u8 = 2;
/// Messages for those who look for a defect.
pub(crate) const DEBUG: u8 = 3;

/// Where figures go, and which messages are wanted.
#[derive(Clone, Copy)]
pub(crate) struct Report {
    pub(crate) stats: &'static Slot,
    level: u8,
}

impl Report {
    /// Keeps figures in `stats`, and says what is not above `level`.
    pub(crate) fn new(stats: &'static Slot, level: u8) -> Report {
        Report { stats, level }
    }

    /// Prints a line, if messages of this level are wanted.
    pub(crate) fn say(&self, level: u8, text: &str) {
        if level <= self.level {
            say::line(text);
        }
    }

    /// A thread goes on whose fault was read at `read_ns`.
    pub(crate) fn served(&self, read_ns: u64) {
        let took = now_ns().saturating_sub(read_ns);
        self.stats.fault_ns.record(took);
    }
}

/// The program and its process, for messages: those of several processes may come
/// together.
pub(crate) fn program() -> String {
    let pid = crate::sys::program::id();
    match proc::command() {
        Some(name) => format!("{name} (process {pid})"),
        None => format!("process {pid}"),
    }
}
