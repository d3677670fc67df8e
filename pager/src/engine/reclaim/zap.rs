//! Eviction on kernels that cannot move pages (before 6.8), and of pages that
//! no kernel moves: those that the program may only read.
//!
//! A page is write-protected, copied into a frame, and zapped with
//! `madvise(MADV_DONTNEED)`. The kernel reports that as it reports the
//! program's own, and holds who does it until the report has been read: so it
//! is another process that zaps, while the engine reads: see `zap_worker`.
//!
//! Were the range unmapped and something new mapped and written there before
//! the zap, the zap would be its. So threads that unmap memory, or map other
//! memory over it, wait meanwhile: see `exclusion`. That does not reach those that
//! do so by instructions of their own, nor the C library within itself, as when
//! it gives up an arena (`free` and `realloc` of a large block wait). Their
//! report is read only after the zap, or they came too late for it, so that the
//! thread that unmaps comes after the zap; and a zap stays within one mapping,
//! since it would go on to what the next is by then.
//! What is left is another thread that maps and writes within the moment from
//! its beginning to its end. Writable pages on kernels that move pages have no
//! such moment.

use crate::engine::calls::accesses::wait_for_accesses;
use crate::engine::exclusion::Zapping;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::Again;
use crate::engine::reclaim::Reclaim;
use crate::engine::reclaim::zap_worker::{What, ZapWorker};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::proc::PresentRun;
use crate::sys::{now_ns, thread};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::eviction::Segment;
use tmem_wire::PAGE_SIZE;

/// How long a thread that changes the address space is waited for.
const ALONE_NS: u64 = 2_000_000;
/// So often it is looked for what is asked before it is asked whether somebody does it.
const TURNS: u32 = 1 << 10;

impl Reclaim {
    /// Evicts pages that lie together; how many left.
    pub(crate) fn evict_by_zap(
        &mut self,
        m: &mut Memory,
        page: u64,
        n: usize,
    ) -> Result<usize, Again> {
        if self.zap_worker(m).is_none() {
            self.retry.push(page, n as u32);
            return Ok(0);
        }
        let events = m.space.changes();
        let Some(_zapping) = self.alone(m) else {
            return Err(Again::Event);
        };
        if m.mover.copies() && crate::engine::exclusion::is_read() {
            return Err(Again::Memory);
        }
        if m.space.changes() != events {
            // What is mapped there now may be something else.
            m.enqueue_again(page, n, Segment::Small);
            return Ok(0);
        }
        let (start, len) = (addr(page), n * PAGE_SIZE);
        let mut present = Vec::new();
        if m.mover
            .kernel()
            .present(start, start + len, &mut present)
            .is_err()
        {
            present.clear();
        }
        let mut left = 0;
        // Those that are not there are not the queue's any more.
        for number in page..page + n as u64 {
            if !present
                .iter()
                .any(|r| (r.start..r.end).contains(&addr(number)))
            {
                m.pages.update(number, |p| p.queued = false);
            }
        }
        for run in present {
            let mut at = run.start;
            while at < run.end {
                let from = crate::engine::memory::address::page(at);
                if m.space.changes() != events {
                    // Reports were read during the zap before. What is mapped
                    // there now may be something else.
                    m.enqueue_again(from, (page + n as u64 - from) as usize, Segment::Small);
                    return Ok(left);
                }
                let most = (run.end - at) / PAGE_SIZE;
                let end = at + m.mover.within_one_mapping(from, most)? * PAGE_SIZE;
                left += self.zap_run(m, &PresentRun { start: at, end })?;
                at = end;
            }
        }
        Ok(left)
    }

    /// Who zaps; none where there is no memory for it.
    fn zap_worker(&mut self, m: &Memory) -> Option<&mut ZapWorker> {
        if self.zap_worker.is_none() {
            self.zap_worker = ZapWorker::new(m.mover.kernel()).ok();
        }
        self.zap_worker.as_mut()
    }

    /// Has threads wait that are about to change the address space, and waits
    /// for those that do so now; none when that takes long.
    fn alone(&mut self, m: &mut Memory) -> Option<Zapping> {
        let zapping = Zapping::begin();
        let until = now_ns() + ALONE_NS;
        while crate::engine::exclusion::is_changed() {
            if now_ns() > until {
                self.vma_change_stalled = true;
                return None;
            }
            // They may wait for their reports to be read.
            m.read_messages();
            m.mover.kernel().pause();
        }
        self.vma_change_stalled = false;
        Some(zapping)
    }

