//! The program's address space, as far as the engine follows it.

use crate::engine::kernel::Kernel;
use crate::engine::memory::own_zap::OwnZap;
use crate::pages::Page;
use crate::ranges::Ranges;
use crate::sys::now_ns;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_policy::PageNumber;

/// Time between two checks of pending discards.
const DISCARDS_NS: u64 = 500_000;

/// Adopted memory, and changes of it that are under way.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Memory that is registered and paged.
    adopted: Ranges,
    /// Adopted memory that is withheld from forked children (`MADV_DONTFORK`).
    dontfork: Ranges,
    /// Pending discards: memory that the program gave up, but that may still have to be
    /// zapped. See `memory::events`.
    pending_discards: Ranges,
    /// When the page map was last read for pending discards.
    discards_ns: u64,
    /// Pending remaps: memory that the program moved, and whose pages are not at their new
    /// place yet.
    pending_remaps: Vec<PendingRemap>,
    /// A fault came from unknown memory, so the list of mappings has to be read.
    is_stale: bool,
    /// Number of changes of the address space.
    changes: u64,
    /// Events within the range that the engine itself is zapping.
    pub(crate) own_zap: OwnZap,
}

/// A pending remap.
#[derive(Debug)]
pub(crate) struct PendingRemap {
    pub(crate) from: usize,
    pub(crate) to: Range<usize>,
    /// Page table entries, by old page number.
    pub(crate) pages: Vec<(PageNumber, Page)>,
    /// Pending discards, by old address.
    pub(crate) discards: Vec<Range<usize>>,
    /// Memory to be withheld from children, by old address.
    pub(crate) withheld: Vec<Range<usize>>,
    /// Another thread moved or unmapped memory at the new place meanwhile.
    pub(crate) doubtful: bool,
}

impl Space {
    /// Returns the memory that is registered and paged.
    pub(crate) fn adopted(&self) -> &Ranges {
        &self.adopted
    }

    /// Returns the adopted memory that is withheld from forked children.
    pub(crate) fn dontfork(&self) -> &Ranges {
        &self.dontfork
    }

    /// Tells whether a page is a pending discard.
    pub(crate) fn is_discarded(&self, at: usize) -> bool {
        self.pending_discards.around(at).is_some()
    }

    /// Adopts a registered range.
    pub(crate) fn adopt(&mut self, range: Range<usize>) {
        self.adopted.insert(range);
    }

    /// Notes that a range is withheld from forked children.
    pub(crate) fn withhold(&mut self, range: Range<usize>) {
        self.dontfork.insert(range);
    }

    /// Notes that forked children get a range again.
    pub(crate) fn hand_down(&mut self, range: Range<usize>) {
        self.dontfork.remove(range);
    }

    /// Adds a pending discard.
    pub(crate) fn discard(&mut self, range: Range<usize>) {
        self.pending_discards.insert(range);
    }

    /// Removes pending discards from a range that is empty now.
    pub(crate) fn is_empty_now(&mut self, range: Range<usize>) {
        self.pending_discards.remove(range);
    }

    /// Takes the pending discards of a range out.
    pub(crate) fn take_discards(&mut self, range: &Range<usize>) -> Vec<Range<usize>> {
        let within = self.pending_discards.within(range);
        self.pending_discards.remove(range.clone());
        within
    }

    /// Forgets a range that is not registered any more.
    pub(crate) fn remove(&mut self, range: &Range<usize>) {
        self.adopted.remove(range.clone());
        self.pending_discards.remove(range.clone());
        self.dontfork.remove(range.clone());
    }

    /// Returns how many changes of the address space were followed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Counts a change of the address space.
    pub(crate) fn note_change(&mut self) {
        self.changes += 1;
    }

    /// Tells whether the list of mappings has to be read.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Notes whether the list of mappings has to be read.
    pub(crate) fn set_stale(&mut self, is: bool) {
        self.is_stale = is;
    }

    /// Tells whether there are pending remaps.
    pub(crate) fn has_remaps(&self) -> bool {
        !self.pending_remaps.is_empty()
    }

    /// Takes all pending remaps out.
    pub(crate) fn take_remaps(&mut self) -> Vec<PendingRemap> {
        core::mem::take(&mut self.pending_remaps)
    }

    /// Adds a pending remap.
    pub(crate) fn depart(&mut self, arrival: PendingRemap) {
        self.pending_remaps.push(arrival);
    }

    /// Follows a remap from `from` to `to`, with its pending discards and what is withheld
    /// from children.
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

    /// Marks pending remaps as doubtful whose new place overlaps memory that is given up.
    /// The memory given up may be what was there before the remap.
    pub(crate) fn doubt_remaps(&mut self, range: &Range<usize>) {
        for other in &mut self.pending_remaps {
            other.doubtful |= other.to.start < range.end && range.start < other.to.end;
        }
    }

    /// Removes pending discards that are gone by now.
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
