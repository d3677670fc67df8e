//! The compressed cache: compressed copies of pages that are on servers, in a part of the
//! local budget.

use crate::When;
use crate::cache::{Cache, Place};
use crate::engine::memory::Memory;
use crate::engine::memory::faults::Fault;
use crate::engine::reclaim::Reclaim;
use crate::engine::settings::Settings;
use crate::frame_number::FrameNumber;
use crate::pages::{Page, State};
use crate::pool::Kind;
use crate::stats::Slot as Figures;
use crate::sys::mem::{self, Region};
use crate::sys::space::{self, SPACE};
use crate::sys::{now_ns, program_cpu_ns, thread_cpu_ns};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
use tmem_policy::compressed_cache::{self, CacheSample, CacheSizer, CacheState};
use tmem_policy::watermarks::copies_bytes;
use tmem_wire::{PAGE_SIZE, packed};

/// While the cache is empty, one of `TRIED` evicted pages is compressed as a trial, to
/// measure what a cache would take.
const TRIED: u32 = 32;

/// The compressed copies, and measurements of their use.
pub(crate) struct CompressedPages {
    cache: Cache,
    sizer: CacheSizer,
    when: When,
    /// Measurements of this period.
    pub(crate) seen: CacheSample,
    /// Pages evicted so far.
    left: u32,
    /// Buffer for compression on trial.
    trial: Box<[u8; packed::ROOM]>,
    trials: u32,
    /// CPU time plus time asleep at the last measurement.
    busy_ns: u64,
    /// Pages whose server was lost, so that the compressed copy is the only one.
    only: Vec<PageNumber>,
}

impl CompressedPages {
    pub(crate) fn new(settings: &Settings) -> CompressedPages {
        // The local tier is such a cache itself.
        let when = match settings.servers.endpoints.is_empty() {
            true => When::Never,
            false => settings.when_copies(),
        };
        let bytes = match when {
            When::Never => 0,
            _ => copies_bytes(settings.budget),
        };
        CompressedPages {
            cache: Cache::new(&SPACE, bytes as usize),
            sizer: CacheSizer::default(),
            when,
            seen: CacheSample::default(),
            left: 0,
            trial: Box::new([0; packed::ROOM]),
            trials: 0,
            busy_ns: 0,
            only: Vec::new(),
        }
    }

    /// Returns the memory of the cache.
    pub(crate) fn region(&self) -> Option<Region> {
        self.cache.region()
    }

    /// Returns the pages of memory that the cache takes.
    pub(crate) fn pages(&self) -> usize {
        self.cache.pages()
    }

    /// Tells whether there is a copy of a page.
    pub(crate) fn has(&self, page: PageNumber, entry: &Page) -> bool {
        self.cache.has(entry.copy, page, entry.hash)
    }

    /// Notes pages whose copy in the cache is the only one.
    pub(crate) fn rescue(&mut self, pages: Vec<PageNumber>) {
        self.only.extend(pages);
    }

    /// Returns a page whose copy is the only one, if there is any.
    pub(crate) fn rescued(&self) -> Option<PageNumber> {
        self.only.last().copied()
    }

    /// Removes the page that [`CompressedPages::rescued`] returned: it was restored, or is
    /// lost.
    pub(crate) fn has_been_rescued(&mut self) {
        self.only.pop();
    }

    /// Tells whether copies must stay, because they are the only ones.
    pub(crate) fn are_needed(&self) -> bool {
        !self.only.is_empty()
    }

    /// Counts a page that was evicted.
    pub(crate) fn tick(&mut self) {
        self.left = self.left.wrapping_add(1);
        self.seen.left += 1;
    }

    /// Compresses a page as a trial, now and then, and drops the result.
    fn try_one(&mut self, bytes: &packed::PageBytes) {
        self.trials = (self.trials + 1) % TRIED;
        if self.trials == 0 && self.when == When::Auto && self.cache.largest() > 0 {
            let begin = now_ns();
            let len = packed::pack_page(bytes, &mut self.trial[..]);
            self.made(begin, len);
        }
    }

    fn made(&mut self, begin: u64, len: Option<usize>) {
        self.seen.made.add(now_ns().saturating_sub(begin));
        self.seen.bytes += len.unwrap_or(PAGE_SIZE) as u64;
    }
}

impl Settings {
    /// Turns the cache off where address space is limited, since the program needs it.
    fn when_copies(&self) -> When {
        match space::limit().is_some() {
            true => When::Never,
            false => self.copies,
        }
    }
}

