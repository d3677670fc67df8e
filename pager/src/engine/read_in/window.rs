//! Fetches what a thread will want next.

use crate::engine::memory::Memory;
use crate::engine::memory::faults::Fault;
use crate::engine::read_in::Readahead;
use crate::engine::read_in::ahead::{READ_AHEAD, fetch_pages};
use crate::engine::reclaim::Reclaim;
use alloc::vec::Vec;

impl Readahead {
    /// Fetches what a thread will want next, and leaves one page of it out of
    /// the program, so that touching it asks for more.
    pub(crate) fn fetch_ahead(&mut self, m: &mut Memory, reclaim: &mut Reclaim, fault: &Fault) {
        let window = fault.window();
        // Never at the price of what is on its way out.
        let room = (m.pool.free() + m.pool.standby()) / 2;
        // Nor are pages to leave again before they are used.
        let most = room.min(m.most_ahead());
        let count = i64::from(window.count).min(most as i64);
        if count < i64::from(window.count) {
            self.prefetcher.cut(fault.tid, window, count as u32);
        }
        self.indirect.note_window(fault.tid, window, count as u32);
        let mut pages: Vec<(i64, u64)> = (0..count)
            .filter_map(|i| Some((i, window.page(i)?)))
            .filter(|(_, page)| m.is_elsewhere(*page))
            .collect();
        let late = |p: &&(i64, u64)| p.0 >= count * 3 / 4;
        let marker = pages.iter().find(late).or(pages.last()).map(|p| p.1);
        // What lies together left together, in ascending order.
        if window.stride < 0 {
            pages.chunks_mut(READ_AHEAD).for_each(<[_]>::reverse);
        }
        let pages: Vec<u64> = pages.into_iter().map(|p| p.1).collect();
        fetch_pages(m, reclaim, &pages, marker);
    }

    /// Fetches the page behind one that was missed in no order, if what was missed is
    /// likely to end there.
    pub(crate) fn fetch_behind(&mut self, m: &mut Memory, reclaim: &mut Reclaim, fault: &Fault) {
        let next = fault.page + 1;
        if fault.window().count == 0
            && self
                .straddle
                .missed(fault.tid, fault.at, m.is_elsewhere(next))
        {
            fetch_pages(m, reclaim, &[next], None);
        }
    }
}
