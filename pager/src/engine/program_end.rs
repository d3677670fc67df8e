//! Ends the engine's process after the program's.
//!
//! The kernel ends a thread with its process. An engine that is a process of its own
//! notices that the program has ended, or executes another program, and then ends, unless
//! other processes use the memory: these it serves until the last is gone. If the
//! userfaultfd were closed before, absent pages would read as zeros.

use crate::engine::core_dump::CoreDump;
use crate::engine::memory::Memory;
use crate::engine::reclaim::zap_worker::{self, ZapWorker};
use crate::engine::watchdog::{self, Guard};
use crate::stats::Shared;
use crate::sys::{departure, program, sharers, thread};

/// The program's end, and the guards until then.
#[derive(Default)]
pub(crate) struct ProgramEnd {
    /// The guards, once there is something to guard.
    guard: Option<Guard>,
    /// The program has ended, and others use its memory.
    outlives: bool,
    /// Checks that are left out before the kernel is asked again who uses the memory, and
    /// the length of the last such pause.
    pause: u32,
    pauses: u32,
    /// What is known of a crash.
    core: CoreDump,
}

/// The longest such pause, about three seconds.
const LONGEST_PAUSE: u32 = 32;

impl ProgramEnd {
    /// Returns the guards, once they exist.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Keeps the guards as long as the engine lives.
    pub(crate) fn set_guard(&mut self, guard: Option<Guard>) {
        self.guard = guard;
    }

    /// Returns file descriptors that become readable when the program or a guard ends. The
    /// program's is left out once its end is known.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> + Clone {
        let guards = self.guard().map(Guard::descriptors).unwrap_or_default();
        let program = program::raw().filter(|_| !self.outlives);
        guards.into_iter().chain([program]).flatten()
    }

    /// Looks whether the kernel is writing a core of the program.
    pub(crate) fn look_for_core(&mut self, memory: &Memory) {
        if program::is_apart() && !self.outlives {
            self.core.look(memory);
        }
    }

    /// Ends the engine if the program has ended and nobody else uses its memory. Ends the
    /// program if a guard was killed.
    pub(crate) fn look(
        &mut self,
        zap_worker: Option<&mut ZapWorker>,
        memory: &Memory,
        shared: Option<&Shared>,
    ) {
        if !program::is_apart() {
            return;
        }
        if let Some(guard) = &mut self.guard {
            guard.end_if_killed();
        }
        let left = departure::has_left();
        if !left && !departure::is_unknown() {
            return;
        }
        if left && !self.outlives {
            (self.outlives, self.pause, self.pauses) = (true, 0, 0);
            self.core.tell(memory, shared);
        }
        if let Some(zap_worker) = zap_worker.filter(|_| left) {
            // The zap worker would be taken for another process that uses the memory.
            zap_worker.end();
        }
        if left && sharers::each_sharer(|_| {}) > 0 {
            zap_worker::is_outlived();
            return;
        }
        // The kernel's answer decides, and it counts the engine's other tasks, too. A
        // process that uses the memory but does not appear in `/proc` is still served.
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.pauses = (self.pauses * 2 + 1).min(LONGEST_PAUSE);
        self.pause = self.pauses;
        if let Some(guard) = &mut self.guard {
            guard.end();
        }
        if sharers::is_alone() {
            watchdog::not_needed();
            thread::exit();
        }
        if let Some(guard) = &mut self.guard {
            guard.begin_again();
        }
    }

    /// Tells whether the program has ended, and others use its memory.
    pub(crate) fn outlives(&self) -> bool {
        self.outlives
    }
}
