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

use crate::engine::calls::mem_file::wait_for_accesses;
use crate::engine::exclusion::Zapping;
use crate::engine::fault::addr;
use crate::engine::reclaim::zap_worker::{What, Zapper};
use crate::engine::{Again, Engine};
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

impl Engine {
    /// Evicts pages that lie together; how many left.
    pub(crate) fn evict_by_zap(&mut self, page: u64, n: usize) -> Result<usize, Again> {
        if self.zapper().is_none() {
            self.stubborn.push(page, n as u32);
            return Ok(0);
        }
        let events = self.events;
        let Some(_zapping) = self.alone() else {
            return Err(Again::Event);
        };
        if self.copying && crate::engine::exclusion::is_read() {
            return Err(Again::Memory);
        }
        if self.events != events {
            // What is mapped there now may be something else.
            self.enqueue_again(page, n, Segment::Small);
            return Ok(0);
        }
        let (start, len) = (addr(page), n * PAGE_SIZE);
        let mut present = Vec::new();
        if self
            .kernel
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
                self.pages.update(number, |p| p.queued = false);
            }
        }
        for run in present {
            let mut at = run.start;
            while at < run.end {
                let from = crate::engine::memory::events::page(at);
                if self.events != events {
                    // Reports were read during the zap before. What is mapped
                    // there now may be something else.
                    self.enqueue_again(from, (page + n as u64 - from) as usize, Segment::Small);
                    return Ok(left);
                }
                let most = (run.end - at) / PAGE_SIZE;
                let end = at + self.within_one_mapping(from, most)? * PAGE_SIZE;
                left += self.zap_run(&PresentRun { start: at, end })?;
                at = end;
            }
        }
        Ok(left)
    }

    /// Who zaps; none where there is no memory for it.
    fn zapper(&mut self) -> Option<&mut Zapper> {
        if self.zapper.is_none() {
            self.zapper = Zapper::new(&*self.kernel).ok();
        }
        self.zapper.as_mut()
    }

    /// How many of `n` pages that are there lie in one mapping, at the least.
    /// A zap goes from one mapping to the next by itself: the next may be
    /// another by then, which is not seen.
    pub(crate) fn within_one_mapping(&self, page: u64, mut n: usize) -> Result<usize, Again> {
        while n > 1 {
            // Zeros for pages that are there are refused, in which order the
            // kernel looks: first whether all of them are in one mapping.
            let t = self.kernel.zero_pages(addr(page), n * PAGE_SIZE, false);
            match t.stopped {
                Some(Errno::AGAIN) => return Err(Again::Event),
                Some(Errno::EXIST) => break,
                _ => n /= 2,
            }
        }
        Ok(n)
    }

    /// Has threads wait that are about to change the address space, and waits
    /// for those that do so now; none when that takes long.
    fn alone(&mut self) -> Option<Zapping> {
        let zapping = Zapping::begin();
        let until = now_ns() + ALONE_NS;
        while crate::engine::exclusion::is_changed() {
            if now_ns() > until {
                self.crowded = true;
                return None;
            }
            // They may wait for their reports to be read.
            self.read_messages();
            self.kernel.pause();
        }
        self.crowded = false;
        Some(zapping)
    }

    /// Makes pages the program's own that it shares with a forked process, as
    /// writing to them would. It is another thread that does so: what is not
    /// there any more is faulted for.
    pub(crate) fn unshare(&mut self, range: Range<usize>) {
        let Some(zapper) = self.zapper() else { return };
        if zapper.ask(What::Unshare, &range).is_err() {
            return;
        }
        for turn in 1u32.. {
            let Some(zapper) = &mut self.zapper else {
                return;
            };
            if turn.is_multiple_of(TURNS) {
                zapper.look_after();
            }
            if zapper.is_done() {
                return zapper.rest();
            }
            self.read_messages();
            for fault in &self.faults {
                let at = addr(fault.page);
                if range.contains(&at) && self.pages.get(fault.page).state == State::Local {
                    // Given up by the program in the meantime. Whoever waits,
                    // this thread or another, finds zeros.
                    if fault.protected {
                        let _ = self.kernel.unprotect(at, PAGE_SIZE);
                    } else {
                        self.kernel.zero_pages(at, PAGE_SIZE, true);
                    }
                }
            }
            thread::await_turn(turn);
        }
    }

    fn zap_run(&mut self, run: &PresentRun) -> Result<usize, Again> {
        let (start, len) = (run.start, run.end - run.start);
        let first = crate::engine::memory::events::page(start);
        match self.kernel.protect(start, len) {
            Err(Errno::AGAIN) => return Err(Again::Event),
            Err(_) => {
                self.stubborn.push(first, (len / PAGE_SIZE) as u32);
                return Ok(0);
            }
            Ok(()) => {}
        }
        wait_for_accesses(&(start..start + len));
        if self.copying && self.devices_write() {
            let _ = self.kernel.unprotect(start, len);
            return Err(Again::Memory);
        }
        let Some(frames) = self.copy_out(start, len) else {
            // It cannot be read, or there is no room for it.
            let _ = self.kernel.unprotect(start, len);
            self.stubborn.push(first, (len / PAGE_SIZE) as u32);
            return Ok(0);
        };
        for (frame, number) in frames.iter().zip(first..) {
            self.pool.put(*frame, Kind::Leaving, number);
            self.pages
                .update(number, |p| p.state = State::Pooled(*frame));
        }
        let foreign = self.zap_and_wait(start..start + len);
        foreign.into_iter().for_each(|range| self.discard(range));
        // Only what the page map says is true: the zap may have been refused.
        let mut left = 0;
        for frame in frames {
            let number = self.pool.page(frame);
            if number == 0 {
                self.pool.put(frame, Kind::Free, 0);
            } else if self.is_present(number) {
                self.pool.put(frame, Kind::Free, 0);
                self.pages.update(number, |p| p.state = State::Local);
                self.stubborn.push(number, 1);
                // Who writes to it before this comes by a fault.
                let _ = self.kernel.unprotect(addr(number), PAGE_SIZE);
            } else {
                self.settle(number, frame, None);
                left += 1;
            }
        }
        self.figures.copied_pages.fetch_add(left as u64, Relaxed);
        self.kernel.wake(start, len);
        Ok(left)
    }

    fn is_present(&self, page: u64) -> bool {
        let mut present = Vec::new();
        let (start, end) = (addr(page), addr(page + 1));
        // Without an answer the program's page is the one that counts.
        self.kernel.present(start, end, &mut present).is_err() || !present.is_empty()
    }

    /// Copies memory into frames.
    fn copy_out(&mut self, start: usize, len: usize) -> Option<Vec<u32>> {
        let mut frames = Vec::with_capacity(len / PAGE_SIZE);
        let mut ok = true;
        while ok && frames.len() * PAGE_SIZE < len {
            let done = frames.len() * PAGE_SIZE;
            let want = (len - done) / PAGE_SIZE;
            // Free frames serve as well as holes once the pool is as large as
            // it is to be.
            let run = if self.pool.populated() < self.standby_frames() {
                self.pool.take_holes(want)
            } else {
                self.pool.take_free(want)
            };
            let run = run
                .or_else(|| self.pool.take_holes(want))
                .or_else(|| self.pool.take_free(want));
            let Some((frame, n)) = run else {
                ok = false;
                break;
            };
            frames.extend(frame..frame + n as u32);
            let dst = self.pool.addr(frame);
            // SAFETY: frames that were just taken are nobody else's.
            ok = unsafe { self.kernel.copy_out(start + done, dst, n * PAGE_SIZE) }.is_ok();
        }
        if !ok {
            frames.iter().for_each(|f| self.pool.put(*f, Kind::Free, 0));
            return None;
        }
        Some(frames)
    }

    /// Has a range zapped; what the program zapped of it at the same time.
    fn zap_and_wait(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        let cpu = self.pace.cpu();
        let Some(zapper) = &mut self.zapper else {
            return Vec::new();
        };
        // Where nobody can do it the pages are found where they are.
        if zapper.ask(What::Zap, &range).is_err() {
            return Vec::new();
        }
        zapper.stay_with(cpu);
        while self.zapper.as_mut().is_some_and(Zapper::is_to_be_read) {
            // One by one: what comes behind the zap's report is not read
            // before the zap is done.
            self.read_some(1);
        }
        self.zapper.as_mut().into_iter().for_each(Zapper::rest);
        // Whatever moved these pages is to be known before they are settled.
        self.catch_up();
        self.zapper.as_mut().map_or_else(Vec::new, Zapper::foreign)
    }
}
