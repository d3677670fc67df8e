//! Keeps the eviction queue in step with the page table.

use crate::engine::memory::Memory;
use crate::engine::memory::address::{addr, page};
use crate::pages::{Page, State};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::cyclic::{SCAN_BLOCK, within_block};
use tmem_policy::eviction::{Run, Segment};

impl Memory {
    /// Notes pages that are there in the order of their addresses, as the next
    /// to be evicted.
    pub(crate) fn enqueue_present(&mut self, range: Range<usize>) {
        let mut present = Vec::new();
        // Without the kernel's answer nothing there is evicted.
        if self
            .mover
            .kernel()
            .present(range.start, range.end, &mut present)
            .is_err()
        {
            return;
        }
        for run in present {
            for number in page(run.start)..page(run.end) {
                let mut entry = self.pages.get(number);
                if entry.state == State::Local && !entry.queued {
                    self.enqueue(number, &mut entry, Segment::Small);
                    self.pages.set(number, &entry);
                }
            }
        }
    }

    /// Puts a page at the end of a queue. The entry is to be set by the caller.
    pub(crate) fn enqueue(&mut self, first: u64, entry: &mut Page, place: Segment) {
        entry.queued = true;
        entry.generation = self.queue.push(first, 1, place);
    }

    /// Pages that were taken from a queue, and did not leave, go to its end.
    pub(crate) fn enqueue_again(&mut self, first: u64, n: usize, place: Segment) {
        let generation = self.queue.push(first, n as u32, place);
        for number in first..first + n as u64 {
            if self.pages.get(number).queued {
                self.pages.update(number, |p| p.generation = generation);
            }
        }
    }

    /// The queue names pages that left by other ways; too many of those, and it
    /// is made anew.
    pub(crate) fn tidy_queue(&mut self) {
        if self.queue.pages() < 2 * self.resident() as u64 + (1 << 16) {
            return;
        }
        let mut kept = Vec::new();
        // Where a page came twice in a short time, the later counts.
        for (run, place) in self.queue.drain().into_iter().rev() {
            for first in (run.first..run.end()).rev() {
                let mut entry = self.pages.get(first);
                let is_its = entry.queued && entry.generation == run.generation;
                if is_its && entry.state == State::Local && !entry.has_waiters {
                    // Marked for the moment, so that a page is kept once.
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

    /// Zeros are in the program.
    pub(crate) fn note_zeros(&mut self, page: u64, n: usize) {
        self.report.stats.zero_fills.fetch_add(n as u64, Relaxed);
        // Nothing was there, so nothing old is there still.
        self.space.is_empty_now(addr(page)..addr(page + n as u64));
        for number in page..page + n as u64 {
            if number == page || number % SCAN_BLOCK == 0 {
                let left = (page + n as u64 - number) as usize;
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
