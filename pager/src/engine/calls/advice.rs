//! The advice log: what threads of the program want of ranges of memory.
//!
//! Pages that *stay* hold robust mutexes. When a thread ends, the kernel marks the robust
//! mutexes that it holds. The kernel skips absent pages instead of waiting for them, so a
//! thread that waits for such a mutex would wait for ever. Threads add these pages to a
//! set, of which a forked child has a copy.
//!
//! Ranges are *wiped* in a forked child (`MADV_WIPEONFORK`), or *withheld* from it
//! (`MADV_DONTFORK`). The kernel does both for resident pages, and the engine must do the
//! same for the others. The kernel knows these ranges best: before memory is adopted,
//! nobody tells the engine when it is moved or unmapped. So the engine asks the kernel at
//! each fork what is wiped, and at adoption what is withheld. (After that the engine itself
//! withholds all adopted memory until there is a fork.) The answer is a long list, so it
//! asks only if the program has given such advice, or may have given it past the shim
//! ([`crate::engine::reclaim::lending`]).
//!
//! For adopted memory each advice is also logged for the engine. A thread that finds the
//! log full has the engine read it first.

use crate::engine::threads::{Ever, THREADS};
use tmem_policy::PageNumber;

use crate::engine::exclusion;
use crate::engine::map_throttle::SMALLEST;
use crate::engine::memory::address::page;
use crate::inbox::Message;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;

/// A kind of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The pages must stay in memory until they are unmapped.
    Stay,
    /// A forked child finds zeros here, or does not any more.
    Wipe(bool),
    /// A forked child does not get this memory, or gets it again.
    Withhold(bool),
}

impl Ever {
    fn note(&self, range: &Range<usize>) {
        match range.len() >= SMALLEST {
            true => self.large.store(true, SeqCst),
            false => self.small.store(true, SeqCst),
        }
    }

    fn is_asked(&self, every: bool) -> bool {
        self.large.load(SeqCst) || every && self.small.load(SeqCst)
    }
}

/// Logs an advice. Called by threads of the program, with signals blocked, after the kernel
/// has accepted the advice.
pub fn ask(what: Ask, range: &Range<usize>) {
    // The advice is about what is mapped there now. The engine has followed this thread's
    // earlier changes once it can begin another.
    drop(exclusion::Change::begin());
    match what {
        Ask::Stay => {
            if !stay(range) {
                // The engine knows these pages already.
                return;
            }
        }
        Ask::Wipe(true) => THREADS.advice.wipes.note(range),
        Ask::Withhold(true) => THREADS.advice.withholds.note(range),
        // Nothing depends on it: the engine asks the kernel more often than necessary.
        Ask::Wipe(false) => return,
        Ask::Withhold(false) => {}
    }
    // Either this thread sees that memory is about to be adopted, or the engine sees the
    // advice, and asks the kernel.
    fence(SeqCst);
    if !exclusion::are_reported() {
        return;
    }
    while !THREADS.advice.inbox.add(to_message(what, range)) {
        if !THREADS.advice.question.turn().ask() {
            // Without an engine no page is or will be elsewhere.
            return;
        }
    }
}

/// Adds pages that must stay. Returns whether one of them is new.
fn stay(range: &Range<usize>) -> bool {
    let mut new = false;
    for page in page(range.start).until(page(range.end - 1) + 1) {
        match THREADS.advice.staying.insert(page) {
            Ok(is_new) => new |= is_new,
            Err(_) => THREADS.advice.others_stay.store(true, SeqCst),
        }
    }
    new
}

const STAY: usize = 0;
const WIPE: usize = 1;
const WITHHOLD: usize = 2;
const ON: usize = 1 << 8;

fn to_message(what: Ask, range: &Range<usize>) -> Message {
    let switched = |on: bool| if on { ON } else { 0 };
    let what = match what {
        Ask::Stay => STAY,
        Ask::Wipe(on) => WIPE | switched(on),
        Ask::Withhold(on) => WITHHOLD | switched(on),
    };
    [what, range.start, range.end]
}

fn from_message([what, start, end]: Message) -> (Ask, Range<usize>) {
    let on = what & ON != 0;
    let what = match what & !ON {
        STAY => Ask::Stay,
        WIPE => Ask::Wipe(on),
        _ => Ask::Withhold(on),
    };
    (what, start..end)
}

/// Takes all logged advice out, the last first.
pub(crate) fn take(mut each: impl FnMut(Ask, Range<usize>)) {
    THREADS.advice.inbox.take(|message| {
        let (what, range) = from_message(message);
        each(what, range);
    });
}

/// Notes that memory to be wiped is adopted.
pub(crate) fn note_wiped() {
    THREADS.advice.wipes.large.store(true, SeqCst);
}

/// Tells whether the program has ever asked to wipe memory that may be adopted. `every`
/// says that small mappings are adopted.
pub(crate) fn is_any_wiped(every: bool) -> bool {
    THREADS.advice.wipes.is_asked(every)
}

/// Tells whether the program has ever asked to withhold memory that may be adopted. `every`
/// says that small mappings are adopted.
pub(crate) fn is_any_withheld(every: bool) -> bool {
    fence(SeqCst);
    THREADS.advice.withholds.is_asked(every)
}

/// Tells whether a page must stay.
pub(crate) fn stays(page: PageNumber) -> bool {
    THREADS.advice.staying.contains(page)
}

/// Calls `each` with every page that must stay.
pub(crate) fn each_that_stays(each: impl FnMut(PageNumber)) {
    THREADS.advice.staying.each(each);
}

/// Removes pages that were unmapped.
pub(crate) fn none_stays(pages: &Range<PageNumber>) {
    THREADS.advice.staying.remove(pages);
}

/// Answers a thread that found the log full, by calling `follow`.
pub(crate) fn answer(follow: impl FnOnce()) {
    THREADS.advice.question.answer(follow);
}

/// Tells whether a page that must stay could not be noted.
pub(crate) fn others_stay() -> bool {
    THREADS.advice.others_stay.load(SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_as_it_was_asked() {
        let asks = [
            Ask::Stay,
            Ask::Wipe(true),
            Ask::Wipe(false),
            Ask::Withhold(true),
            Ask::Withhold(false),
        ];
        for what in asks {
            assert_eq!(from_message(to_message(what, &(7..9))), (what, 7..9));
        }
    }
}
