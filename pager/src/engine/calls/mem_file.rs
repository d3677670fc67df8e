//! Lets the program read and write its own memory through `/proc/self/mem`.
//!
//! The kernel does not wait for pages there: it refuses (`EIO`) a page that is absent or
//! write-protected. So the thread asks the engine to *populate* the page, and calls the
//! kernel again.
//!
//! During the call the kernel has a reference to the page, which does not keep the page
//! from leaving. The call would then read what the frame holds next, or its write would be
//! lost. So the thread announces in `calls::accesses` which page it is about to access. The
//! engine looks there after it has taken pages out of reach and before it uses their
//! contents, and waits for such a call to end. The order makes this safe: a call that began
//! before the page was out of reach was announced by then, and a later call is refused. The
//! wait is short: the call touches only this page and memory that is never paged, and the
//! announcement ends before the thread touches its stack again.

use crate::engine::threads::THREADS;
use tmem_policy::PageNumber;

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::address::page;
use crate::pages::State;
use crate::sys::thread;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Pause between two attempts, in microseconds.
const NAP_US: u64 = 50;

/// Answers to a thread: the page is present; it is on its way; it cannot be populated.
const PRESENT: u32 = 0;
const ON_ITS_WAY: u32 = 1;
const REFUSED: u32 = 2;

/// Populates the page at `at`: makes it present and writable for a moment. It may leave
/// again at any time. Returns false if the page is not the engine's, or is lost. Called by
/// threads of the program, with signals blocked.
pub fn populate(at: usize) -> bool {
    let turn = THREADS.calls.populate.question.turn();
    THREADS.calls.populate.wanted.store(at, Relaxed);
    while turn.ask() {
        match THREADS.calls.populate.answer.load(Relaxed) {
            PRESENT => return true,
            ON_ITS_WAY => thread::rest_us(NAP_US),
            _ => return false,
        }
    }
    false
}

/// Answers a thread. Returns whether an event has to be read first.
pub(crate) fn answer(m: &mut Memory) -> bool {
    let mut for_event = false;
    THREADS.calls.populate.question.answer(|| {
        let answer = serve(
            m,
            THREADS.calls.populate.wanted.load(Relaxed),
            &mut for_event,
        );
        THREADS.calls.populate.answer.store(answer, Relaxed);
    });
    for_event
}

fn serve(m: &mut Memory, at: usize, for_event: &mut bool) -> u32 {
    if m.space.adopted().around(at).is_none() {
        return REFUSED;
    }
    let number = page(at);
    match m.pages.get(number).state {
        State::Local => match make_accessible(m, number) {
            Ok(()) => PRESENT,
            Err(Errno::AGAIN) => {
                *for_event = true;
                ON_ITS_WAY
            }
            // The page is not mapped any more.
            Err(_) => REFUSED,
        },
        State::ReadIn(_) => ON_ITS_WAY,
        State::Pooled(_) | State::Remote => {
            if m.faults.iter().all(|fault| fault.page != number) {
                m.faults.recall(number);
            }
            ON_ITS_WAY
        }
        State::Lost => REFUSED,
    }
}

/// Makes a page present and writable that is not elsewhere.
fn make_accessible(m: &mut Memory, number: PageNumber) -> Result<(), Errno> {
    let at = addr(number);
    match m.mover.kernel().zero_pages(at, PAGE_SIZE, true).stopped {
        None => m.note_zeros(number, 1),
        Some(Errno::EXIST) => {}
        Some(error) => return Err(error),
    }
    m.mover.kernel().unprotect(at, PAGE_SIZE)
}
