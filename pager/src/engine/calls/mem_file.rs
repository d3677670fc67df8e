//! The program reads and writes its own memory through `/proc/self/mem`.
//!
//! The kernel waits for nobody there: what is elsewhere, was never touched or is
//! write-protected is refused (`EIO`). So the thread has the engine *populate* such a page,
//! and calls again.
//!
//! For the time of the call the kernel has a reference to the page, which does not keep the
//! page from leaving: what the call reads would be what the frame shows next, and what it
//! writes would be lost. So the thread says in [`ACCESSED`] which page it is about to
//! access. The engine looks there after it has taken pages out of reach and before it uses
//! what is in them, and waits for such a call to end. The order makes this safe: a call that
//! began before the page was out of reach was told of by then, and one that begins later is
//! refused. The wait is short, because nothing that such a call touches beside the page is
//! ever paged, and it is over before the thread touches its stack again.

use crate::engine::Engine;
use crate::engine::calls::engine_call::Question;
use crate::engine::fault::addr;
use crate::engine::fork::POPULATE;
use crate::engine::memory::events::page;
use crate::pages::State;
use crate::sys::{mem_call, thread};
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicUsize};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Threads that can be in such a call at a time; others wait.
const PLACES: usize = 16;
/// Between two looks for a place, or for a page that is on its way, in microseconds.
const NAP_US: u64 = 50;

/// Addresses of the pages that threads are accessing; 0 for none.
static ACCESSED: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

/// What became of a page that was asked for.
const PRESENT: u32 = 0;
const ON_ITS_WAY: u32 = 1;
const REFUSED: u32 = 2;

static QUESTION: Question = Question::new(POPULATE);
/// The page that is asked for, and the answer.
static WANTED: AtomicUsize = AtomicUsize::new(0);
static ANSWER: AtomicU32 = AtomicU32::new(REFUSED);

/// A call that reads or writes one page of the program's memory through a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// A descriptor of the program's own memory.
    pub fd: i32,
    /// Whether it writes.
    pub writes: bool,
    /// Where the bytes come from, or go to: memory that is never paged.
    pub buffer: usize,
    /// Bytes, all of one page.
    pub len: usize,
    /// The address that is read or written.
    pub at: usize,
}

impl Access {
    /// Makes the call; gives the kernel's answer. Called by threads of the program, with
    /// signals blocked.
    ///
    /// # Safety
    /// The buffer has room for `len` bytes; what is written is what the program has asked for.
    pub unsafe fn call(&self) -> isize {
        let page = self.at / PAGE_SIZE * PAGE_SIZE;
        let place = loop {
            let is_free = |place: &&AtomicUsize| {
                let taken = place.compare_exchange(0, page, SeqCst, Relaxed);
                taken.is_ok()
            };
            match ACCESSED.iter().find(is_free) {
                Some(place) => break place,
                None => thread::rest_us(NAP_US),
            }
        };
        // SAFETY: by the caller.
        unsafe { mem_call::transfer(self.fd, self.writes, self.buffer, self.len, self.at, place) }
    }
}

/// Has the page at `at` in memory, not write-protected, for a moment: it may leave again at
/// any time. Whether it was there; it is not where it is none of the engine's, or lost.
/// Called by threads of the program, with signals blocked.
pub fn populate(at: usize) -> bool {
    let turn = QUESTION.turn();
    WANTED.store(at, Relaxed);
    while turn.ask() {
        match ANSWER.load(Relaxed) {
            PRESENT => return true,
            ON_ITS_WAY => thread::rest_us(NAP_US),
            _ => return false,
        }
    }
    false
}

/// In a process that was just forked: whoever was asking, or in a call, is not there.
pub(crate) fn begin_anew() {
    QUESTION.begin_anew();
    ACCESSED.iter().for_each(|place| place.store(0, SeqCst));
}

/// Waits until no thread accesses a page of `range`, where no access can begin.
pub(crate) fn wait_for_accesses(range: &Range<usize>) {
    for place in &ACCESSED {
        while range.contains(&place.load(SeqCst)) {
            thread::pause();
        }
    }
}

impl Engine {
    /// Answers who asks for a page.
    pub(crate) fn answer_populate(&mut self) {
        QUESTION.answer(|| {
            let answer = self.populate(WANTED.load(Relaxed));
            ANSWER.store(answer, Relaxed);
        });
    }

    fn populate(&mut self, at: usize) -> u32 {
        if self.adopted.around(at).is_none() {
            return REFUSED;
        }
        let number = page(at);
        match self.pages.get(number).state {
            State::Local => match self.make_accessible(number) {
                Ok(()) => PRESENT,
                Err(Errno::AGAIN) => {
                    self.waited.for_event = true;
                    ON_ITS_WAY
                }
                // Not mapped any more.
                Err(_) => REFUSED,
            },
            State::Fetching(_) => ON_ITS_WAY,
            State::Pooled(_) | State::Remote => {
                if self.faults.iter().all(|fault| fault.page != number) {
                    self.recall(number);
                }
                ON_ITS_WAY
            }
            State::Lost => REFUSED,
        }
    }

    /// Has a page there that is not elsewhere, and not write-protected.
    fn make_accessible(&mut self, number: u64) -> Result<(), Errno> {
        let at = addr(number);
        match self.kernel.zero_pages(at, PAGE_SIZE, true).stopped {
            None => self.filled(number, 1),
            Some(Errno::EXIST) => {}
            Some(error) => return Err(error),
        }
        self.kernel.unprotect(at, PAGE_SIZE)
    }
}
