//! Eviction by copy and zap: on kernels that cannot move pages (before 6.8), and of pages
//! that no kernel moves because the program may only read them.
//!
//! A page is write-protected, copied into a frame, and zapped with
//! `madvise(MADV_DONTNEED)`. The kernel reports the engine's zap like one of the program,
//! and holds the caller until the event was read. So another task makes the zap, while the
//! engine reads events (see `zap_worker`).
//!
//! If the range were unmapped before the zap, and something new mapped and written there,
//! the zap would destroy that. So threads that unmap memory, or map over it, wait meanwhile
//! (see `exclusion`).
//!
//! That does not stop threads that make system calls past the shim, nor the C library's own
//! calls, as when it gives up an arena (`free` and `realloc` of a large block do wait). The
//! event of such an unmapping is either read after the zap, or comes too late for the zap
//! to be affected: in both cases the zap comes first. A zap also stays within one mapping,
//! since the next one may have been replaced.
//!
//! The remaining danger is that another thread maps and writes memory between the beginning
//! and the end of the zap. Writable pages on kernels that can move pages are not exposed to
//! it.

use crate::engine::calls::accesses::wait_for_accesses;
use crate::engine::exclusion::Zapping;
use crate::engine::kernel::Work;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::Again;
use crate::engine::reclaim::Reclaim;
use crate::engine::reclaim::zap_worker::ZapWorker;
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::proc::PresentRun;
use crate::sys::{now_ns, thread};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_policy::eviction::Segment;
use tmem_wire::PAGE_SIZE;

/// How long to wait for threads that are changing the address space.
const ALONE_NS: u64 = 2_000_000;
/// Polls of the zap worker's state before checking that the worker still exists.
const TURNS: u32 = 1 << 10;

impl Reclaim {
    /// Evicts neighbouring pages by copy and zap. Returns how many left.
    pub(crate) fn evict_by_zap(
        &mut self,
        m: &mut Memory,
        page: PageNumber,
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
            // Another mapping may be there now.
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
        // Absent pages leave the queue.
        for number in page.run(n) {
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
                    // Events were read during the last zap. Another mapping may be there
                    // now.
                    m.enqueue_again(from, page + n - from, Segment::Small);
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

    /// Returns the zap worker, or `None` if there is no memory for it, or it is busy.
    fn zap_worker(&mut self, m: &Memory) -> Option<&mut ZapWorker> {
        if self.zap_worker.is_none() {
            self.zap_worker = ZapWorker::new(m.mover.kernel()).ok();
        }
        let zap_worker = self.zap_worker.as_mut()?;
        zap_worker.is_free().then_some(zap_worker)
    }

    /// Delays threads that are about to change the address space, and waits for those that
    /// are doing so. Returns `None` if that takes too long.
    fn alone(&mut self, m: &mut Memory) -> Option<Zapping> {
        let zapping = Zapping::begin();
        let until = now_ns() + ALONE_NS;
        while crate::engine::exclusion::is_changed() {
            if now_ns() > until {
                self.vma_change_stalled = true;
                return None;
            }
            // They may wait for their events to be read.
            m.read_messages();
            m.mover.kernel().pause();
        }
        self.vma_change_stalled = false;
        Some(zapping)
    }

    /// Unshares pages from forked processes, as writing to them would. The zap worker does
    /// it, since absent pages cause faults that the engine has to serve.
    pub(crate) fn unshare(&mut self, m: &mut Memory, range: Range<usize>) {
        let Some(zap_worker) = self.zap_worker(m) else {
            return;
        };
        if zap_worker.ask(Work::Unshare, &range).is_err() {
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
                if !range.contains(&at) {
                    continue;
                }
                if m.pages.get(fault.page).state != State::Local {
                    // The program moved memory there in the meantime, and the page is
                    // elsewhere. The event loop can bring it back; this loop cannot.
                    return zap_worker.leave_behind();
                }
                // The program has given the page up meanwhile. Any thread that waits
                // for it finds zeros.
                if fault.protected {
                    let _ = m.mover.kernel().unprotect(at, PAGE_SIZE);
                } else {
                    m.mover.kernel().zero_pages(at, PAGE_SIZE, true);
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
            // The memory cannot be read, or there are no frames for it.
            let _ = m.mover.kernel().unprotect(start, len);
            self.retry.push(first, (len / PAGE_SIZE) as u32);
            return Ok(0);
        };
        for (frame, number) in frames.iter().zip(first.run(len / PAGE_SIZE)) {
            m.pool.put(*frame, Kind::Isolated, number);
            m.pages.update(number, |p| p.state = State::Pooled(*frame));
        }
        let foreign = self.zap_and_wait(m, start..start + len);
        foreign.into_iter().for_each(|range| m.discard(range));
        // The zap may have been refused, so only the page map counts.
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
                // A thread that writes to the page before this faults, and the engine
                // serves it.
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

    /// Copies memory into frames. Returns `None` if that is impossible.
    fn copy_out(&mut self, m: &mut Memory, start: usize, len: usize) -> Option<Vec<FrameNumber>> {
        let mut frames = Vec::with_capacity(len / PAGE_SIZE);
        let mut ok = true;
        while ok && frames.len() * PAGE_SIZE < len {
            let done = frames.len() * PAGE_SIZE;
            let want = (len - done) / PAGE_SIZE;
            // Once the pool is large enough, free frames are as good as unbacked ones.
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
            frames.extend(frame.run(n));
            let dst = m.pool.addr(frame);
            // SAFETY: frames that were just taken belong to nobody else.
            ok = unsafe { m.mover.kernel().copy_out(start + done, dst, n * PAGE_SIZE) }.is_ok();
        }
        if !ok {
            frames.iter().for_each(|f| m.pool.put(*f, Kind::Free, None));
            return None;
        }
        Some(frames)
    }

    /// Has a range zapped. Returns what the program itself zapped of it meanwhile.
    fn zap_and_wait(&mut self, m: &mut Memory, range: Range<usize>) -> Vec<Range<usize>> {
        let cpu = self.pacing.cpu;
        let Some(zap_worker) = &mut self.zap_worker else {
            return Vec::new();
        };
        // If nobody can zap, the pages are found present afterwards.
        if zap_worker.ask(Work::Zap, &range).is_err() {
            return Vec::new();
        }
        m.space.own_zap.begin(range);
        zap_worker.stay_with(cpu);
        while self
            .zap_worker
            .as_mut()
            .is_some_and(ZapWorker::is_to_be_read)
        {
            // One event at a time: events behind the zap's own must not be read before the
            // zap is done.
            if m.read_some(1) == 0 {
                // The worker may wait for this CPU.
                m.mover.kernel().pause();
            }
        }
        self.zap_worker
            .as_mut()
            .into_iter()
            .for_each(ZapWorker::rest);
        // All moves of these pages have to be known before the pages are classified.
        m.catch_up();
        m.space.own_zap.foreign()
    }
}
