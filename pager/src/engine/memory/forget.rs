//! Forgets pages that the program gives up.

use crate::engine::evicted::{set_evicted, set_lost};
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use crate::stats::Slot as Figures;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
use tmem_wire::PAGE_SIZE;

impl Memory {
    /// Follows a discard: the program gives up the contents of a range.
    pub(crate) fn discard(&mut self, range: Range<usize>) {
        self.forget(&(page(range.start)..page(range.end)));
        self.space.discard(range.clone());
        self.mover.kernel().wake(range.start, range.len());
    }

    /// Forgets everything about a range of pages, and frees their frames and slots.
    pub(crate) fn forget(&mut self, pages: &Range<PageNumber>) {
        let mut gone = Vec::new();
        self.pages.take_range(pages, &mut gone);
        let mut slots: Vec<Slot> = Vec::new();
        for (_, entry) in &gone {
            match entry.state {
                State::Pooled(frame) | State::ReadIn(frame) => self.abandon(frame),
                State::Remote | State::Local | State::Lost => {}
            }
            if !matches!(entry.state, State::Local | State::Lost) {
                self.count_remote(-1);
                self.report.stats.discarded_pages.fetch_add(1, Relaxed);
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
            self.backing.free_slots(slots[at], n as u32);
            at += n;
        }
    }

    /// Detaches a frame from a page that is not wanted any more.
    fn abandon(&mut self, frame: FrameNumber) {
        match self.pool.kind(frame) {
            // A request still uses the frame.
            Kind::ReadIn | Kind::Writeback | Kind::Isolated => self.pool.set_page(frame, None),
            _ => self.pool.put(frame, Kind::Free, None),
        }
    }

    /// Changes the count of pages whose only copy is remote.
    pub(crate) fn count_remote(&mut self, more: i64) {
        let own = self.residency.count_remote(more);
        if more < 0 {
            self.backing.grants.came_home(more.unsigned_abs());
        }
        set_evicted(self.residency.remote() > 0);
        Figures::peak(&self.report.stats.remote_bytes, own * PAGE_SIZE as u64);
    }

    /// Counts `n` pages as lost.
    pub(crate) fn lost_some(&self, n: i64) {
        if n > 0 {
            set_lost();
            self.report.stats.lost_pages.fetch_add(n as u64, Relaxed);
        }
    }
}
