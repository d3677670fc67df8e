//! Serves faults.

use crate::engine::{Again, ERROR, Engine};
use crate::pages::{Page, State};
use crate::pool::Kind;
use crate::sys::errno::Words;
use crate::sys::uffd::Transfer;
use crate::sys::{self, mem, now_ns};
use alloc::format;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::cyclic::{SCAN_BLOCK, within_block};
use tmem_policy::eviction::Segment;
use tmem_policy::readahead::Window;
use tmem_wire::PAGE_SIZE;

/// A thread waits for a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) page: u64,
    /// The address that was touched, where the kernel tells it, or else its page's.
    pub(crate) at: u64,
    pub(crate) write: bool,
    /// The page is there, but write-protected.
    pub(crate) protected: bool,
    pub(crate) tid: u32,
    /// When it was read from the kernel.
    pub(crate) read_ns: u64,
    /// What the thread is expected to touch next, once that was asked: a fault
    /// that has to wait must not be taken for two.
    pub(crate) ahead: Option<Window>,
    /// How many pages to fill, once that was asked.
    pub(crate) fill: usize,
}

impl Fault {
    pub(crate) fn window(&self) -> Window {
        self.ahead.unwrap_or(Window::NONE)
    }
}

/// Why pages could not be put into the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An event has to be read first.
    Again,
    /// A page is there already.
    Present,
    /// Nothing is mapped there any more, or nothing of this engine's.
    Gone,
}

impl Engine {
    /// Serves a fault, as far as that can be done now; what waits for a server
    /// goes on when that has answered.
    pub(crate) fn fault(&mut self, fault: &mut Fault) -> Result<(), Again> {
        let entry = self.pages.get(fault.page);
        if fault.ahead.is_none() && entry.state != State::Local {
            let there = entry.ahead || matches!(entry.state, State::Fetching(_));
            fault.ahead = Some(self.prefetch.fault(fault.tid, fault.at, there));
        }
        match entry.state {
            State::Local if fault.protected => self.unprotect(fault)?,
            State::Local => self.zero_fill(fault)?,
            State::Pooled(frame) => self.hit(fault, frame, &entry)?,
            State::Remote => self.demand(fault, &entry)?,
            State::Fetching(_) => {
                if entry.ahead {
                    self.figures.prefetch_hits.fetch_add(1, Relaxed);
                }
                self.pages.update(fault.page, |p| {
                    p.wanted = true;
                    p.ahead = false;
                });
                self.fetch_ahead(fault);
                self.follow_pointers(fault, false);
            }
            State::Lost => self.poison(fault)?,
        }
        self.figures.faults.fetch_add(1, Relaxed);
        self.keep_pace(fault.tid);
        Ok(())
    }

    /// The thread that waited goes on.
    pub(crate) fn served(&self, read_ns: u64) {
        self.figures
            .fault_ns
            .record(now_ns().saturating_sub(read_ns));
    }

    /// Somebody writes to zeros that were only read so far, which takes memory;
    /// or to a page that was about to be copied.
    fn unprotect(&mut self, fault: &mut Fault) -> Result<(), Again> {
        if self.must_wait() {
            return Err(Again::Memory);
        }
        if fault.fill == 0 {
            fault.fill = self.fills.size(fault.page);
        }
        let room = self.budget.throttle.saturating_sub(self.resident());
        let mut n = self.local(fault.page, fault.fill.min(room.max(1)));
        let unprotected = loop {
            match self.kernel.unprotect(addr(fault.page), n * PAGE_SIZE) {
                // Older kernels (6.1 for one) do so within one mapping at a time.
                Err(Errno::NOENT) if n > 1 => n /= 2,
                result => break result,
            }
        };
        match unprotected {
            Err(Errno::AGAIN) => return Err(Again::Event),
            // Not mapped any more; the thread will see for itself.
            Err(_) => self.kernel.wake(addr(fault.page), PAGE_SIZE),
            Ok(()) => self.growth.known += n as i64,
        }
        self.fills.filled(fault.page, fault.fill, n);
        self.served(fault.read_ns);
        Ok(())
    }

