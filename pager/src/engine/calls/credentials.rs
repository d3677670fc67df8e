//! Follows what the program becomes: its user, its groups and its capabilities.
//!
//! To the kernel these are each task's own, and the C library changes them for the
//! threads that it knows. The engine's would keep what the program has given up, in the
//! midst of its memory. So a thread that has changed them says so before it goes on, and
//! every task of the engine's becomes what that thread is. A change by a system call of
//! the program's own is noticed by looking now and then, once there is no way back from
//! it: before, it may be of a single thread that comes back.

use crate::engine::Engine;
use crate::engine::calls::engine_call::Question;
use crate::engine::fork::CREDENTIALS;
use crate::sys::credentials::Credentials;
use crate::sys::errno::Words;
use crate::sys::roots::Root;
use crate::sys::{say, thread};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

static QUESTION: Question = Question::new(CREDENTIALS);
/// The thread to follow.
static WHOM: AtomicU32 = AtomicU32::new(0);
/// The program has given up something since it began, or the process before it.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);
/// Whether the engine's tasks have something that they could give up.
static IS_PLAIN: AtomicBool = AtomicBool::new(false);
/// That the engine cannot follow was said.
static SAID: AtomicBool = AtomicBool::new(false);

/// Has the engine's tasks be what the calling thread of the program is now. Called with
/// signals blocked.
pub fn follow() {
    GIVEN_UP.store(true, Relaxed);
    let turn = QUESTION.turn();
    WHOM.store(thread::id(), Relaxed);
    // Without an engine there is nobody to follow.
    turn.ask_early();
}

/// The program has given up something that the engine needs not follow.
pub fn given_up() {
    GIVEN_UP.store(true, Relaxed);
}

/// Whether a child may not be able to do what the engine does when it begins. With a filter
/// of system calls an engine that watches cannot be woken.
pub(crate) fn is_given_up() -> bool {
    GIVEN_UP.load(Relaxed) && !thread::is_confined()
}

/// In a process that was just forked: whoever was asking is not there.
pub(crate) fn begin_anew() {
    QUESTION.begin_anew();
    IS_PLAIN.store(false, Relaxed);
}

/// Answers who asks, as long as the engine watches. Whether it has to begin first, or it
/// never could.
pub(crate) fn answer_early() -> bool {
    if QUESTION.is_asked() && Root::Device.get().is_none() {
        return true;
    }
    QUESTION.answer(|| become_as(whom()));
    false
}

/// The thread to follow.
pub(crate) fn whom() -> u32 {
    WHOM.load(Acquire)
}

/// Has the calling task be what a thread of the program is.
pub(crate) fn become_as(tid: u32) {
    let Some(wanted) = Credentials::of(tid) else {
        return;
    };
    let plain = wanted.is_plain();
    if let Err(error) = wanted.take()
        && !SAID.swap(true, Relaxed)
    {
        say::line(&alloc::format!(
            "tmem's thread in process {} cannot give up the user, groups or capabilities that the \
             program has given up: {}",
            rustix::process::getpid().as_raw_nonzero(),
            Words(error)
        ));
    }
    IS_PLAIN.store(plain, Release);
}

/// Whether the program has become, with no way back, what the engine's tasks are not.
pub(crate) fn has_to_follow() -> bool {
    if IS_PLAIN.load(Relaxed) {
        return false;
    }
    let leader = Credentials::of(thread::leader());
    let own = Credentials::of(thread::id());
    let plain = own.as_ref().is_some_and(Credentials::is_plain);
    IS_PLAIN.store(plain, Relaxed);
    !plain && leader.is_some_and(|leader| leader.is_plain())
}

impl Engine {
    /// Answers who asks.
    pub(crate) fn answer_credentials(&mut self) {
        QUESTION.answer(|| self.follow_credentials());
    }

    /// Looks whether there is something to follow of which nobody has told.
    pub(crate) fn look_at_credentials(&mut self) {
        if has_to_follow() {
            WHOM.store(thread::leader(), Relaxed);
            self.follow_credentials();
        }
    }

    fn follow_credentials(&mut self) {
        if let Some(zapper) = &mut self.zapper {
            zapper.follow();
        }
        if self.guard.is_some() {
            crate::engine::watchdog::follow();
        }
        become_as(whom());
    }
}
