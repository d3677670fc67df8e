//! Follows the program's credentials: user, groups and capabilities.
//!
//! In the kernel each task has its own credentials, and the C library changes those of the
//! threads that it knows. The engine's tasks, in the middle of the program's memory, would
//! keep rights that the program has given up. So a thread that has changed its credentials
//! tells the engine before it goes on, and every task of the engine takes over the same
//! credentials. A change by a system call past the C library is noticed by a regular check,
//! once it cannot be undone: before that, it may be a thread's temporary change.

use crate::engine::threads::THREADS;

use crate::sys::credentials::Credentials;
use crate::sys::errno::Words;
use crate::sys::roots::Root;
use crate::sys::{confined, program, say, thread};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Gives the engine's tasks the calling thread's credentials. Called with signals blocked.
pub fn follow() {
    THREADS.calls.credentials.given_up.store(true, Relaxed);
    let turn = THREADS.calls.credentials.question.turn();
    THREADS.calls.credentials.whom.store(thread::id(), Relaxed);
    // Without an engine nothing has to be done.
    turn.ask_early();
}

/// Notes that the program has given up rights in a way that the engine need not follow.
pub fn given_up() {
    THREADS.calls.credentials.given_up.store(true, Relaxed);
}

/// Tells whether a child may lack rights that an engine needs when it begins. Under a
/// seccomp filter an engine that watches cannot be woken.
pub(crate) fn is_given_up() -> bool {
    THREADS.calls.credentials.given_up.load(Relaxed) && !confined::is_confined()
}

/// Answers a thread while the engine only watches the program. Returns true if the engine
/// must begin first, since it could not later.
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

/// Returns the thread whose credentials count.
pub(crate) fn whom() -> u32 {
    THREADS.calls.credentials.whom.load(Acquire)
}

/// Gives the calling task the credentials of a thread of the program.
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

/// Tells whether the program has given up rights for good that the engine's tasks still
/// have.
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

/// Answers a thread by calling `follow`.
pub(crate) fn answer(follow: impl FnOnce()) {
    THREADS.calls.credentials.question.answer(follow);
}

/// Checks whether the program has changed its credentials without telling. Returns whether
/// the engine has to follow.
pub(crate) fn look() -> bool {
    let has_to = has_to_follow();
    if has_to {
        THREADS.calls.credentials.whom.store(program::id(), Relaxed);
    }
    has_to
}
