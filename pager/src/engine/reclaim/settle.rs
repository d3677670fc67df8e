//! Decides what becomes of a page that was just evicted.

use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::mem;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
use tmem_policy::standby::StandbySample;

impl Reclaim {
    /// Classifies the evicted page in `frame`: zeros, clean or dirty. `next` is the address
    /// of the frame to be classified next, if known, so that it can be prefetched.
    pub(crate) fn classify_evicted(
        &mut self,
        m: &mut Memory,
        page: PageNumber,
        frame: FrameNumber,
        next: Option<usize>,
    ) {
        m.report.stats.evicted_pages.fetch_add(1, Relaxed);
        m.residency.count_put(-1);
        self.tick(m);
        let mut entry = m.pages.get(page);
        entry.queued = false;
        entry.referenced = false;
        entry.epoch = self.refault.epoch();
        // SAFETY: the frame was just taken, and no request uses it.
        let bytes = unsafe { mem::page(m.pool.addr(frame)) };
        if mem::is_zero(bytes) {
            m.report.stats.zero_evictions.fetch_add(1, Relaxed);
            m.backing.free_slot(entry.slot.take());
            entry.state = State::Local;
            m.pages.set(page, &entry);
            m.pool.put(frame, Kind::Free, None);
            return;
        }
        let hash = m.backing.digester.digest(bytes, next);
        let keep = m.keeps(page, frame);
        let clean = entry.slot.is_some() && !entry.dirty && hash == entry.hash;
        // From here on the page must have the digest of the frame's contents. If a server
        // returns an older state of it, the digest will not match.
        entry.hash = hash;
        entry.dirty = !clean;
        entry.state = State::Pooled(frame);
        m.pages.set(page, &entry);
        m.count_remote(1);
        if clean {
            m.report.stats.clean_evictions.fetch_add(1, Relaxed);
            m.pool.put(frame, Kind::Standby, page);
        } else {
            m.pool.queue_writeback(frame, page);
        }
        if keep {
            m.put_back(page, frame);
        }
    }

    fn tick(&mut self, m: &mut Memory) {
        self.cache.tick();
        if let Some(left) = self.refault.evicted(m.residency.marks().evict) {
            let seen = StandbySample {
                refaults: m.report.stats.standby_refaults.load(Relaxed),
                faults: m.report.stats.faults.load(Relaxed),
            };
            self.standby.update(m.residency.marks().pool, left, seen);
            self.size_cache(m);
        }
    }
}
