//! The program reads and writes its own memory through `/proc/self/mem`.
//!
//! The kernel waits for nobody there: what is elsewhere, was never touched or is
//! write-protected is refused (`EIO`). So the thread has the engine *populate* such a page,
//! and calls again.
//!
//! For the time of the call the kernel has a reference to the page, which does not keep the
//! page from leaving: what the call reads would be what the frame shows next, and what it
//! writes would be lost. So the thread says in `calls::accesses` which page it is about to
//! access. The engine looks there after it has taken pages out of reach and before it uses
//! what is in them, and waits for such a call to end. The order makes this safe: a call that
//! began before the page was out of reach was told of by then, and one that begins later is
//! refused. The wait is short, because nothing that such a call touches beside the page is
//! ever paged, and it is over before the thread touches its stack again.

use crate::engine::threads::THREADS;

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::address::page;
use crate::pages::State;
use crate::sys::thread;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Between two looks for a place, or for a page that is on its way, in microseconds.
const NAP_US: u64 = 50;

/// What became of a page that was asked for.
const PRESENT: u32 = 0;
const ON_ITS_WAY: u32 = 1;
const REFUSED: u32 = 2;

/// Has the page at `at` in memory, not write-protected, for a moment: it may leave again at
/// any time. Whether it was there; it is not where it is none of the engine's, or lost.
/// Called by threads of the program, with signals blocked.
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

/// Answers a thread that asks for a page; whether an event has to be read before.
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
            // Not mapped any more.
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

/// Has a page there that is not elsewhere, and not write-protected.
fn make_accessible(m: &mut Memory, number: u64) -> Result<(), Errno> {
    let at = addr(number);
    match m.mover.kernel().zero_pages(at, PAGE_SIZE, true).stopped {
        None => m.note_zeros(number, 1),
        Some(Errno::EXIST) => {}
        Some(error) => return Err(error),
    }
    m.mover.kernel().unprotect(at, PAGE_SIZE)
}
