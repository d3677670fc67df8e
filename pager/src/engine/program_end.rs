//! Ends the engine's process after the program.
//!
//! The kernel ends a thread with its process. An engine that is a process of its own sees
//! the end of the program, or that it executes another one, and ends then, unless others use
//! the memory: it goes on serving them until the last is gone. Were the userfaultfd closed
//! before, absent pages would read as zeros.

use crate::engine::reclaim::zap_worker::{self, ZapWorker};
use crate::engine::watchdog::{self, Guard};
use crate::sys::{program, thread};

/// What the engine knows of the program's end, and what keeps guard until then.
#[derive(Default)]
pub(crate) struct ProgramEnd {
    /// Once there is something to guard.
    guard: Option<Guard>,
    /// The program has left, and others use its memory.
    outlives: bool,
    /// Looks that are left out before the kernel is asked again who uses the memory, and how
    /// many were left out before it was asked last.
    pause: u32,
    pauses: u32,
}

/// The most looks that are left out, some three seconds.
const LONGEST_PAUSE: u32 = 32;

impl ProgramEnd {
    /// The guard, once there is one.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Keeps the guard for as long as the engine lives.
    pub(crate) fn set_guard(&mut self, guard: Option<Guard>) {
        self.guard = guard;
    }

    /// What is readable once the program or a guard has ended; without the program's where
    /// that is known.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> + Clone {
        let guards = self.guard().map(Guard::descriptors).unwrap_or_default();
        let program = program::raw().filter(|_| !self.outlives);
        guards.into_iter().chain([program]).flatten()
    }

    /// Ends the engine if the program has left and nobody else uses its memory, and ends the
    /// program if a guard was killed.
    pub(crate) fn look(&mut self, zap_worker: Option<&mut ZapWorker>) {
        if !program::is_apart() {
            return;
        }
        if let Some(guard) = &mut self.guard {
            guard.end_if_killed();
        }
        let left = program::has_left();
        if !left && !program::is_unknown() {
            return;
        }
        if left && !self.outlives {
            (self.outlives, self.pause, self.pauses) = (true, 0, 0);
        }
        if let Some(zap_worker) = zap_worker.filter(|_| left) {
            // Else it would be taken for somebody who uses the memory.
            zap_worker.end();
        }
        if left && program::each_sharer(|_| {}) > 0 {
            zap_worker::is_outlived();
            return;
        }
        // The kernel has the last word, and counts the engine's other tasks as well. Who
        // shares the memory and is not shown by `/proc` goes on being served.
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.pauses = (self.pauses * 2 + 1).min(LONGEST_PAUSE);
        self.pause = self.pauses;
        if let Some(guard) = &mut self.guard {
            guard.end();
        }
        if program::is_alone() {
            watchdog::not_needed();
            thread::exit();
        }
        if let Some(guard) = &mut self.guard {
            guard.begin_again();
        }
    }

    /// Whether the program has left, and others use its memory.
    pub(crate) fn outlives(&self) -> bool {
        self.outlives
    }
}
