//! Eviction on kernels that cannot move pages (before 6.8), and of pages that
//! no kernel moves: those that the program may only read.
//!
//! A page is write-protected, copied into a frame, and zapped with
//! `madvise(MADV_DONTNEED)`. The kernel reports that as it reports the
//! program's own, and holds who does it until the report has been read: so it
//! is another thread that zaps, while the engine reads.
//!
//! Were the range unmapped and something new mapped and written there before
//! the zap, the zap would be its. So threads that unmap memory, or map other
//! memory over it, wait meanwhile: see `apart`. That does not reach those that
//! do so by instructions of their own, nor the C library within itself, as when
//! it gives up an arena (`free` and `realloc` of a large block wait). Their
//! report is read only after the zap, or they came too late for it, so that the
//! thread that unmaps comes after the zap; and a zap stays within one mapping,
//! since it would go on to what the next is by then.
//! What is left is another thread that maps and writes within the moment from
//! its beginning to its end. Writable pages on kernels that move pages have no
//! such moment.

use super::apart::Zapping;
use super::fault::addr;
use super::{Again, Engine};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::mem::{self, Region};
use crate::sys::proc::{PresentRun, Waits};
use crate::sys::{now_ns, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, Ordering::Relaxed};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;

/// How long a thread that changes the address space is waited for.
const ALONE_NS: u64 = 2_000_000;
/// How long the zap is waited for before reports are read that might be about
/// it.
const PATIENCE_NS: u64 = 20_000_000;

const ZAP: u32 = 0;
const UNSHARE: u32 = 1;

/// What the two threads share.
#[derive(Debug)]
struct Job {
    state: AtomicU32,
    /// What is asked: [`ZAP`] or [`UNSHARE`].
    what: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    /// The thread, once it runs.
    tid: AtomicU32,
}

impl Job {
    fn ask(&self, what: u32, range: &Range<usize>) {
        self.what.store(what, Ordering::Relaxed);
        self.start.store(range.start, Ordering::Relaxed);
        self.len.store(range.len(), Ordering::Relaxed);
        self.state.store(ASKED, Ordering::Release);
        thread::wake_sleeper(&self.state);
    }
}

/// The thread that zaps, and the zap under way.
#[derive(Debug)]
pub(super) struct Zapper {
    job: &'static Job,
    pub(super) stack: Region,
    now: Range<usize>,
    /// Reports within the range since the zap began.
    seen: Vec<Range<usize>>,
    waits: Option<Waits>,
    /// Where it was put last.
    cpu: Option<u32>,
    /// Whether the kernel says what the thread waits for; not known at first.
    is_told: Option<bool>,
}

impl Zapper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn start() -> Result<Zapper, Errno> {
        let job: &'static Job = Box::leak(Box::new(Job {
            state: AtomicU32::new(IDLE),
            what: AtomicU32::new(ZAP),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            tid: AtomicU32::new(0),
        }));
        let stack = Region::stack(64 << 10)?;
        let arg = core::ptr::from_ref(job).cast_mut().cast();
        // SAFETY: the entry never returns and uses no thread-local storage;
        // the job lives for ever, and the stack is the thread's alone. The
        // calling thread has blocked all signals.
        unsafe { thread::spawn(stack, zap, arg)? };
        Ok(Zapper {
            job,
            stack,
            now: 0..0,
            seen: Vec::new(),
            waits: None,
            cpu: None,
            is_told: None,
        })
    }

    /// Whether the thread waits for a report of its own to be read, as far as
    /// the kernel says so.
    fn waits_for_report(&mut self) -> bool {
        let tid = self.job.tid.load(Ordering::Acquire);
        if self.waits.is_none() && tid != 0 {
            self.waits = Waits::of(tid);
        }
        self.waits
            .as_ref()
            .is_some_and(|w| w.within(b"userfaultfd"))
    }

    /// Has the thread run where the engine does. The two take turns, and to wake
    /// one that sleeps on another processor takes longer than a zap.
    fn stay_with(&mut self, cpu: Option<u32>) {
        let tid = self.job.tid.load(Ordering::Acquire);
        if let Some(cpu) = cpu
            && self.cpu != Some(cpu)
            && tid != 0
        {
            self.cpu = Some(cpu);
            thread::put_on(tid, &thread::Cpus::one(cpu));
        }
    }

    /// Whether a report may be about the zap under way. Which of them were is
    /// seen when it is done.
    pub(super) fn is_own(&mut self, range: Range<usize>) -> bool {
        let own = self.now.start <= range.start && range.end <= self.now.end;
        if own {
            self.seen.push(range);
        }
        own
    }
}

