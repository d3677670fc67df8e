//! Tells the user when a core file lacks pages.
//!
//! When a program crashes, the kernel writes what is in memory. In place of a page that is
//! elsewhere a core has nothing, which a debugger shows as zeros. The kernel asks nobody for
//! such a page, and tells nobody that it begins to write. But the engine outlives the
//! program, and then learns of the core.

use crate::engine::memory::Memory;
use crate::engine::memory::report::{WARN, program};
use crate::pages::State;
use crate::stats::Shared;
use crate::sys::fd::Fd;
use crate::sys::{core_dump, say};
use alloc::format;
use core::sync::atomic::Ordering::Release;

/// What is known of a crash.
#[derive(Default)]
pub(crate) struct CoreDump {
    /// The program's standard error, if the engine has come upon the kernel while it wrote.
    stderr: Option<Fd>,
    /// The program's parent, or 0 if it is unknown.
    parent: u32,
    /// The kernel was seen writing.
    was_seen: bool,
}

impl CoreDump {
    /// Looks whether the kernel is writing a core. Called from time to time while the
    /// program lives.
    pub(crate) fn look(&mut self, memory: &Memory) {
        if memory.space.adopted().is_empty() {
            return;
        }
        let Some(seen) = core_dump::look() else {
            return;
        };
        self.parent = seen.parent;
        if seen.is_dumping && !self.was_seen {
            self.was_seen = true;
            // It closes when the core is written.
            self.stderr = say::stderr();
        }
    }

    /// Says what a core lacks, after the program has ended.
    pub(crate) fn tell(&mut self, memory: &Memory, shared: Option<&Shared>) {
        if !core_dump::was_written().unwrap_or(self.was_seen) {
            return;
        }
        let mut missing = 0u64;
        memory.pages.each(|_, page| {
            missing += u64::from(page.state != State::Local);
        });
        if missing > 0 && memory.report.wants(WARN) {
            let text = format!(
                "{}: its core lacks up to {missing} pages that were elsewhere, and \
                 debuggers show zeros there; docs/debugging.md says how to get a complete one",
                program()
            );
            // Who waits for the program says there that it has crashed.
            let to = self.stderr.take().or_else(|| say::stderr_of(self.parent));
            if let Some(to) = to {
                say::line_to(&to, &text);
            }
        }
        if let Some(shared) = shared {
            shared.cores.fetch_add(1, Release);
        }
    }
}
