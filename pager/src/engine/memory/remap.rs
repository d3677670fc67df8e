//! Follows `mremap`.
//!
//! The kernel reports a change when it is done, and no lock is held any more:
//! the reports of two threads may come in the other order than their changes.
//! A thread may have moved memory to where another has just given memory up,
//! with the other's report still to come; to follow that one then would be to
//! forget what was moved there. The thread that moves memory reports twice, that
//! it was moved and then that the old place is unmapped, so that this is nothing
//! rare where several threads move memory.
//!
//! So memory that was moved arrives only when no report is outstanding, which the
//! kernel says. Until then nothing else is done than to read further reports,
//! and no thread begins another change, for which see `exclusion`.

use crate::engine::Engine;
use crate::engine::fork::LIMBO;
use crate::engine::fork::manifest::Change;
use crate::engine::memory::events::page;
use crate::pages::{Page, State};
use crate::sys::say;
use alloc::vec::Vec;
use core::ops::Range;

/// Memory on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    from: usize,
    to: Range<usize>,
    /// What is known of it, by the pages that they were.
    pages: Vec<(u64, Page)>,
    /// Where it is doomed, by the addresses that it had.
    doomed: Vec<Range<usize>>,
    /// What a forked child is not to have, likewise.
    withheld: Vec<Range<usize>>,
    /// While it was on its way, memory was moved or unmapped where it arrives.
    doubtful: bool,
}

impl Engine {
    /// Memory was given up. Where some is about to arrive it was what lay there
    /// before.
    pub(crate) fn doubt_arrivals(&mut self, range: &Range<usize>) {
        for other in &mut self.arrivals {
            other.doubtful |= other.to.start < range.end && range.start < other.to.end;
        }
    }

    /// `mremap` moved memory: what is known of it goes along. The old place
    /// stays the engine's until it is unmapped, which it is not when the program
    /// said `MREMAP_DONTUNMAP`.
    pub(crate) fn depart(&mut self, from: Range<usize>, to: usize) {
        self.doubt_arrivals(&from);
        let mut pages = Vec::new();
        self.pages
            .take_range(page(from.start), page(from.end), &mut pages);
        let doomed = self.doomed.within(&from);
        self.doomed.remove(from.clone());
        self.kernel.wake(from.start, from.len());
        self.strike(&Change::Moved(from.clone(), LIMBO + from.start));
        self.arrivals.push(Arrival {
            to: to..to + from.len(),
            from: from.start,
            pages,
            doomed,
            withheld: self.withheld.within(&from),
            doubtful: false,
        });
    }

    /// Lets arrive what was moved, once no report is outstanding.
    pub(crate) fn follow_arrivals(&mut self) {
        if self.arrivals.is_empty() {
            return;
        }
        // Who moves memory has gone on by the time its arrival is certain. It
        // is not to move the same memory once more before: no thread begins a
        // change while reports are read, see `read_some`.
        while self.is_changing() {
            if self.read_batch(64) == 0 {
                self.kernel.pause();
            }
        }
        for arrival in core::mem::take(&mut self.arrivals) {
            self.arrive(arrival);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { from, to, .. } = arrival;
        if arrival.doubtful && !self.is_mapped(&to) {
            // It was this memory, and not what was there before. A thread that did
            // so by instructions of its own did not wait.
            say::die(
                "two threads moved memory at once, and it cannot be told whose is where; \
                 the program is ended before it reads wrong data",
            );
        }
        let left = from + LIMBO;
        self.strike(&Change::Moved(left..left + to.len(), to.start));
        self.forget(page(to.start), page(to.end));
        for (number, mut entry) in arrival.pages {
            let number = number - page(from) + page(to.start);
            entry.queued = false;
            if let State::Pooled(frame) | State::Fetching(frame) = entry.state {
                self.pool.set_page(frame, number);
            }
            self.pages.set(number, &entry);
        }
        for (set, ranges) in [
            (&mut self.doomed, arrival.doomed),
            (&mut self.withheld, arrival.withheld),
        ] {
            set.remove(to.clone());
            for range in ranges {
                set.insert(range.start - from + to.start..range.end - from + to.start);
            }
        }
        self.adopted.insert(to.clone());
        self.enqueue_present(to);
    }

    fn is_mapped(&self, range: &Range<usize>) -> bool {
        let mut text = Vec::new();
        if self.kernel.maps(&mut text).is_err() {
            return false;
        }
        let mut at = range.start;
        for m in crate::maps::parse(&text).flatten() {
            if (m.start..m.end).contains(&at) {
                at = m.end;
            }
        }
        at >= range.end
    }
}
