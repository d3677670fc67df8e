//! Zaps by another task than the engine, see `zap`, and tells which reports are about
//! them.
//!
//! The kernel holds a thread that zaps until the report has been read. So it is a task
//! beside the engine that zaps, see [`Task`].

mod task;

pub(crate) use task::ZapTask;

use crate::engine::threads::THREADS;

use crate::engine::kernel::Kernel;
use crate::sys::mem::Region;
use alloc::boxed::Box;
use core::fmt::Debug;
use core::ops::Range;
use core::sync::atomic::Ordering::Release;
use rustix::io::Errno;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The pages are taken away.
    Zap,
    /// The pages become the program's own, as writing to them would make them.
    Unshare,
    /// The task becomes what the program is, see `credentials`.
    Follow,
}

/// Ends the process that zaps, which would be reaped by another than the engine if it
/// outlived the program. Called by a thread of the program that is about to end it, with
/// signals blocked.
pub fn leave() {
    THREADS.calls.leaving.store(true, Release);
    // Without an engine there is none.
    THREADS.calls.leave.turn().ask();
}

/// The program has ended, and others use its memory still.
pub(crate) fn is_outlived() {
    THREADS.calls.leaving.store(false, Release);
}

/// Answers a thread that asked for it, once `has_left` says that servers know that the
/// program is about to end.
pub(crate) fn answer_leave(zap_worker: &mut Option<ZapWorker>, has_left: impl FnOnce() -> bool) {
    let leave = &THREADS.calls.leave;
    if leave.is_asked() {
        zap_worker.iter_mut().for_each(ZapWorker::end);
        // Until then it asks again and again.
        if has_left() {
            leave.answer(|| ());
        }
    }
}

/// A task beside the engine that does what is asked of it, one thing at a time.
pub(crate) trait Task: Debug {
    /// Asks for something. What the kernel refuses to do shows in the pages.
    ///
    /// # Errors
    /// The kernel's, where nobody can be started to do it.
    fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno>;
    /// Whether what was asked is done.
    fn is_done(&self) -> bool;
    /// What was asked is done, and known to be.
    fn rest(&mut self);
    /// Waits until what was asked is done, which is false then, or waits for its report to
    /// be read.
    fn is_to_be_read(&mut self) -> bool;
    /// Forgets a task that has ended; what it was asked to do counts as done.
    fn look_after(&mut self);
    /// Has it run on the engine's CPU.
    fn stay_with(&mut self, cpu: Option<u32>);
    /// Has it become what the program is, or end. Called while it has nothing to do.
    fn follow(&mut self);
    /// Ends one that has nothing to do.
    fn end(&mut self);
    /// Its stack.
    fn stack(&self) -> Option<Region>;
}

/// The task that zaps.
#[derive(Debug)]
pub(crate) struct ZapWorker {
    task: Box<dyn Task>,
    /// It is still at something that the engine has stopped waiting for.
    is_busy: bool,
    /// It is to follow a change of credentials once it is done with that.
    has_to_follow: bool,
}

impl ZapWorker {
    /// One whose task begins when it is asked first.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(kernel: &dyn Kernel) -> Result<ZapWorker, Errno> {
        Ok(ZapWorker {
            task: kernel.zap_task()?,
            is_busy: false,
            has_to_follow: false,
        })
    }

    /// Stops waiting for what was asked. Nothing else can be asked before it is done.
    pub(crate) fn leave_behind(&mut self) {
        self.is_busy = true;
    }

    /// Whether something can be asked.
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

    /// Memory that is the engine's own.
    pub(crate) fn stack(&self) -> Option<Region> {
        self.task.stack()
    }

    /// Asks for something, see [`Task::ask`].
    ///
    /// # Errors
    /// The kernel's, where nobody can be started to do it.
    pub(crate) fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno> {
        self.task.ask(what, range)
    }

    /// Whether what was asked is done.
    pub(crate) fn is_done(&self) -> bool {
        self.task.is_done()
    }

    /// What was asked is done, and known to be.
    pub(crate) fn rest(&mut self) {
        self.task.rest();
    }

    /// Waits until the zap is done, which is false then, or waits for its report to be
    /// read.
    pub(crate) fn is_to_be_read(&mut self) -> bool {
        self.task.is_to_be_read()
    }

    /// Forgets a task that has ended.
    pub(crate) fn look_after(&mut self) {
        self.task.look_after();
    }

    /// Has the task run where the engine does. The two take turns, and to wake one that
    /// sleeps on another CPU takes longer than a zap.
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
