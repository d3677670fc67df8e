//! The zap worker: zaps pages in another task than the engine (see `zap`).
//!
//! The kernel holds a task that zaps until the event was read, and the engine has to read
//! it. So the zap worker runs beside the engine.

mod task;

pub(crate) use task::ZapTask;

use crate::engine::kernel::{Kernel, Task, Work};
use crate::engine::threads::THREADS;
use crate::sys::mem::Region;
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::Ordering::Release;
use rustix::io::Errno;

/// Ends the worker's process. If it outlived the program, another process than the engine
/// would have to reap it. Called by a thread of the program that is about to end it, with
/// signals blocked.
pub fn leave() {
    THREADS.calls.leaving.store(true, Release);
    // Without an engine there is no worker.
    THREADS.calls.leave.turn().ask();
}

/// Tells whether the program has ended while others still use its memory.
pub(crate) fn is_outlived() {
    THREADS.calls.leaving.store(false, Release);
}

/// Answers a thread that called [`leave`], once `has_left` says that the servers know that
/// the program is about to end.
pub(crate) fn answer_leave(zap_worker: &mut Option<ZapWorker>, has_left: impl FnOnce() -> bool) {
    let leave = &THREADS.calls.leave;
    if leave.is_asked() {
        zap_worker.iter_mut().for_each(ZapWorker::end);
        // Until then the thread keeps asking.
        if has_left() {
            leave.answer(|| ());
        }
    }
}

/// The zap worker.
#[derive(Debug)]
pub(crate) struct ZapWorker {
    task: Box<dyn Task>,
    /// The task still does work that the engine does not wait for any more.
    is_busy: bool,
    /// The task has to take over the program's credentials after that work.
    has_to_follow: bool,
}

impl ZapWorker {
    /// Prepares a worker. Its task starts with the first piece of work.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn new(kernel: &dyn Kernel) -> Result<ZapWorker, Errno> {
        Ok(ZapWorker {
            task: kernel.zap_task()?,
            is_busy: false,
            has_to_follow: false,
        })
    }

    /// Stops waiting for the current work. No other work can be given before it is done.
    pub(crate) fn leave_behind(&mut self) {
        self.is_busy = true;
    }

    /// Tells whether work can be given.
    pub(crate) fn is_free(&mut self) -> bool {
        if self.is_busy {
            self.task.look_after();
        }
        if self.is_busy && self.task.is_done() {
            self.task.rest();
            self.is_busy = false;
            if core::mem::take(&mut self.has_to_follow) {
                self.task.follow();
            }
        }
        !self.is_busy
    }

    /// Returns its memory, which is never paged.
    pub(crate) fn stack(&self) -> Option<Region> {
        self.task.stack()
    }

    /// Starts a piece of work: see [`Task::ask`].
    ///
    /// # Errors
    /// Those of the kernel, if no task can be started.
    pub(crate) fn ask(&mut self, work: Work, range: &Range<usize>) -> Result<(), Errno> {
        self.task.ask(work, range)
    }

    /// Tells whether the work is done.
    pub(crate) fn is_done(&self) -> bool {
        self.task.is_done()
    }

    /// Acknowledges that the work is done.
    pub(crate) fn rest(&mut self) {
        self.task.rest();
    }

    /// Waits until the work is done, and returns false, or until its event has to be read,
    /// and returns true.
    pub(crate) fn is_to_be_read(&mut self) -> bool {
        self.task.is_to_be_read()
    }

    /// Forgets a task that has ended.
    pub(crate) fn look_after(&mut self) {
        self.task.look_after();
    }

    /// Moves the task to the engine's CPU. The two take turns, and waking a task on another
    /// CPU takes longer than a zap.
    pub(crate) fn stay_with(&mut self, cpu: Option<u32>) {
        self.task.stay_with(cpu);
    }

    /// Has the task become what the program is, or end; one that is at something does so
    /// when that is done.
    pub(crate) fn follow(&mut self) {
        if self.is_free() {
            self.task.follow();
        } else {
            self.has_to_follow = true;
        }
    }

    /// Ends the task.
    pub(crate) fn end(&mut self) {
        self.task.end();
    }
}
