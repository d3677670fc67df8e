//! Reads ahead what a thread will touch next.

use crate::engine::memory::Memory;
use crate::engine::memory::faults::Fault;
use crate::engine::read_in::Readahead;
use crate::engine::read_in::ahead::{READ_AHEAD, fetch_pages};
use crate::engine::reclaim::Reclaim;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

impl Readahead {
    /// Reads ahead what a thread will touch next, up to the marker page, which asks for
    /// more when it is touched.
    pub(crate) fn fetch_ahead(&mut self, m: &mut Memory, reclaim: &mut Reclaim, fault: &Fault) {
        let window = fault.window();
        // Readahead must not reclaim frames whose pages still wait for their writeback.
        let room = (m.pool.free() + m.pool.standby()) / 2;
        // Pages must not be evicted again before they are used.
        let most = room.min(m.most_ahead());
        let count = i64::from(window.count).min(most as i64);
        if count < i64::from(window.count) {
            self.prefetcher.cut(fault.tid, window, count as u32);
        }
        self.indirect.note_window(fault.tid, window, count as u32);
        let mut pages: Vec<(i64, PageNumber)> = (0..count)
            .filter_map(|i| Some((i, window.page(i)?)))
            .filter(|(_, page)| m.is_elsewhere(*page))
            .collect();
        let late = |p: &&(i64, PageNumber)| p.0 >= count * 3 / 4;
        let marker = pages.iter().find(late).or(pages.last()).map(|p| p.1);
        // Neighbouring pages were evicted in ascending order, so their slots are ascending.
        if window.stride < 0 {
            pages.chunks_mut(READ_AHEAD).for_each(<[_]>::reverse);
        }
        let pages: Vec<PageNumber> = pages.into_iter().map(|p| p.1).collect();
        fetch_pages(m, reclaim, &pages, marker);
    }

    /// Reads the next page as well, after a miss in no particular order, if the policy
    /// expects that the access continues there.
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