    /// Makes pages the program's own that it shares with a forked process, as
    /// writing to them would. It is another thread that does so: what is not
    /// there any more is faulted for.
    pub(crate) fn unshare(&mut self, m: &mut Memory, range: Range<usize>) {
        let Some(zap_worker) = self.zap_worker(m) else {
            return;
        };
        if zap_worker.ask(What::Unshare, &range).is_err() {
            return;
        }
        for turn in 1u32.. {
            let Some(zap_worker) = &mut self.zap_worker else {
                return;
            };
            if turn.is_multiple_of(TURNS) {
                zap_worker.look_after();
            }
            if zap_worker.is_done() {
                return zap_worker.rest();
            }
            m.read_messages();
            for fault in m.faults.iter() {
                let at = addr(fault.page);
                if range.contains(&at) && m.pages.get(fault.page).state == State::Local {
                    // Given up by the program in the meantime. Whoever waits,
                    // this thread or another, finds zeros.
                    if fault.protected {
                        let _ = m.mover.kernel().unprotect(at, PAGE_SIZE);
                    } else {
                        m.mover.kernel().zero_pages(at, PAGE_SIZE, true);
                    }
                }
            }
            thread::await_turn(turn);
        }
    }

    fn zap_run(&mut self, m: &mut Memory, run: &PresentRun) -> Result<usize, Again> {
        let (start, len) = (run.start, run.end - run.start);
        let first = crate::engine::memory::address::page(start);
        match m.mover.kernel().protect(start, len) {
            Err(Errno::AGAIN) => return Err(Again::Event),
            Err(_) => {
                self.retry.push(first, (len / PAGE_SIZE) as u32);
                return Ok(0);
            }
            Ok(()) => {}
        }
        wait_for_accesses(&(start..start + len));
        if m.mover.copies() && self.async_dma.writes(m) {
            let _ = m.mover.kernel().unprotect(start, len);
            return Err(Again::Memory);
        }
        let Some(frames) = self.copy_out(m, start, len) else {
            // It cannot be read, or there is no room for it.
            let _ = m.mover.kernel().unprotect(start, len);
            self.retry.push(first, (len / PAGE_SIZE) as u32);
            return Ok(0);
        };
        for (frame, number) in frames.iter().zip(first..) {
            m.pool.put(*frame, Kind::Isolated, number);
            m.pages.update(number, |p| p.state = State::Pooled(*frame));
        }
        let foreign = self.zap_and_wait(m, start..start + len);
        foreign.into_iter().for_each(|range| m.discard(range));
        // Only what the page map says is true: the zap may have been refused.
        let mut left = 0;
        for frame in frames {
            let Some(number) = m.pool.page(frame) else {
                m.pool.put(frame, Kind::Free, None);
                continue;
            };
            if m.mover.is_present(number) {
                m.pool.put(frame, Kind::Free, None);
                m.pages.update(number, |p| p.state = State::Local);
                self.retry.push(number, 1);
                // Who writes to it before this comes by a fault.
                let _ = m.mover.kernel().unprotect(addr(number), PAGE_SIZE);
            } else {
                self.classify_evicted(m, number, frame, None);
                left += 1;
            }
        }
        m.report.stats.copied_pages.fetch_add(left as u64, Relaxed);
        m.mover.kernel().wake(start, len);
        Ok(left)
    }

    /// Copies memory into frames.
    fn copy_out(&mut self, m: &mut Memory, start: usize, len: usize) -> Option<Vec<u32>> {
        let mut frames = Vec::with_capacity(len / PAGE_SIZE);
        let mut ok = true;
        while ok && frames.len() * PAGE_SIZE < len {
            let done = frames.len() * PAGE_SIZE;
            let want = (len - done) / PAGE_SIZE;
            // Free frames serve as well as holes once the pool is as large as
            // it is to be.
            let run = if m.pool.populated() < self.standby_frames(m) {
                m.pool.take_holes(want)
            } else {
                m.pool.take_free(want)
            };
            let run = run
                .or_else(|| m.pool.take_holes(want))
                .or_else(|| m.pool.take_free(want));
            let Some((frame, n)) = run else {
                ok = false;
                break;
            };
            frames.extend(frame..frame + n as u32);
            let dst = m.pool.addr(frame);
            // SAFETY: frames that were just taken are nobody else's.
            ok = unsafe { m.mover.kernel().copy_out(start + done, dst, n * PAGE_SIZE) }.is_ok();
        }
        if !ok {
            frames.iter().for_each(|f| m.pool.put(*f, Kind::Free, None));
            return None;
        }
        Some(frames)
    }

    /// Has a range zapped; what the program zapped of it at the same time.
    fn zap_and_wait(&mut self, m: &mut Memory, range: Range<usize>) -> Vec<Range<usize>> {
        let cpu = self.pacing.cpu;
        let Some(zap_worker) = &mut self.zap_worker else {
            return Vec::new();
        };
        // Where nobody can do it the pages are found where they are.
        if zap_worker.ask(What::Zap, &range).is_err() {
            return Vec::new();
        }
        m.space.own_zap.begin(range);
        zap_worker.stay_with(cpu);
        while self
            .zap_worker
            .as_mut()
            .is_some_and(ZapWorker::is_to_be_read)
        {
            // One by one: what comes behind the zap's report is not read
            // before the zap is done.
            m.read_some(1);
        }
        self.zap_worker
            .as_mut()
            .into_iter()
            .for_each(ZapWorker::rest);
        // Whatever moved these pages is to be known before they are settled.
        m.catch_up();
        m.space.own_zap.foreign()
    }
}
