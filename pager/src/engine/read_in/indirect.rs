//! Reads the pages that the pointers of an array lead to, for a thread that walks the
//! array. The policy is [`tmem_policy::indirect`].

use crate::engine::kernel::Kernel;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::faults::Fault;
use crate::engine::read_in::Readahead;
use crate::engine::read_in::ahead::fetch_pages;
use crate::engine::reclaim::Reclaim;
use crate::pages::Pages;
use crate::ranges::Ranges;
use core::ops::Range;
use tmem_policy::PageNumber;
use tmem_policy::indirect::{IndirectFault, ProgramMemory};
use tmem_policy::readahead::BYTES;

/// The lowest possible address of a program. Most numbers and texts are too small or too
/// large to be pointers.
const LOWEST_ADDRESS: u64 = 1 << 16;

/// The program's memory, as the indirect prefetcher reads it.
struct Seen<'a> {
    adopted: &'a Ranges,
    pages: &'a Pages,
    kernel: &'a dyn Kernel,
}

impl<'a> Seen<'a> {
    fn of(m: &'a Memory) -> Seen<'a> {
        Seen {
            adopted: m.space.adopted(),
            pages: &m.pages,
            kernel: m.mover.kernel(),
        }
    }
}

impl ProgramMemory for Seen<'_> {
    fn is_pointer(&self, word: u64) -> bool {
        (LOWEST_ADDRESS..BYTES).contains(&word) && self.adopted.around(word as usize).is_some()
    }

    fn read(&self, page: PageNumber, words: &mut [u64]) -> usize {
        let start = addr(page);
        let within = |r: Range<usize>| start + size_of_val(words) <= r.end;
        match self.adopted.around(start).is_some_and(within) {
            true => self.kernel.words(start, words),
            false => 0,
        }
    }

    fn is_elsewhere(&self, page: PageNumber) -> bool {
        self.pages.is_elsewhere(page)
    }
}

impl Readahead {
    /// Tells the policy that a thread waits for a page, or touches one that was read ahead,
    /// and reads the pages that it predicts. `missed` says that the page was not in local
    /// memory.
    pub(crate) fn follow_pointers(
        &mut self,
        m: &mut Memory,
        reclaim: &mut Reclaim,
        fault: &Fault,
        missed: bool,
    ) {
        let seen = IndirectFault {
            tid: fault.tid,
            at: fault.at,
            unexpected: missed && fault.window().count == 0,
            most: m.most_ahead(),
        };
        let batches = self.indirect.fault(&seen, &Seen::of(m));
        for batch in batches {
            fetch_pages(m, reclaim, &batch.pages, batch.marker);
        }
    }

    /// Shows the policy a page that a thread waited for, and its bytes.
    pub(crate) fn note_pointer_page(&mut self, m: &Memory, page: PageNumber, bytes: &[u8]) {
        self.indirect.note_page(page, bytes, &Seen::of(m));
    }
}