impl Reclaim {
    /// Compresses the page in a frame that is about to be freed. Returns where the copy is.
    ///
    /// Pages that stream are read ahead of their use, and need no copy.
    pub(crate) fn keep_compressed(
        &mut self,
        m: &mut Memory,
        frame: FrameNumber,
        page: PageNumber,
    ) -> Option<Place> {
        let entry = m.pages.get(page);
        let streams = self.pacing.streams && self.cache.when != When::Always;
        if streams || entry.ahead || self.cache.are_needed() {
            return entry.copy;
        }
        let copies = &mut self.cache;
        // SAFETY: no request writes to a frame on standby.
        let bytes = unsafe { mem::page(m.pool.addr(frame)) };
        if copies.cache.may_have() == 0 {
            copies.try_one(bytes);
            return None;
        }
        if let Some(copy) = copies
            .cache
            .renew(entry.copy, page, entry.hash, copies.left)
        {
            return Some(copy);
        }
        let begin = now_ns();
        let put = copies.cache.put(page, entry.hash, copies.left, bytes);
        copies.made(begin, put.map(|(_, len)| len));
        let bytes = copies.pages() * PAGE_SIZE;
        Figures::peak(&m.report.stats.compressed_cache_bytes, bytes as u64);
        put.map(|(copy, _)| copy)
    }

    /// Restores the page that a thread waits for into `frame`. Returns false if there is no
    /// copy.
    pub(crate) fn restore_wanted(
        &mut self,
        m: &mut Memory,
        fault: &Fault,
        entry: &Page,
        frame: FrameNumber,
    ) -> bool {
        let Some(when) = self.restore(m, fault.page, entry, frame) else {
            return false;
        };
        let copies = &mut self.cache;
        let age = copies.left.wrapping_sub(when) as usize;
        let stays =
            compressed_cache::evictions_until(copies.cache.pages(), m.residency.remote() as usize);
        copies.seen.young += u64::from(age < stays);
        copies.seen.hits.add(now_ns().saturating_sub(fault.read_ns));
        m.report.stats.compressed_hits.fetch_add(1, Relaxed);
        true
    }

    /// Restores a page that is in no frame into `frame`. Returns when the copy was made, or
    /// `None` if there is no copy.
    pub(crate) fn restore(
        &mut self,
        m: &mut Memory,
        page: PageNumber,
        entry: &Page,
        frame: FrameNumber,
    ) -> Option<u32> {
        // SAFETY: the frame was just taken, or holds an answer that is of no use. It
        // belongs to nobody else.
        let to = unsafe { mem::page_mut(m.pool.addr(frame)) };
        let (cache, digester) = (&self.cache.cache, m.backing.digester);
        let when = cache.unpack(entry.copy, page, entry.hash, digester, to)?;
        m.pages.update(page, |p| p.state = State::Pooled(frame));
        match entry.slot {
            Some(_) => m.pool.put(frame, Kind::Standby, page),
            // The server was lost, so the page has to be written to another.
            None => m.pool.queue_writeback(frame, page),
        }
        Some(when)
    }

    /// Sets the size of the cache to what the policy found best for the program.
    pub(crate) fn size_cache(&mut self, m: &mut Memory) {
        if self.cache.are_needed() {
            return;
        }
        let mut seen = core::mem::take(&mut self.cache.seen);
        let target = m.residency.marks().evict;
        let cache = &mut self.cache.cache;
        let now = CacheState {
            target,
            remote: m.residency.remote() as usize,
            has: cache.pages(),
            may_have: cache.may_have(),
        };
        let pages = match self.cache.when {
            When::Auto => {
                let busy = program_cpu_ns() + thread_cpu_ns() + self.pacing.asleep_ns;
                let before = core::mem::replace(&mut self.cache.busy_ns, busy);
                if before > 0 {
                    seen.busy_ns = busy.saturating_sub(before);
                }
                self.cache.sizer.update(&seen, &now)
            }
            When::Always => compressed_cache::largest(target),
            When::Never => 0,
        };
        cache.set_pages(pages);
        m.residency.set_compressed(cache.pages());
    }

    /// Shrinks the cache to what the current budget allows.
    pub(crate) fn trim_cache(&mut self, m: &mut Memory) {
        let most = compressed_cache::largest(m.residency.marks().evict);
        if self.cache.cache.may_have() > most && !self.cache.are_needed() {
            self.cache.cache.set_pages(most);
            m.residency.set_compressed(self.cache.pages());
        }
    }
}
