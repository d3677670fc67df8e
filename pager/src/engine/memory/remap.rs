//! Follows `mremap`.
//!
//! The kernel reports a change after it is done and its locks are released. So the events
//! of two threads may arrive in another order than the changes. For instance, one thread
//! gives memory up, and another moves memory to that place. If the second event arrives
//! first and is followed at once, the first event would then discard the memory that was
//! moved. This is common: a thread that moves memory causes two events, the move and then
//! the unmapping of the old place.
//!
//! So moved memory is a *pending remap* until the kernel says that no event is outstanding.
//! Until then the engine only reads events, and no thread begins another change (see
//! `exclusion`).

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
    /// Begins to follow an `mremap`: takes what is known of the old place along. The old
    /// place stays registered until it is unmapped. With `MREMAP_DONTUNMAP` it never is.
    pub(crate) fn depart(&mut self, from: Range<usize>, to: usize) {
        self.space.doubt_remaps(&from);
        let mut pages = Vec::new();
        self.pages
            .take_range(&(page(from.start)..page(from.end)), &mut pages);
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
            // The event was about the moved memory, not about what was there before. That
            // happens only if a thread makes system calls past the shim, and so was not
            // held back.
            say::die(
                "two threads moved memory at once, and it cannot be told whose is where; \
                 the program is ended before it reads wrong data",
            );
        }
        let left = from + LIMBO;
        manifest_log::strike(&Change::Moved(left..left + to.len(), to.start));
        self.forget(&(page(to.start)..page(to.end)));
        for (number, mut entry) in arrival.pages {
            let number = page(to.start) + (number - page(from));
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