    /// The page rests in the pool, or was put there ahead of this.
    fn hit(&mut self, fault: &Fault, frame: u32, entry: &Page) -> Result<(), Again> {
        let figure = if entry.ahead {
            &self.figures.prefetch_hits
        } else {
            &self.figures.standby_refaults
        };
        // What was fetched ahead is used for the first time.
        let hot = !entry.ahead || entry.hot;
        self.pages.update(fault.page, |p| p.hot = hot);
        self.give(fault, frame, false)?;
        figure.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Puts the page that was asked for into the program, which was not in memory before
    /// if it was missed.
    pub(crate) fn give(&mut self, fault: &Fault, frame: u32, missed: bool) -> Result<(), Again> {
        match self.install(fault.page, frame, 1).1 {
            Some(Stop::Again) => return Err(Again::Event),
            Some(stop) => self.not_installed(fault.page, stop),
            None => {}
        }
        self.served(fault.read_ns);
        self.fetch_ahead(fault);
        self.follow_pointers(fault, missed);
        Ok(())
    }

    /// A page could not be put into the program and never will be.
    pub(crate) fn not_installed(&mut self, page: u64, stop: Stop) {
        if stop == Stop::Present {
            // Pages appear in registered memory by this engine alone: one of
            // both is old, and which of them cannot be told.
            sys::say::die(&format!(
                "a defect of tmem: page {page:x} is in the program and outside of it; the \
                 program is ended before it reads wrong data"
            ));
        }
        // What is gone is forgotten when its event is read.
        self.kernel.wake(addr(page), PAGE_SIZE);
    }

    /// Puts `n` pages, which lie in neighbouring frames, into the program and
    /// wakes who waits for them. How many were put, and what stopped it.
    pub(crate) fn install(&mut self, page: u64, frame: u32, n: usize) -> (usize, Option<Stop>) {
        let mut done = 0;
        // The kernel moves and copies into one mapping at a time.
        let mut most = n;
        while done < n {
            let (to, from) = (addr(page) + done * PAGE_SIZE, frame + done as u32);
            let left = most.min(n - done) * PAGE_SIZE;
            let src = self.pool.addr(from);
            // What is being sent must stay where it is.
            let sending = self.pool.kind(from) == Kind::Writing;
            let single = n == 1 && self.pace.is_contended();
            let mut copied = self.copying || sending || single || self.is_executable(to);
            let len = if sending { PAGE_SIZE } else { left };
            let mut t = if copied {
                self.kernel.copy_pages(to, src, len, true)
            } else {
                let len = self.unsent(from, left / PAGE_SIZE) * PAGE_SIZE;
                let moved = self.kernel.move_present(to, src, len);
                sure(moved)
            };
            let refused = matches!(t.stopped, Some(Errno::INVAL | Errno::NOENT));
            if t.done == 0 && refused && left > PAGE_SIZE && !sending {
                most = left / PAGE_SIZE / 2;
                continue;
            }
            if !copied && t.done == 0 && t.stopped == Some(Errno::INVAL) {
                // The page may only be read there: such can be copied to.
                t = self.kernel.copy_pages(to, src, PAGE_SIZE, true);
                copied = true;
                self.figures.copied_pages.fetch_add(1, Relaxed);
            }
            let pages = t.done / PAGE_SIZE;
            self.installed(page + done as u64, from, pages, copied);
            done += pages;
            if pages > 0 {
                most = n;
                continue;
            }
            let stop = match t.stopped {
                Some(Errno::EXIST) => Stop::Present,
                Some(Errno::AGAIN | Errno::NOMEM | Errno::BUSY) | None => Stop::Again,
                Some(e) => {
                    self.check_frame(from, e);
                    Stop::Gone
                }
            };
            return (done, Some(stop));
        }
        (done, None)
    }

    /// How many of `n` frames from `frame` on are not being sent.
    fn unsent(&self, frame: u32, n: usize) -> usize {
        let sending = |i: &u32| self.pool.kind(frame + i) == Kind::Writing;
        (0..n as u32).find(sending).map_or(n, |i| i as usize)
    }

    /// A page that is in nobody's memory is lost, and that must not pass for
    /// one that was never touched.
    fn check_frame(&self, frame: u32, error: Errno) {
        if !self.holds(frame) {
            sys::say::die(&format!(
                "a defect of tmem: an evicted page is not where it was put ({}); \
                 the program is ended before it reads wrong data",
                Words(error)
            ));
        }
    }

    /// Pages are in the program.
    fn installed(&mut self, page: u64, frame: u32, n: usize, copied: bool) {
        let mut place = Segment::Small;
        for i in 0..n {
            let (number, f) = (page + i as u64, frame + i as u32);
            if i == 0 || number % SCAN_BLOCK == 0 {
                let block = (n - i).min(within_block(number));
                place = self.queue.choose_segment(number, block, n);
            }
            let mut entry = self.pages.get(number);
            entry.state = State::Local;
            entry.wanted = false;
            entry.ahead = false;
            entry.unsure |= copied && self.pool.kind(f) == Kind::Writing;
            if !entry.queued {
                let place = if entry.hot { Segment::Main } else { place };
                self.enqueue(number, &mut entry, place);
            }
            self.pages.set(number, &entry);
            if !copied {
                self.pool.put(f, Kind::Hole, 0);
            } else if self.pool.kind(f) == Kind::Writing {
                self.pool.set_page(f, 0);
            } else {
                self.pool.put(f, Kind::Free, 0);
            }
        }
        self.growth.known += n as i64;
        self.count_remote(-(n as i64));
    }

    /// The page was never touched, or was given up.
    fn zero_fill(&mut self, fault: &mut Fault) -> Result<(), Again> {
        let start = addr(fault.page);
        let n = match fault.fill {
            0 => self.fills.size(fault.page),
            n => n,
        };
        fault.fill = n;
        let n = self.untouched(fault.page, n);
        if fault.write && !self.copying && !self.is_executable(start) {
            return self.fill_with_frames(fault, n);
        }
        if fault.write && self.must_wait() {
            return Err(Again::Memory);
        }
        let t = self.kernel.zero_pages(start, n * PAGE_SIZE, fault.write);
        let done = t.done / PAGE_SIZE;
        self.filled(fault.page, done);
        if fault.write {
            // Each gets memory when it is written, which is soon.
            self.growth.known += done as i64;
        } else if done > 0 {
            // Or else a program that reads first would outrun the engine with what
            // it writes then. Where an event is in the way, it may, for once.
            let _ = self.kernel.protect(start, done * PAGE_SIZE);
            self.kernel.wake(start, done * PAGE_SIZE);
        }
        self.fills.filled(fault.page, fault.fill, done.max(1));
        match t.stopped {
            Some(Errno::AGAIN) if done == 0 => return Err(Again::Event),
            Some(_) if done == 0 => self.kernel.wake(start, PAGE_SIZE),
            _ => {}
        }
        self.served(fault.read_ns);
        Ok(())
    }

    /// Zeroed frames become the pages: no memory is asked of the kernel.
    fn fill_with_frames(&mut self, fault: &Fault, n: usize) -> Result<(), Again> {
        let mut done = 0;
        while done < n {
            let Some((frame, got)) = self.take_frames(n - done, done == 0) else {
                if done == 0 {
                    return Err(Again::Memory);
                }
                break;
            };
            for i in 0..got as u32 {
                // SAFETY: frames that were just taken are nobody else's.
                unsafe { mem::zero_page(self.pool.addr(frame + i)) };
            }
            let to = addr(fault.page) + done * PAGE_SIZE;
            let src = self.pool.addr(frame);
            let len = got * PAGE_SIZE;
            let t = self.kernel.move_present(to, src, len);
            let t = sure(t);
            let moved = t.done / PAGE_SIZE;
            self.pool.put_moved(frame, got, moved);
            self.filled(fault.page + done as u64, moved);
            self.growth.known += moved as i64;
            done += moved;
            if moved < got {
                match t.stopped {
                    Some(Errno::AGAIN) if done == 0 => return Err(Again::Event),
                    Some(Errno::INVAL) if done == 0 => {
                        // Not writable (any more): zeros to be read will do.
                        let t = self.kernel.zero_pages(to, PAGE_SIZE, true);
                        match t.stopped {
                            Some(Errno::AGAIN) => return Err(Again::Event),
                            Some(_) => self.kernel.wake(to, PAGE_SIZE),
                            None => self.filled(fault.page, 1),
                        }
                    }
                    _ if done == 0 => self.kernel.wake(to, PAGE_SIZE),
                    _ => {}
                }
                break;
            }
        }
        self.fills.filled(fault.page, fault.fill, done.max(1));
        self.served(fault.read_ns);
        Ok(())
    }

    /// Zeros are in the program.
    pub(crate) fn filled(&mut self, page: u64, n: usize) {
        self.figures.zero_fills.fetch_add(n as u64, Relaxed);
        // Nothing was there, so nothing old is there still.
        self.doomed.remove(addr(page)..addr(page + n as u64));
        for number in page..page + n as u64 {
            if number == page || number % SCAN_BLOCK == 0 {
                let left = (page + n as u64 - number) as usize;
                self.queue
                    .note_zero_filled(number, left.min(within_block(number)));
            }
            let mut entry = self.pages.get(number);
            if !entry.queued {
                self.enqueue(number, &mut entry, Segment::Small);
                self.pages.set(number, &entry);
            }
        }
    }

    /// How many of up to `most` pages from `page` on were never touched, as far
    /// as is known; at least the first.
    fn untouched(&mut self, page: u64, most: usize) -> usize {
        self.alike(page, most, |p| p.state == State::Local && !p.queued)
    }

    /// How many of up to `most` pages from `page` on are nowhere else than in the
    /// program; at least the first.
    fn local(&mut self, page: u64, most: usize) -> usize {
        self.alike(page, most, |p| p.state == State::Local)
    }

    /// How many of up to `most` pages from `page` on are known to be the engine's
    /// and `fit`; at least the first.
    fn alike(&mut self, page: u64, most: usize, fit: impl Fn(&Page) -> bool) -> usize {
        let Some(range) = self.adopted.around(addr(page)) else {
            // Memory that grew, or was moved: it wants to be looked at.
            self.growth.urgent = true;
            return 1;
        };
        let end = (range.end / PAGE_SIZE) as u64;
        let most = (most as u64).min(end - page);
        (page + 1..page + most)
            .find(|p| !fit(&self.pages.get(*p)))
            .map_or(most, |p| p - page) as usize
    }

    /// Whether a thread that asks for more memory has to wait for others to
    /// leave.
    pub(crate) fn must_wait(&self) -> bool {
        self.is_over() && self.can_shrink()
    }

    /// Neighbouring frames, up to `want`, with memory where there is some;
    /// holes get theirs when they are written. None when memory is short,
    /// unless `needed` and nothing can be done about it.
    pub(crate) fn take_frames(&mut self, want: usize, needed: bool) -> Option<(u32, usize)> {
        let resident = self.resident();
        let room = self.budget.evict.saturating_sub(resident);
        let missing = want.saturating_sub(self.pool.free());
        if missing > room {
            self.reclaim(missing - room);
            self.release_spent();
        }
        if let Some(run) = self.pool.take_free(want) {
            return Some(run);
        }
        let room = self.budget.throttle.saturating_sub(resident);
        if room > 0 {
            return self.pool.take_holes(want.min(room));
        }
        if needed && !self.can_shrink() {
            return self.pool.take_holes(1);
        }
        None
    }

    pub(crate) fn poison(&mut self, fault: &Fault) -> Result<(), Again> {
        match self.kernel.poison(addr(fault.page), PAGE_SIZE) {
            Ok(()) => self.served(fault.read_ns),
            Err(Errno::AGAIN) => return Err(Again::Event),
            Err(Errno::EXIST) => self.kernel.wake(addr(fault.page), PAGE_SIZE),
            Err(_) => {
                self.say(
                    ERROR,
                    "the program touched memory that is lost with its server; it is ended",
                );
                sys::thread::kill_process();
            }
        }
        Ok(())
    }
}

/// Which pages a move has moved. To go on without knowing could be to lose
/// them.
pub(crate) fn sure(moved: Result<Transfer, Errno>) -> Transfer {
    moved.unwrap_or_else(|error| {
        sys::say::die(&format!(
            "it cannot be told where pages of the program are, because \
             /proc/self/pagemap cannot be read ({}); the program is ended before it reads \
             wrong data",
            Words(error)
        ))
    })
}

/// The address of a page.
pub(crate) fn addr(page: u64) -> usize {
    page as usize * PAGE_SIZE
}
