//! Eviction on kernels that cannot move pages (before 6.8), and of pages that
//! no kernel moves: those that the program may only read.
//!
//! A page is write-protected, copied into a frame, and zapped with
//! `madvise(MADV_DONTNEED)`. The kernel reports that as it reports the
//! program's own, and holds who does it until the report has been read: so it
//! is another thread that zaps, while the engine reads.
//!
//! What this way cannot exclude: between the copy and the zap, a thread of the
//! program unmaps the range and another has something new mapped at the same
//! place and writes to it. The window is as long as one `madvise`. Writable
//! pages on kernels that move pages have no such window.

use super::fault::addr;
use super::{Again, Engine};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::mem::{self, Region};
use crate::sys::proc::PresentRun;
use crate::sys::{self, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, Ordering::Relaxed};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;

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
        })
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
        let events = self.events;
        for run in present {
            if self.events != events {
                // Reports were read during the zap before. What is mapped there
                // now may be something else.
                let from = super::event::page(run.start);
                self.queue
                    .push(from, (page + n as u64 - from) as u32, false);
                break;
            }
            left += self.zap_run(&run)?;
        }
        Ok(left)
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
        let zapping = if self.copying {
            match super::direct::Zapping::begin() {
                Some(zapping) => Some(zapping),
                None => return Err(Again::Memory),
            }
        } else {
            // What the program may only read, no device is made to write to.
            None
        };
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
        drop(zapping);
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

    /// Has a range zapped; what the program zapped of it at the same time.
    fn zap_and_wait(&mut self, range: Range<usize>) -> Vec<Range<usize>> {
        let Some(zapper) = &mut self.zapper else {
            return Vec::new();
        };
        zapper.now = range.clone();
        zapper.seen.clear();
        let job = zapper.job;
        job.ask(ZAP, &range);
        while job.state.load(Ordering::Acquire) != DONE {
            self.read_messages();
            thread::pause();
        }
        job.state.store(IDLE, Ordering::Release);
        // Whatever moved these pages is to be known before they are settled.
        loop {
            self.read_messages();
            if self.uffd.unprotect(self.probe.start, PAGE_SIZE) != Err(Errno::AGAIN) {
                break;
            }
            sys::thread::pause();
        }
        let Some(zapper) = &mut self.zapper else {
            return Vec::new();
        };
        zapper.now = 0..0;
        foreign(core::mem::take(&mut zapper.seen), range)
    }
}

/// Of the reports `seen`, those that are not about the zap of `range`. That one
/// is reported piece by piece, each mapping for itself: its reports are some
/// that follow one another from the range's start.
fn foreign(mut seen: Vec<Range<usize>>, range: Range<usize>) -> Vec<Range<usize>> {
    // The longest way from the start, by trying what begins where the last
    // ended; there are hardly ever two of those.
    fn longest(seen: &[Range<usize>], used: &mut Vec<usize>, at: usize) -> (usize, Vec<usize>) {
        let mut best = (at, used.clone());
        for i in 0..seen.len() {
            if seen[i].start == at && !seen[i].is_empty() && !used.contains(&i) {
                used.push(i);
                let way = longest(seen, used, seen[i].end);
                if way.0 > best.0 {
                    best = way;
                }
                used.pop();
            }
        }
        best
    }
    let (_, mut own) = longest(&seen, &mut Vec::new(), range.start);
    own.sort_unstable();
    for i in own.into_iter().rev() {
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
        // A zap that was refused reports nothing.
        assert_eq!(foreign(vec(&[(2, 3)]), 0..8), vec(&[(2, 3)]));
    }

    fn vec(ranges: &[(usize, usize)]) -> Vec<Range<usize>> {
        ranges.iter().map(|(a, b)| *a..*b).collect()
    }
}
