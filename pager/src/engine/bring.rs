//! Has pages in memory for a thread of the program that is about to use them in a way in
//! which the kernel waits for nobody: by `/proc/self/mem`.
//!
//! Who reads or writes there is refused what is elsewhere, what was never touched, and
//! what could be read and is write-protected.

use super::Engine;
use super::event::page;
use super::fault::addr;
use super::fork::BRING;
use super::question::Question;
use crate::pages::State;
use crate::sys::thread;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicUsize};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Between two questions whether all is there, in microseconds.
const NAP_US: u64 = 50;

const DONE: u32 = 0;
const WAIT: u32 = 1;
const REFUSED: u32 = 2;

static QUESTION: Question = Question::new(BRING);
static START: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
static OUTCOME: AtomicU32 = AtomicU32::new(REFUSED);

/// Has a few pages in memory, not write-protected, for a moment: they may leave again at
/// any time. Whether they were; they are not where none of them is the engine's, or one
/// is lost. Called by threads of the program, with signals blocked.
pub fn bring(range: &Range<usize>) -> bool {
    let turn = QUESTION.turn();
    START.store(range.start, Relaxed);
    LEN.store(range.len(), Relaxed);
    while turn.ask() {
        match OUTCOME.load(Relaxed) {
            DONE => return true,
            WAIT => thread::rest_us(NAP_US),
            _ => return false,
        }
    }
    false
}

/// In a process that was just forked: whoever was asking is not there.
pub(super) fn begin_anew() {
    QUESTION.begin_anew();
}

impl Engine {
    /// Answers who asks.
    pub(super) fn answer_bring(&mut self) {
        QUESTION.answer(|| {
            let start = START.load(Relaxed);
            let range = start..start + LEN.load(Relaxed);
            OUTCOME.store(self.bring(&range), Relaxed);
        });
    }

    fn bring(&mut self, range: &Range<usize>) -> u32 {
        let mut outcome = REFUSED;
        for part in self.adopted.within(range) {
            outcome = outcome.min(DONE);
            for number in page(part.start)..page(part.end) {
                match self.pages.get(number).state {
                    State::Local => {
                        if self.show(number) == Err(Errno::AGAIN) {
                            self.waited.for_event = true;
                            return WAIT;
                        }
                    }
                    // It is on its way already.
                    State::Fetching(_) => outcome = WAIT,
                    State::Pooled(_) | State::Remote => {
                        self.recall(number);
                        outcome = WAIT;
                    }
                    State::Lost => return REFUSED,
                }
            }
        }
        outcome
    }

    /// Has a page that is not elsewhere there, and not write-protected.
    fn show(&mut self, number: u64) -> Result<(), Errno> {
        let at = addr(number);
        match self.uffd.zero_pages(at, PAGE_SIZE, true).stopped {
            None => self.filled(number, 1),
            Some(Errno::EXIST) => {}
            // Not mapped any more, which the thread will see.
            Some(error) => return Err(error),
        }
        self.uffd.unprotect(at, PAGE_SIZE)
    }
}
