//! Follows what the program does to its address space; `mremap`: see `remap`.
//!
//! The kernel reports changes, and holds the thread that makes one until the
//! report has been read. `munmap` and `mremap` have been done by then, so that
//! reading the report is all it takes to be in step. `madvise(MADV_DONTNEED)`
//! is done only after, by a thread that nobody can watch: pages that were
//! resident may still be there, with what the program gave up. To evict such a
//! page would save it from its zap, and the program would find old data where
//! it expects zeros. These pages are *doomed*: not evicted before the kernel's
//! page map has shown that they are gone.

use crate::engine::Engine;
use crate::engine::exclusion::Still;
use crate::pages::{Page, State};
use crate::pool::Kind;
use crate::slots::Slot;
use crate::sys::now_ns;
use crate::sys::uffd::Msg;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::eviction::{Run, Segment};
use tmem_wire::PAGE_SIZE;

/// Between two looks whether doomed pages are gone.
const DOOMED_NS: u64 = 500_000;

impl Engine {
    /// Follows one event.
    pub(crate) fn event(&mut self, event: Msg) {
        self.follow_asks();
        self.strike_given_up(event);
        let before = self.events;
        self.events += 1;
        match event {
            Msg::Unmap { start, end } => {
                self.doubt_arrivals(&(start..end));
                self.forget(page(start), page(end));
                self.no_longer_stays(&(page(start)..page(end)));
                self.adopted.remove(start..end);
                self.doomed.remove(start..end);
                self.withheld.remove(start..end);
                // Who waits there finds out what is there now.
                self.kernel.wake(start, end - start);
            }
            Msg::Remove { start, end } => {
                let own = self
                    .zapper
                    .as_mut()
                    .is_some_and(|z| z.is_own(&(start..end)));
                if own {
                    self.events = before;
                } else {
                    self.discard(start..end);
                }
            }
            Msg::Remap { from, to, len } => self.depart(from..from + len, to),
            Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
        }
    }

    /// Whether a report has not been read, or its thread has not gone on yet: the
    /// kernel carries out no request then.
    pub(crate) fn is_changing(&self) -> bool {
        self.kernel.unprotect(self.probe.start, PAGE_SIZE) == Err(Errno::AGAIN)
    }

    /// Reads until no report is outstanding.
    pub(crate) fn catch_up(&mut self) {
        // Else several threads at it could go on like that for ever.
        let _still = Still::begin();
        loop {
            self.read_messages();
            if !self.is_changing() {
                return;
            }
            self.kernel.pause();
        }
    }

    /// The program does not want the contents of a range any more.
    pub(crate) fn discard(&mut self, range: Range<usize>) {
        self.forget(page(range.start), page(range.end));
        self.doomed.insert(range.clone());
        self.kernel.wake(range.start, range.len());
    }

    /// Forgets what is known of pages `start..end`, and gives their frames and
    /// slots back.
    pub(crate) fn forget(&mut self, start: u64, end: u64) {
        let mut gone = Vec::new();
        self.pages.take_range(start, end, &mut gone);
        let mut slots: Vec<Slot> = Vec::new();
        for (_, entry) in &gone {
            match entry.state {
                State::Pooled(frame) | State::Fetching(frame) => self.abandon(frame),
                State::Remote | State::Local | State::Lost => {}
            }
            if !matches!(entry.state, State::Local | State::Lost) {
                self.count_remote(-1);
                self.figures.discarded_pages.fetch_add(1, Relaxed);
            }
            slots.extend(entry.slot);
        }
        slots.sort_unstable();
        let mut at = 0;
        while at < slots.len() {
            let mut n = 1;
            while at + n < slots.len() && slots[at + n - 1].is_before(slots[at + n]) {
                n += 1;
            }
            self.free_slots(slots[at], n as u32);
            at += n;
        }
    }

    /// A frame's page is not wanted any more.
    fn abandon(&mut self, frame: u32) {
        match self.pool.kind(frame) {
            // A request still uses them.
            Kind::Fetching | Kind::Writing | Kind::Leaving => self.pool.set_page(frame, 0),
            _ => self.pool.put(frame, Kind::Free, 0),
        }
    }

    /// Sees which doomed pages are gone by now.
    pub(crate) fn look_at_doomed(&mut self) {
        let now = now_ns();
        if self.doomed.is_empty() || now < self.doomed_ns + DOOMED_NS {
            return;
        }
        self.doomed_ns = now;
        let doomed: Vec<_> = self.doomed.iter().collect();
        for range in doomed {
            let mut present = Vec::new();
            if self
                .kernel
                .occupied(range.start, range.end, &mut present)
                .is_err()
            {
                continue;
            }
            self.doomed.remove(range);
            for run in present {
                self.doomed.insert(run.start..run.end);
            }
        }
    }

    /// Notes pages that are there in the order of their addresses, as the next
    /// to be evicted.
    pub(crate) fn enqueue_present(&mut self, range: Range<usize>) {
        let mut present = Vec::new();
        // Without the kernel's answer nothing there is evicted.
        if self
            .kernel
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
                if is_its && entry.state == State::Local && !entry.wanted {
                    // Marked for the moment, so that a page is kept once.
                    entry.wanted = true;
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
                entry.wanted = false;
            }
        });
    }
}

/// The page of an address.
pub(crate) fn page(at: usize) -> u64 {
    (at / PAGE_SIZE) as u64
}
