//! Fetches what the pointers of an array lead to, for a thread that goes through it:
//! carries out what [`tmem_policy::indirect`] decides.

use crate::engine::Engine;
use crate::engine::fault::{Fault, addr};
use crate::engine::kernel::Kernel;
use crate::pages::{Pages, State};
use crate::ranges::Ranges;
use core::ops::Range;
use tmem_policy::indirect::{IndirectFault, ProgramMemory};
use tmem_policy::readahead::{BYTES, Window};

/// No address of a program lies below this: most numbers and texts are told from pointers by
/// it at once.
const LOWEST_ADDRESS: u64 = 1 << 16;

/// The program's memory as the indirect prefetcher sees it.
struct Memory<'a> {
    adopted: &'a Ranges,
    pages: &'a Pages,
    kernel: &'a dyn Kernel,
}

impl ProgramMemory for Memory<'_> {
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
        is_elsewhere(self.pages, page)
    }
}

/// Whether a page is not in the program, and can be fetched.
fn is_elsewhere(pages: &Pages, page: u64) -> bool {
    matches!(pages.get(page).state, State::Remote | State::Pooled(_))
}

impl Engine {
    /// Sees whether a pointer has led a thread to a page that it waits for, or that was fetched
    /// ahead, and fetches what the next pointers lead to.
    pub(crate) fn follow_pointers(&mut self, fault: &Fault, missed: bool) {
        let seen = IndirectFault {
            tid: fault.tid,
            at: fault.at,
            unexpected: missed && fault.window().count == 0,
            most: self.most_ahead(),
        };
        let memory = Memory {
            adopted: &self.adopted,
            pages: &self.pages,
            kernel: &*self.kernel,
        };
        let batches = self.indirect.fault(&seen, &memory);
        for batch in batches {
            self.fetch_pages(&batch.pages, batch.marker);
        }
    }

    /// A thread waits for a page that has come, with these bytes.
    pub(crate) fn note_pointer_page(&mut self, page: u64, bytes: &[u8]) {
        let memory = Memory {
            adopted: &self.adopted,
            pages: &self.pages,
            kernel: &*self.kernel,
        };
        self.indirect.note_page(page, bytes, &memory);
    }

    /// Pages of a window are fetched: there thread `tid` reads in order.
    pub(crate) fn note_read(&mut self, tid: u32, window: Window, count: u32) {
        self.indirect.note_window(tid, window, count);
    }

    /// Whether a page is not in the program, and can be fetched.
    pub(crate) fn is_elsewhere(&self, page: u64) -> bool {
        is_elsewhere(&self.pages, page)
    }
}
