//! What threads of the program ask for of ranges of memory.
//!
//! Pages *stay* in memory: when a thread ends, the kernel goes through the
//! robust mutexes that it holds and marks them. It does so without waiting for a
//! page: those that are not there are passed over, and who waits for such a
//! mutex waits for ever. Which these are is kept as a set of pages, which threads
//! add to and a forked child has a copy of.
//!
//! Ranges are *wiped* in the child of a fork (`MADV_WIPEONFORK`), or *withheld*
//! from it (`MADV_DONTFORK`). The kernel does both by itself to what is in
//! memory; of what is elsewhere the child is told nothing. The kernel knows best
//! which these are: what was asked for one range may be about another by the time
//! that it is adopted, as before nobody hears when memory is moved or unmapped. So
//! it is asked at the fork what is wiped, and at adoption what is withheld (from
//! then on the engine itself withholds everything until there is a fork); but only
//! where the program has ever asked for such a thing, or may have done so unheard
//! ([`crate::engine::reclaim::lending`]), as it is a long list.
//!
//! Once memory is adopted, the engine is told of each request as well. A thread that
//! finds no room for another has the engine read those before.

use crate::engine::threads::{Ever, THREADS};

use crate::engine::exclusion;
use crate::engine::map_throttle::SMALLEST;
use crate::engine::memory::address::page;
use crate::inbox::Message;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// These pages are to stay in memory until they are unmapped.
    Stay,
    /// A forked child is to find zeros here, or not any more.
    Wipe(bool),
    /// A forked child is not to have this, or to have it again.
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

/// Asks for something. Called by threads of the program, with signals blocked, when the
/// kernel has taken the advice that it is about.
pub fn ask(what: Ask, range: &Range<usize>) {
    // It is about what is mapped there now: what this thread changed before has been
    // followed when it comes through here.
    drop(exclusion::Change::begin());
    match what {
        Ask::Stay => {
            if !stay(range) {
                // The engine knows.
                return;
            }
        }
        Ask::Wipe(true) => THREADS.advice.wipes.note(range),
        Ask::Withhold(true) => THREADS.advice.withholds.note(range),
        // Nothing comes of it but that more is looked at.
        Ask::Wipe(false) => return,
        Ask::Withhold(false) => {}
    }
    // Either this thread sees that memory is about to be adopted, or the engine sees
    // what was noted, and asks the kernel.
    fence(SeqCst);
    if !exclusion::are_reported() {
        return;
    }
    while !THREADS.advice.inbox.add(to_message(what, range)) {
        if !THREADS.advice.question.turn().ask() {
            // Nothing is elsewhere, or ever will be: there is no engine.
            return;
        }
    }
}

/// Notes that pages are to stay; whether one is new.
fn stay(range: &Range<usize>) -> bool {
    let mut new = false;
    for page in page(range.start)..=page(range.end - 1) {
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

/// Takes what was asked, the last first.
pub(crate) fn take(mut each: impl FnMut(Ask, Range<usize>)) {
    THREADS.advice.inbox.take(|message| {
        let (what, range) = from_message(message);
        each(what, range);
    });
}

/// What was asked to be wiped is adopted.
pub(crate) fn note_wiped() {
    THREADS.advice.wipes.large.store(true, SeqCst);
}

/// Whether the program has ever asked for ranges to be wiped that may be adopted; `every`
/// says that small ones are.
pub(crate) fn is_any_wiped(every: bool) -> bool {
    THREADS.advice.wipes.is_asked(every)
}

/// The same for ranges to be withheld.
pub(crate) fn is_any_withheld(every: bool) -> bool {
    fence(SeqCst);
    THREADS.advice.withholds.is_asked(every)
}

/// Whether a page is to stay.
pub(crate) fn stays(page: u64) -> bool {
    THREADS.advice.staying.contains(page)
}

/// Calls `each` with all pages that are to stay.
pub(crate) fn each_that_stays(each: impl FnMut(u64)) {
    THREADS.advice.staying.each(each);
}

/// Pages are unmapped: what comes to be there may leave.
pub(crate) fn none_stays(pages: &Range<u64>) {
    THREADS.advice.staying.remove(pages);
}

/// Answers a thread that has found no room, by what `follow` does.
pub(crate) fn answer(follow: impl FnOnce()) {
    THREADS.advice.question.answer(follow);
}

/// Whether pages are to stay of which it could not be noted which.
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
