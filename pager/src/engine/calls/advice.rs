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

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use crate::engine::calls::engine_call::Question;
use crate::engine::calls::lent_pages;
use crate::engine::fork::ASKS;
use crate::engine::map_throttle::SMALLEST;
use crate::engine::memory::events::page;
use crate::engine::{Engine, WARN, exclusion};
use crate::inbox::{Inbox, Message, Node};
use crate::page_set::PageSet;
use crate::pages::State;
use crate::ranges::Ranges;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;
use rustix::io::Errno;

/// Requests that the engine has not read yet.
const ROOM: usize = 1024;

static ASKED: Inbox<ROOM> = Inbox {
    last: AtomicU32::new(0),
    free: AtomicU64::new(0),
    used: AtomicU32::new(0),
    nodes: [const {
        Node {
            before: AtomicU32::new(0),
            words: [const { AtomicUsize::new(0) }; 3],
        }
    }; ROOM],
};
static QUESTION: Question = Question::new(ASKS);

/// Pages that are to stay.
static STAYING: PageSet = PageSet::new();
/// There are others, of which it could not be noted which. Then none leaves.
static OTHERS_STAY: AtomicBool = AtomicBool::new(false);

/// Whether the program has ever asked for ranges to be wiped, or withheld.
static WIPES: Ever = Ever::new();
static WITHHOLDS: Ever = Ever::new();

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

/// Whether something was ever asked for a range that may be adopted by itself, and for
/// one that may not, unless everything is.
struct Ever {
    large: AtomicBool,
    small: AtomicBool,
}

impl Ever {
    const fn new() -> Ever {
        Ever {
            large: AtomicBool::new(false),
            small: AtomicBool::new(false),
        }
    }

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
        Ask::Wipe(true) => WIPES.note(range),
        Ask::Withhold(true) => WITHHOLDS.note(range),
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
    while !ASKED.add(to_message(what, range)) {
        if !QUESTION.turn().ask() {
            // Nothing is elsewhere, or ever will be: there is no engine.
            return;
        }
    }
}

/// Notes that pages are to stay; whether one is new.
fn stay(range: &Range<usize>) -> bool {
    let mut new = false;
    for page in page(range.start)..=page(range.end - 1) {
        match STAYING.insert(page) {
            Ok(is_new) => new |= is_new,
            Err(_) => OTHERS_STAY.store(true, SeqCst),
        }
    }
    new
}

/// In a process that was just forked: its engine has nothing to be told yet.
pub(crate) fn begin_anew() {
    ASKED.begin_anew();
    QUESTION.begin_anew();
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

impl Engine {
    /// Follows what was asked for since this was done last. That is before
    /// each report of the kernel: what was asked for memory that is then
    /// unmapped is not about what comes to be there.
    pub(crate) fn follow_asks(&mut self) {
        let mut asked = Vec::new();
        ASKED.take(|message| asked.push(from_message(message)));
        let mut given_back = Ranges::default();
        for (what, range) in asked.into_iter().rev() {
            let adopted = self.adopted.within(&range);
            match what {
                Ask::Stay => self.bring_what_stays(&range),
                Ask::Wipe(_) if adopted.is_empty() => {}
                Ask::Wipe(_) => WIPES.large.store(true, SeqCst),
                Ask::Withhold(true) => adopted.into_iter().for_each(|part| {
                    given_back.remove(part.clone());
                    self.withheld.insert(part);
                }),
                Ask::Withhold(false) => adopted.into_iter().for_each(|part| {
                    given_back.insert(part.clone());
                    self.withheld.remove(part);
                }),
            }
        }
        // Not to those that nobody prepares.
        given_back
            .iter()
            .for_each(|part| self.hide_from_forks(&part));
    }

    /// Answers who has found no room.
    pub(crate) fn answer_asks(&mut self) {
        QUESTION.answer(|| self.follow_asks());
    }

    /// Small mappings are adopted from now on: what was asked for them counts.
    pub(crate) fn take_small(&mut self) {
        self.takes_small = true;
        crate::engine::map_throttle::small_too();
    }

    /// Whether small mappings are adopted. A child cannot tell of what it inherits.
    fn has_small(&self) -> bool {
        self.takes_small || self.settings.inherit.is_some()
    }

    /// Finds what was adopted just now that the program withholds from its
    /// children.
    pub(crate) fn find_withheld(&mut self, found: &[Range<usize>]) -> Result<(), Errno> {
        fence(SeqCst);
        let is_asked = WITHHOLDS.is_asked(self.has_small()) || self.may_be_advised_unseen();
        if found.is_empty() || !is_asked {
            return Ok(());
        }
        for (range, flags) in self.kernel.flags()? {
            if flags.withheld {
                for part in found {
                    let both = range.start.max(part.start)..range.end.min(part.end);
                    if !both.is_empty() {
                        self.withheld.insert(both);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a child that is forked now finds empty.
    pub(crate) fn find_wiped(&self) -> Result<Ranges, Errno> {
        let mut wiped = Ranges::default();
        if WIPES.is_asked(self.has_small()) || self.may_be_advised_unseen() {
            let all = self.kernel.flags()?;
            let of_them = all.into_iter().filter(|(_, flags)| flags.wiped);
            of_them.for_each(|(range, _)| wiped.insert(range));
        }
        Ok(wiped)
    }

    /// In a forked child: pages that the parent's threads had stay do so here. What
    /// was withheld from it is not there, or was not meant any more.
    pub(crate) fn inherit_asks(&mut self) {
        let mut elsewhere = Vec::new();
        STAYING.each(|page| {
            if self.pages.get(page).state != State::Local {
                elsewhere.push(page);
            }
        });
        elsewhere.into_iter().for_each(|page| self.recall(page));
    }

    /// Whether a page must stay in the program.
    pub(crate) fn must_stay(&self, page: u64) -> bool {
        self.pinned.contains(&page) || STAYING.contains(page) || lent_pages::contain(page)
    }

    /// Whether nothing may leave, as it is not known what has to stay. Says so once.
    pub(crate) fn tell_of_others_that_stay(&mut self) {
        if others_stay() && !self.told_of_others {
            self.told_of_others = true;
            self.say(
                WARN,
                "no memory to note where the program has robust mutexes, which have to stay in \
                 memory: nothing more is paged out, and the budget is not kept",
            );
        }
    }

    /// Pages are unmapped, and what comes to be there may leave.
    pub(crate) fn no_longer_stays(&mut self, pages: &Range<u64>) {
        self.pinned.retain(|page| !pages.contains(page));
        STAYING.remove(pages);
        lent_pages::unmapped(pages);
    }

    fn bring_what_stays(&mut self, range: &Range<usize>) {
        for page in page(range.start)..=page(range.end - 1) {
            // Unless it was unmapped since.
            if STAYING.contains(page) && self.pages.get(page).state != State::Local {
                self.recall(page);
            }
        }
    }
}

/// Whether pages are to stay of which it could not be noted which.
pub(crate) fn others_stay() -> bool {
    OTHERS_STAY.load(SeqCst)
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
