//! Fetches what the pointers of an array lead to, for a thread that goes through it:
//! carries out what [`tmem_policy::indirect`] decides.

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
use tmem_policy::indirect::{IndirectFault, ProgramMemory};
use tmem_policy::readahead::BYTES;

/// No address of a program lies below this: most numbers and texts are told from pointers by
/// it at once.
const LOWEST_ADDRESS: u64 = 1 << 16;

/// The program's memory as the indirect prefetcher sees it.
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

    fn read(&self, page: u64, words: &mut [u64]) -> usize {
        let start = addr(page);
        let within = |r: Range<usize>| start + size_of_val(words) <= r.end;
        match self.adopted.around(start).is_some_and(within) {
            true => self.kernel.words(start, words),
            false => 0,
        }
    }

    fn is_elsewhere(&self, page: u64) -> bool {
        self.pages.is_elsewhere(page)
    }
}

impl Readahead {
    /// Sees whether a pointer has led a thread to a page that it waits for, or that was fetched
    /// ahead, and fetches what the next pointers lead to.
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
            fetch_pages(m, reclaim, &batch.pages, Some(batch.marker));
        }
    }

    /// A thread waits for a page that has come, with these bytes.
    pub(crate) fn note_pointer_page(&mut self, m: &Memory, page: u64, bytes: &[u8]) {
        self.indirect.note_page(page, bytes, &Seen::of(m));
    }
}
