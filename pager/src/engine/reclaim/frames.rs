//! Supplies frames, and gives the memory of unneeded frames back to the kernel.

use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::pool::{Kind, RUN_FRAMES};
use alloc::vec::Vec;
use tmem_policy::PageNumber;

impl Reclaim {
    /// Takes up to `want` neighbouring frames, with memory if possible. Unbacked frames get
    /// memory when they are written. Returns `None` when memory is short. With `needed`,
    /// that is only if waiting will help.
    pub(crate) fn take_frames(
        &mut self,
        m: &mut Memory,
        want: usize,
        needed: bool,
    ) -> Option<(FrameNumber, usize)> {
        let resident = m.resident();
        let room = m.residency.marks().evict.saturating_sub(resident);
        let missing = want.saturating_sub(m.pool.free());
        if missing > room {
            self.reclaim_standby(m, missing - room);
            self.release_spent(m);
        }
        if let Some(run) = m.pool.take_free(want) {
            return Some(run);
        }
        let room = m.residency.marks().throttle.saturating_sub(resident);
        if room > 0 {
            return m.pool.take_holes(want.min(room));
        }
        if needed && !self.can_shrink(m) {
            return m.pool.take_holes(1);
        }
        None
    }

    /// Frees the frames of `n` pages on standby. Touching such a page then needs a server.
    ///
    /// While pages stream, the newest go first: they are as unlikely to be used soon as any
    /// other, and their frames are still in the CPU's cache. Pages that were left out of
    /// the program as readahead markers stay.
    ///
    pub(crate) fn reclaim_standby(&mut self, m: &mut Memory, n: usize) {
        let mut left = n;
        if self.pacing.streams {
            let is_left_out = |page: PageNumber| m.pages.get(page).ahead;
            let newest = m.pool.newest_first();
            let least_wanted = newest.filter(|(_, page)| !is_left_out(*page));
            let least_wanted: Vec<_> = least_wanted.take(n).collect();
            left -= least_wanted.len();
            for (frame, page) in least_wanted {
                self.give_up(m, frame, page);
            }
        }
        for _ in 0..left {
            let Some((frame, page)) = m.pool.oldest() else {
                return;
            };
            self.give_up(m, frame, page);
        }
    }

    /// Frees the frame of a page on standby.
    fn give_up(&mut self, m: &mut Memory, frame: FrameNumber, page: PageNumber) {
        let copy = self.keep_compressed(m, frame, page);
        m.residency.set_compressed(self.cache.pages());
        m.pages.update(page, |p| {
            p.state = State::Remote;
            p.ahead = false;
            p.copy = copy;
        });
        m.pool.put(frame, Kind::Free, None);
    }

    /// Gives the memory of `n` free frames back to the kernel.
    pub(crate) fn release(&mut self, m: &mut Memory, n: usize) {
        let mut left = n;
        while left > 0 {
            let Some((frame, got)) = m.pool.take_free(left) else {
                return;
            };
            let gone = self.give_back(m, frame, got);
            if gone == 0 {
                return;
            }
            left -= gone.min(left);
        }
    }

    /// Gives the memory of all spent frames back to the kernel. It keeps those pages that
    /// it still shows to others.
    pub(crate) fn release_spent(&mut self, m: &mut Memory) {
        while let Some((frame, got)) = m.pool.take_spent(RUN_FRAMES) {
            if self.give_back(m, frame, got) == 0 {
                return;
            }
        }
    }

    /// Gives the memory of frames that were taken back to the kernel. Returns of how many.
    fn give_back(&mut self, m: &mut Memory, frame: FrameNumber, n: usize) -> usize {
        let start = m.pool.addr(frame);
        let gone = m.mover.give_back(&m.pool.region(), start, n);
        m.pool.put_moved(frame, n, gone);
        gone
    }
}