unsafe extern "C" fn zap(arg: *mut u8) -> ! {
    // SAFETY: what `Zapper::start` gave.
    let job = unsafe { &*arg.cast::<Job>() };
    thread::hurry();
    job.tid.store(thread::id(), Ordering::Release);
    loop {
        loop {
            match job.state.load(Ordering::Acquire) {
                ASKED => break,
                other => thread::sleep_unless(&job.state, other),
            }
        }
        let start = job.start.load(Ordering::Relaxed);
        let len = job.len.load(Ordering::Relaxed);
        // What could not be zapped is found present; what could not be made
        // its own is not moved.
        let _ = match job.what.load(Ordering::Relaxed) {
            ZAP => mem::zap(start, len),
            _ => mem::unshare(start, len),
        };
        job.state.store(DONE, Ordering::Release);
    }
}

impl Engine {
    /// Evicts pages that lie together; how many left.
    pub(super) fn evict_by_zap(&mut self, page: u64, n: usize) -> Result<usize, Again> {
        if self.zapper.is_none() {
            match Zapper::start() {
                Ok(zapper) => self.zapper = Some(zapper),
                Err(_) => {
                    self.stubborn.push((page, n as u32));
                    return Ok(0);
                }
            }
        }
        let events = self.events;
        let Some(_zapping) = self.alone() else {
            return Err(Again::Event);
        };
        if self.copying && (super::apart::is_read() || self.devices_write()) {
            return Err(Again::Memory);
        }
        if self.events != events {
            // What is mapped there now may be something else.
            self.enqueue_again(page, n, false);
            return Ok(0);
        }
        let (start, len) = (addr(page), n * PAGE_SIZE);
        let mut present = Vec::new();
        if self.proc.present(start, start + len, &mut present).is_err() {
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
                let from = super::event::page(at);
                if self.events != events {
                    // Reports were read during the zap before. What is mapped
                    // there now may be something else.
                    self.enqueue_again(from, (page + n as u64 - from) as usize, false);
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

    /// How many of `n` pages that are there lie in one mapping, at the least.
    /// A zap goes from one mapping to the next by itself: the next may be
    /// another by then, which is not seen.
    pub(super) fn within_one_mapping(&self, page: u64, mut n: usize) -> Result<usize, Again> {
        while n > 1 {
            // Zeros for pages that are there are refused, in which order the
            // kernel looks: first whether all of them are in one mapping.
            let t = self.uffd.zero_pages(addr(page), n * PAGE_SIZE, false);
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
        while super::apart::is_changed() {
            if now_ns() > until {
                self.crowded = true;
                return None;
            }
            // They may wait for their reports to be read.
            self.read_messages();
            thread::pause();
        }
        self.crowded = false;
        Some(zapping)
    }

    /// Makes pages the program's own that it shares with a forked process, as
    /// writing to them would. It is another thread that does so: what is not
    /// there any more is faulted for.
    pub(super) fn unshare(&mut self, range: Range<usize>) {
        if self.zapper.is_none() {
            self.zapper = Zapper::start().ok();
        }
        let Some(job) = self.zapper.as_ref().map(|z| z.job) else {
            return;
        };
        job.ask(UNSHARE, &range);
        while job.state.load(Ordering::Acquire) != DONE {
            self.read_messages();
            for fault in &self.faults {
                let at = addr(fault.page);
                if range.contains(&at) && self.pages.get(fault.page).state == State::Local {
                    // Given up by the program in the meantime. Whoever waits,
                    // this thread or another, finds zeros.
                    if fault.protected {
                        let _ = self.uffd.unprotect(at, PAGE_SIZE);
                    } else {
                        self.uffd.zero_pages(at, PAGE_SIZE, true);
                    }
                }
            }
            thread::pause();
        }
        job.state.store(IDLE, Ordering::Release);
    }

    fn zap_run(&mut self, run: &PresentRun) -> Result<usize, Again> {
        let (start, len) = (run.start, run.end - run.start);
        let first = super::event::page(start);
        match self.uffd.protect(start, len) {
            Err(Errno::AGAIN) => return Err(Again::Event),
            Err(_) => {
                self.stubborn.push((first, (len / PAGE_SIZE) as u32));
                return Ok(0);
            }
            Ok(()) => {}
        }
        let Some(frames) = self.copy_out(start, len) else {
            // It cannot be read, or there is no room for it.
            let _ = self.uffd.unprotect(start, len);
            self.stubborn.push((first, (len / PAGE_SIZE) as u32));
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
                self.stubborn.push((number, 1));
                // Who writes to it before this comes by a fault.
                let _ = self.uffd.unprotect(addr(number), PAGE_SIZE);
            } else {
                self.settle(number, frame);
                left += 1;
            }
        }
        self.figures.copied_pages.fetch_add(left as u64, Relaxed);
        self.uffd.wake(start, len);
        Ok(left)
    }

    fn is_present(&self, page: u64) -> bool {
        let mut present = Vec::new();
        let (start, end) = (addr(page), addr(page + 1));
        // Without an answer the program's page is the one that counts.
        self.proc.present(start, end, &mut present).is_err() || !present.is_empty()
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
            let run = if self.pool.populated() < self.budget.pool {
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
            ok = unsafe { self.proc.copy_out(start + done, dst, n * PAGE_SIZE) }.is_ok();
        }
        if !ok {
            frames.iter().for_each(|f| self.pool.put(*f, Kind::Free, 0));
            return None;
        }
        Some(frames)
    }

    /// Waits until the zap is done, or waits for its report to be read, which
    /// only then is true.
    fn until_reported(&mut self, job: &Job) -> bool {
        let until = now_ns() + PATIENCE_NS;
        loop {
            if job.state.load(Ordering::Acquire) == DONE {
                return false;
            }
            let Some(zapper) = &mut self.zapper else {
                return false;
            };
            if zapper.is_told == Some(false) {
                return true;
            }
            if zapper.waits_for_report() {
                zapper.is_told = Some(true);
                return true;
            }
            if now_ns() > until {
                zapper.is_told = zapper.is_told.or(Some(false));
                return true;
            }
            thread::pause();
        }
    }

    /// Has a range zapped; what the program zapped of it at the same time.
    fn zap_and_wait(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        let cpu = self.pace.cpu();
        let Some(zapper) = &mut self.zapper else {
            return Vec::new();
        };
        zapper.stay_with(cpu);
        zapper.now = range.clone();
        zapper.seen.clear();
        let job = zapper.job;
        job.ask(ZAP, &range);
        while self.until_reported(job) {
            // One by one: what comes behind the zap's report is not read
            // before the zap is done.
            self.read_some(1);
        }
        job.state.store(IDLE, Ordering::Release);
        // Whatever moved these pages is to be known before they are settled.
        self.catch_up();
        let Some(zapper) = &mut self.zapper else {
            return Vec::new();
        };
        zapper.now = 0..0;
        foreign(core::mem::take(&mut zapper.seen), range)
    }
}

/// Of the reports `seen`, those that are not about the zap of `range`. That one
/// is reported piece by piece, each mapping for itself; where a mapping was split
/// between its report and its zap, what was split off is reported once more. So
/// its reports begin with the range, each of the others begins within the one
/// before or at its end, and the last ends where it ends. Of several such rows
/// the longest is taken: to take the zap for the program's would lose what is
/// zapped.
fn foreign(mut seen: Vec<Range<usize>>, range: Range<usize>) -> Vec<Range<usize>> {
    // For each report the longest row that ends with it, and what comes before
    // it there.
    let mut rows: Vec<(usize, Option<usize>)> = Vec::new();
    for (i, report) in seen.iter().enumerate() {
        let first = (usize::from(report.start == range.start), None);
        let longest = (0..i)
            .filter(|&b| rows[b].0 > 0)
            .filter(|&b| seen[b].start < report.start && report.start <= seen[b].end)
            .map(|b| (rows[b].0 + 1, Some(b)))
            .fold(first, |best, row| if row.0 > best.0 { row } else { best });
        rows.push(longest);
    }
    let mut last = None;
    for i in (0..rows.len()).filter(|&i| rows[i].0 > 0) {
        let rank = |i: usize| (seen[i].end, rows[i].0);
        if last.is_none_or(|l| rank(i) > rank(l)) {
            last = Some(i);
        }
    }
    let mut own = Vec::new();
    while let Some(i) = last {
        own.push(i);
        last = rows[i].1;
    }
    // The last comes first here.
    for i in own {
        seen.remove(i);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_zaps_beside_a_zap_is_told_apart() {
        assert_eq!(foreign(vec(&[(0, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (0, 8)]), 0..8), vec(&[(0, 3)]));
        assert_eq!(foreign(vec(&[(0, 8), (0, 8)]), 0..8), vec(&[(0, 8)]));
        assert_eq!(
            foreign(vec(&[(4, 5), (0, 3), (3, 8)]), 0..8),
            vec(&[(4, 5)])
        );
        assert_eq!(
            foreign(vec(&[(0, 2), (0, 3), (3, 8)]), 0..8),
            vec(&[(0, 2)])
        );
        assert_eq!(foreign(vec(&[(0, 8), (3, 5)]), 0..8), vec(&[(3, 5)]));
        // The mapping was split in the meantime, once and twice.
        assert_eq!(foreign(vec(&[(0, 8), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 8), (3, 5), (5, 8)]), 0..8), vec(&[]));
        assert_eq!(
            foreign(vec(&[(0, 4), (2, 4), (0, 1), (4, 8)]), 0..8),
            vec(&[(0, 1)])
        );
        // A zap that was refused reports nothing.
        assert_eq!(foreign(vec(&[(2, 3)]), 0..8), vec(&[(2, 3)]));
    }

    fn vec(ranges: &[(usize, usize)]) -> Vec<Range<usize>> {
        ranges.iter().map(|(a, b)| *a..*b).collect()
    }
}
