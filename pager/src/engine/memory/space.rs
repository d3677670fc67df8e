//! The program's address space as far as the engine follows it.

use crate::engine::kernel::Kernel;
use crate::engine::memory::own_zap::OwnZap;
use crate::pages::Page;
use crate::ranges::Ranges;
use crate::sys::now_ns;
use alloc::vec::Vec;
use core::ops::Range;

/// Between two looks whether discarded pages are gone.
const DISCARDS_NS: u64 = 500_000;

/// What is adopted, and what the program is changing.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Memory that is registered and paged.
    adopted: Ranges,
    /// What is adopted and withheld from forked children (`MADV_DONTFORK`).
    dontfork: Ranges,
    /// Given up by the program, but perhaps still to be zapped: see `memory::events`.
    pending_discards: Ranges,
    /// When the page map was last asked about these.
    discards_ns: u64,
    /// Moved by the program, and not there yet.
    pending_remaps: Vec<PendingRemap>,
    /// A fault came from memory that is not known: the list of mappings is to be read.
    is_stale: bool,
    /// Counts changes of the address space.
    changes: u64,
    /// Reports within the range that the engine itself has zapped now.
    pub(crate) own_zap: OwnZap,
}

/// Memory on its way.
#[derive(Debug)]
pub(crate) struct PendingRemap {
    pub(crate) from: usize,
    pub(crate) to: Range<usize>,
    /// What is known of it, by the pages that they were.
    pub(crate) pages: Vec<(u64, Page)>,
    /// Where its contents are still to be given up, by the addresses that it had.
    pub(crate) discards: Vec<Range<usize>>,
    /// What a forked child is not to have, likewise.
    pub(crate) withheld: Vec<Range<usize>>,
    /// While it was on its way, memory was moved or unmapped where it arrives.
    pub(crate) doubtful: bool,
}

impl Space {
    /// Memory that is registered and paged.
    pub(crate) fn adopted(&self) -> &Ranges {
        &self.adopted
    }

    /// What is adopted and withheld from forked children.
    pub(crate) fn dontfork(&self) -> &Ranges {
        &self.dontfork
    }

    /// Whether the contents of a page are given up, and may still be there.
    pub(crate) fn is_discarded(&self, at: usize) -> bool {
        self.pending_discards.around(at).is_some()
    }

    /// A range is registered, and paged from now on.
    pub(crate) fn adopt(&mut self, range: Range<usize>) {
        self.adopted.insert(range);
    }

    /// A range turned out not to be paged.
    pub(crate) fn disown(&mut self, range: Range<usize>) {
        self.adopted.remove(range);
    }

    /// A range is withheld from forked children.
    pub(crate) fn withhold(&mut self, range: Range<usize>) {
        self.dontfork.insert(range);
    }

    /// Forked children are to have a range.
    pub(crate) fn hand_down(&mut self, range: Range<usize>) {
        self.dontfork.remove(range);
    }

    /// The contents of a range are given up, and may still be there.
    pub(crate) fn discard(&mut self, range: Range<usize>) {
        self.pending_discards.insert(range);
    }

    /// Nothing old is in a range any more.
    pub(crate) fn is_empty_now(&mut self, range: Range<usize>) {
        self.pending_discards.remove(range);
    }

    /// Takes out what of a range is given up, and may still be there.
    pub(crate) fn take_discards(&mut self, range: &Range<usize>) -> Vec<Range<usize>> {
        let within = self.pending_discards.within(range);
        self.pending_discards.remove(range.clone());
        within
    }

    /// A range is not the engine's any more.
    pub(crate) fn remove(&mut self, range: &Range<usize>) {
        self.adopted.remove(range.clone());
        self.pending_discards.remove(range.clone());
        self.dontfork.remove(range.clone());
    }

    /// How many changes of the address space were followed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The program has changed the address space.
    pub(crate) fn note_change(&mut self) {
        self.changes += 1;
    }

    /// Whether a fault came from memory that is not known.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Takes note that the list of mappings is to be read, or was.
    pub(crate) fn set_stale(&mut self, is: bool) {
        self.is_stale = is;
    }

    /// Whether memory that was moved is not there yet.
    pub(crate) fn has_remaps(&self) -> bool {
        !self.pending_remaps.is_empty()
    }

    /// Takes what was moved and is not there yet.
    pub(crate) fn take_remaps(&mut self) -> Vec<PendingRemap> {
        core::mem::take(&mut self.pending_remaps)
    }

    /// Memory was moved, and is not there yet.
    pub(crate) fn depart(&mut self, arrival: PendingRemap) {
        self.pending_remaps.push(arrival);
    }

    /// Memory that lay at `from` is at `to` now, with what it has still to give up and
    /// withhold.
    pub(crate) fn arrive(
        &mut self,
        from: usize,
        to: Range<usize>,
        discards: Vec<Range<usize>>,
        withheld: Vec<Range<usize>>,
    ) {
        for (set, ranges) in [
            (&mut self.pending_discards, discards),
            (&mut self.dontfork, withheld),
        ] {
            set.remove(to.clone());
            for range in ranges {
                set.insert(range.start - from + to.start..range.end - from + to.start);
            }
        }
        self.adopted.insert(to);
    }

    /// Memory was given up. Where some is about to arrive it was what lay there
    /// before.
    pub(crate) fn doubt_remaps(&mut self, range: &Range<usize>) {
        for other in &mut self.pending_remaps {
            other.doubtful |= other.to.start < range.end && range.start < other.to.end;
        }
    }

    /// Sees which discarded pages are gone by now.
    pub(crate) fn check_discards(&mut self, kernel: &dyn Kernel) {
        let now = now_ns();
        if self.pending_discards.is_empty() || now < self.discards_ns + DISCARDS_NS {
            return;
        }
        self.discards_ns = now;
        let discards: Vec<_> = self.pending_discards.iter().collect();
        for range in discards {
            let mut present = Vec::new();
            if kernel
                .occupied(range.start, range.end, &mut present)
                .is_err()
            {
                continue;
            }
            self.pending_discards.remove(range);
            for run in present {
                self.pending_discards.insert(run.start..run.end);
            }
        }
    }
}
