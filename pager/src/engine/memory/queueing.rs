//! Keeps the eviction queue in step with the page table.

use crate::engine::memory::Memory;
use crate::engine::memory::address::{addr, page};
use crate::pages::{Page, State};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
use tmem_policy::cyclic::{begins_block, within_block};
use tmem_policy::eviction::{Run, Segment};

impl Memory {
    /// Adds the present pages of a range to the eviction queue, in the order of their
    /// addresses.
    pub(crate) fn enqueue_present(&mut self, range: Range<usize>) {
        let mut present = Vec::new();
        // If the kernel does not answer, nothing in the range is evicted.
        if self
            .mover
            .kernel()
            .present(range.start, range.end, &mut present)
            .is_err()
        {
            return;
        }
        for run in present {
            for number in page(run.start).until(page(run.end)) {
                let mut entry = self.pages.get(number);
                if entry.state == State::Local && !entry.queued {
                    self.enqueue(number, &mut entry, Segment::Small);
                    self.pages.set(number, &entry);
                }
            }
        }
    }

    /// Adds a page to the end of a segment. The caller stores the entry.
    pub(crate) fn enqueue(&mut self, first: PageNumber, entry: &mut Page, place: Segment) {
        entry.queued = true;
        entry.generation = self.queue.push(first, 1, place);
    }

    /// Puts pages that were taken from the queue, but did not leave, at the end of a
    /// segment.
    pub(crate) fn enqueue_again(&mut self, first: PageNumber, n: usize, place: Segment) {
        let generation = self.queue.push(first, n as u32, place);
        for number in first.run(n) {
            if self.pages.get(number).queued {
                self.pages.update(number, |p| p.generation = generation);
            }
        }
    }

    /// Rebuilds the queue if too many of its pages have left by other ways.
    pub(crate) fn tidy_queue(&mut self) {
        if self.queue.pages() < 2 * self.resident() as u64 + (1 << 16) {
            return;
        }
        let mut kept = Vec::new();
        // Of two places of the same page, the later counts.
        for (run, place) in self.queue.drain().into_iter().rev() {
            for first in run.pages().rev() {
                let mut entry = self.pages.get(first);
                let is_its = entry.queued && entry.generation == run.generation;
                if is_its && entry.state == State::Local && !entry.has_waiters {
                    // The flag marks pages that were kept already. It is cleared below.
                    entry.has_waiters = true;
                    self.pages.set(first, &entry);
                    kept.push((Run { first, n: 1, ..run }, place));
                }
            }
        }
        for (run, place) in kept.into_iter().rev() {
            self.queue.requeue(run, place);
        }
        self.pages.for_all(|_, entry| {
            if entry.state == State::Local {
                entry.has_waiters = false;
            }
        });
    }

    /// Updates queue and page table after zeros were put into the program.
    pub(crate) fn note_zeros(&mut self, page: PageNumber, n: usize) {
        self.report.stats.zero_fills.fetch_add(n as u64, Relaxed);
        // These pages were absent, so no old contents are left there.
        self.space.is_empty_now(addr(page)..addr(page + n));
        for number in page.run(n) {
            if number == page || begins_block(number) {
                let left = page + n - number;
                self.queue
                    .note_zero_filled(number, left.min(within_block(number)));
            }
            let mut entry = self.pages.get(number);
            if !entry.queued {
                self.enqueue(number, &mut entry, Segment::Small);
                self.pages.set(number, &entry);
            }
        }
    }
}
