//! Follows what the program becomes: its user, its groups and its capabilities.
//!
//! To the kernel these are each task's own, and the C library changes them for the
//! threads that it knows. The engine's would keep what the program has given up, in the
//! midst of its memory. So a thread that has changed them says so before it goes on, and
//! every task of the engine's becomes what that thread is. A change by a system call of
//! the program's own is noticed by looking now and then, once there is no way back from
//! it: before, it may be of a single thread that comes back.

use crate::engine::threads::THREADS;

use crate::sys::credentials::Credentials;
use crate::sys::errno::Words;
use crate::sys::roots::Root;
use crate::sys::{program, say, thread};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Has the engine's tasks be what the calling thread of the program is now. Called with
/// signals blocked.
pub fn follow() {
    THREADS.calls.credentials.given_up.store(true, Relaxed);
    let turn = THREADS.calls.credentials.question.turn();
    THREADS.calls.credentials.whom.store(thread::id(), Relaxed);
    // Without an engine there is nobody to follow.
    turn.ask_early();
}

/// The program has given up something that the engine needs not follow.
pub fn given_up() {
    THREADS.calls.credentials.given_up.store(true, Relaxed);
}

/// Whether a child may not be able to do what the engine does when it begins. With a filter
/// of system calls an engine that watches cannot be woken.
pub(crate) fn is_given_up() -> bool {
    THREADS.calls.credentials.given_up.load(Relaxed) && !thread::is_confined()
}

/// Answers who asks, as long as the engine watches. Whether it has to begin first, or it
/// never could.
pub(crate) fn answer_early() -> bool {
    if THREADS.calls.credentials.question.is_asked() && Root::Device.get().is_none() {
        return true;
    }
    THREADS
        .calls
        .credentials
        .question
        .answer(|| become_as(whom()));
    false
}

/// The thread to follow.
pub(crate) fn whom() -> u32 {
    THREADS.calls.credentials.whom.load(Acquire)
}

/// Has the calling task be what a thread of the program is.
pub(crate) fn become_as(tid: u32) {
    let Some(wanted) = Credentials::of(tid) else {
        return;
    };
    let plain = wanted.is_plain();
    if let Err(error) = wanted.take()
        && !THREADS.calls.credentials.said.swap(true, Relaxed)
    {
        say::line(&alloc::format!(
            "tmem's engine for process {} cannot give up the user, groups or capabilities that the \
             program has given up: {}",
            program::id(),
            Words(error)
        ));
    }
    THREADS.calls.credentials.is_plain.store(plain, Release);
}

/// Whether the program has become, with no way back, what the engine's tasks are not.
pub(crate) fn has_to_follow() -> bool {
    if THREADS.calls.credentials.is_plain.load(Relaxed) {
        return false;
    }
    let leader = Credentials::of(program::id());
    let own = Credentials::of(thread::id());
    let plain = own.as_ref().is_some_and(Credentials::is_plain);
    THREADS.calls.credentials.is_plain.store(plain, Relaxed);
    !plain && leader.is_some_and(|leader| leader.is_plain())
}

/// Answers a thread that asks, by what `follow` does.
pub(crate) fn answer(follow: impl FnOnce()) {
    THREADS.calls.credentials.question.answer(follow);
}

/// Looks whether there is something to follow of which nobody has told, and whom.
pub(crate) fn look() -> bool {
    let has_to = has_to_follow();
    if has_to {
        THREADS.calls.credentials.whom.store(program::id(), Relaxed);
    }
    has_to
}
