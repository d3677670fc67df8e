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

use crate::engine::fork::current as manifest_log;
use crate::engine::fork::manifest::Change;
use crate::engine::fork::state::LIMBO;
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::engine::memory::space::PendingRemap;
use crate::pages::State;
use crate::sys::say;
use alloc::vec::Vec;
use core::ops::Range;

impl Memory {
    /// `mremap` moved memory: what is known of it goes along. The old place
    /// stays the engine's until it is unmapped, which it is not when the program
    /// said `MREMAP_DONTUNMAP`.
    pub(crate) fn depart(&mut self, from: Range<usize>, to: usize) {
        self.space.doubt_remaps(&from);
        let mut pages = Vec::new();
        self.pages
            .take_range(page(from.start), page(from.end), &mut pages);
        let discards = self.space.take_discards(&from);
        self.mover.kernel().wake(from.start, from.len());
        manifest_log::strike(&Change::Moved(from.clone(), LIMBO + from.start));
        self.space.depart(PendingRemap {
            to: to..to + from.len(),
            from: from.start,
            pages,
            discards,
            withheld: self.space.dontfork().within(&from),
            doubtful: false,
        });
    }

    pub(crate) fn arrive(&mut self, arrival: PendingRemap) {
        let PendingRemap { from, to, .. } = arrival;
        if arrival.doubtful && !self.is_mapped(&to) {
            // It was this memory, and not what was there before. A thread that did
            // so by instructions of its own did not wait.
            say::die(
                "two threads moved memory at once, and it cannot be told whose is where; \
                 the program is ended before it reads wrong data",
            );
        }
        let left = from + LIMBO;
        manifest_log::strike(&Change::Moved(left..left + to.len(), to.start));
        self.forget(page(to.start), page(to.end));
        for (number, mut entry) in arrival.pages {
            let number = number - page(from) + page(to.start);
            entry.queued = false;
            if let State::Pooled(frame) | State::ReadIn(frame) = entry.state {
                self.pool.set_page(frame, Some(number));
            }
            self.pages.set(number, &entry);
        }
        self.space
            .arrive(from, to.clone(), arrival.discards, arrival.withheld);
        self.enqueue_present(to);
    }

    fn is_mapped(&self, range: &Range<usize>) -> bool {
        let mut text = Vec::new();
        if self.mover.kernel().maps(&mut text).is_err() {
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
