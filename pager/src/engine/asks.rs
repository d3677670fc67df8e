//! What threads of the program ask for of ranges of memory.
//!
//! Pages *stay* in memory: when a thread ends, the kernel goes through the
//! robust mutexes that it holds and marks them. It does so without waiting for a
//! page: those that are not there are passed over, and who waits for such a
//! mutex waits for ever.
//!
//! Ranges are *wiped* in the child of a fork (`MADV_WIPEONFORK`), or *withheld*
//! from it (`MADV_DONTFORK`). The kernel does both by itself to what is in
//! memory; of what is elsewhere the child is told nothing. The kernel knows best
//! which these are: what was asked for one range may be about another by the time
//! that it is adopted, as before nobody hears when memory is moved or unmapped. So
//! it is asked at the fork what is wiped, and at adoption what is withheld (from
//! then on the engine itself withholds everything until there is a fork); but only
//! where the program has ever asked for such a thing, as it is a long list.

use super::Engine;
use super::event::page;
use super::room::SMALLEST;
use crate::ranges::Ranges;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use core::sync::atomic::{AtomicPtr, AtomicUsize};
use rustix::io::Errno;

/// More are not kept in mind.
const MOST: usize = 1 << 20;

/// What was asked last. Nothing is ever taken out: a forked child reads it all
/// from its beginning.
static ASKED: AtomicPtr<Asked> = AtomicPtr::new(null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

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

/// Whether the program has ever asked for memory to be wiped in a child, or withheld
/// from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    wipes: bool,
    withholds: bool,
}

#[derive(Debug)]
pub(super) struct Asked {
    what: Ask,
    range: Range<usize>,
    before: *const Asked,
}

/// Asks for something. Called by threads of the program.
pub fn ask(what: Ask, range: Range<usize>) {
    if COUNT.fetch_add(1, AcqRel) >= MOST {
        return;
    }
    let asked = Box::leak(Box::new(Asked {
        what,
        range,
        before: ASKED.load(Acquire),
    }));
    while let Err(now) = ASKED.compare_exchange(
        asked.before.cast_mut(),
        core::ptr::from_mut(asked),
        AcqRel,
        Acquire,
    ) {
        asked.before = now;
    }
}

impl Engine {
    /// Follows what was asked for since this was done last. That is before
    /// each report of the kernel: what was asked for memory that is then
    /// unmapped is not about what comes to be there.
    pub(super) fn follow_asks(&mut self) {
        for asked in self.new_asks() {
            let range = asked.range.clone();
            match asked.what {
                Ask::Stay => self.stay(&range),
                Ask::Wipe(on) => self.note_ask(on, &range, |e| &mut e.wipes),
                Ask::Withhold(on) => {
                    self.note_ask(on, &range, |e| &mut e.withholds);
                    for part in self.adopted.within(&range) {
                        match on {
                            true => self.withheld.insert(part),
                            false => {
                                // Not from one that nobody prepares.
                                self.hide_from_forks(&part);
                                self.withheld.remove(part);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Takes note that something was asked for a range, or that it was for one that is
    /// not adopted unless small ones are.
    fn note_ask(&mut self, on: bool, range: &Range<usize>, of: fn(&mut Wishes) -> &mut bool) {
        let large = self.takes_small || range.len() >= SMALLEST;
        match large || !self.adopted.within(range).is_empty() {
            true => *of(&mut self.wishes) |= on,
            false => *of(&mut self.wishes_for_small) |= on,
        }
    }

    /// Small mappings are adopted from now on: what was asked for them counts.
    pub(super) fn take_small(&mut self) {
        self.takes_small = true;
        super::room::small_too();
        self.wishes.wipes |= self.wishes_for_small.wipes;
        self.wishes.withholds |= self.wishes_for_small.withholds;
    }

    /// Finds what was adopted just now that the program withholds from its
    /// children.
    pub(super) fn find_withheld(&mut self, found: &[Range<usize>]) -> Result<(), Errno> {
        if !self.wishes.withholds {
            return Ok(());
        }
        for (range, flags) in self.proc.flags()? {
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
    pub(super) fn find_wiped(&self) -> Result<Ranges, Errno> {
        let mut wiped = Ranges::default();
        if self.wishes.wipes {
            let all = self.proc.flags()?;
            let of_them = all.into_iter().filter(|(_, flags)| flags.wiped);
            of_them.for_each(|(range, _)| wiped.insert(range));
        }
        Ok(wiped)
    }

    /// In a forked child: pages that the parent's threads had stay do so here. What
    /// was withheld from it is not there, or was not meant any more.
    pub(super) fn inherit_asks(&mut self) {
        for asked in self.new_asks() {
            match asked.what {
                Ask::Stay => self.stay(&asked.range),
                Ask::Wipe(on) => self.note_ask(on, &asked.range, |e| &mut e.wipes),
                Ask::Withhold(_) => {}
            }
        }
    }

    fn stay(&mut self, range: &Range<usize>) {
        (page(range.start)..=page(range.end - 1)).for_each(|page| self.pin(page));
    }

    /// What was not followed yet, in its order.
    fn new_asks(&mut self) -> Vec<&'static Asked> {
        let last = ASKED.load(Acquire).cast_const();
        let (mut new, mut at) = (Vec::new(), last);
        while at != self.asks {
            // SAFETY: null, or what `ask` made and nobody changes or frees.
            let Some(asked) = (unsafe { at.as_ref() }) else {
                break;
            };
            new.push(asked);
            at = asked.before;
        }
        self.asks = last;
        new.reverse();
        new
    }
}
