//! Who zaps: see `zap`.
//!
//! The kernel holds who zaps until the report has been read, and stops do not get it
//! out of there. Were it a thread of the program's process, a stop of the program that
//! comes then would stop who reads, and never be complete: its parent would not be told
//! (a shell would hang). So it is a process of its own, which is there for as long as
//! pages leave.
//!
//! Of another process the kernel says what it waits for only where it may be inspected.
//! Where it may not (`PR_SET_DUMPABLE`) it is a thread after all.

use crate::engine::Engine;
use crate::engine::calls::engine_call::Question;
use crate::engine::fork::LEAVE;
use crate::sys::helper::{self, Helper, Starter};
use crate::sys::mem::{self, Region};
use crate::sys::proc::Waits;
use crate::sys::{now_ns, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use rustix::io::Errno;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;
/// The process has nothing to do, and ends.
const GONE: u32 = 3;

/// So long the process waits for more to do: longer than between two runs of pages that
/// leave, and no longer, as it is seen by whoever reaps the processes of a program that
/// somebody ends.
const IDLE_US: u64 = 5_000;
/// How long what was asked is waited for before reports are read that might be about
/// it.
const PATIENCE_NS: u64 = 20_000_000;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The pages are taken away.
    Zap,
    /// The pages become the program's own, as writing to them would make them.
    Unshare,
    /// The task becomes what the program is, see `credentials`.
    Follow,
}

const UNSHARE: u32 = What::Unshare as u32;
const FOLLOW: u32 = What::Follow as u32;

/// The program is about to end: nothing is begun any more that would outlive it.
static LEAVING: AtomicBool = AtomicBool::new(false);
static QUESTION: Question = Question::new(LEAVE);

/// Ends the process that zaps, which would be reaped by another than the engine if it
/// outlived the program. Called by a thread of the program that is about to end it, with
/// signals blocked.
pub fn leave() {
    LEAVING.store(true, Release);
    // Without an engine there is none.
    QUESTION.turn().ask();
}

/// In a process that was just forked.
pub(crate) fn begin_anew() {
    LEAVING.store(false, Relaxed);
    QUESTION.begin_anew();
}

impl Engine {
    /// Answers who asks.
    pub(crate) fn answer_leave(&mut self) {
        QUESTION.answer(|| self.zapper.iter_mut().for_each(Zapper::end));
    }
}

/// What the engine and who zaps share.
#[derive(Debug)]
struct Job {
    state: AtomicU32,
    /// Which [`What`].
    what: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    /// Of which process, and which of its threads it was that started who zaps.
    process: AtomicU32,
    thread: AtomicU32,
}

/// Who zaps at present.
#[derive(Debug)]
enum Who {
    Nobody,
    Process(Helper),
    Thread(u32),
}

impl Job {
    fn set_starter(&self, starter: Starter) {
        self.process.store(starter.process, Relaxed);
        self.thread.store(starter.thread, Relaxed);
    }

    fn starter(&self) -> Starter {
        Starter {
            process: self.process.load(Relaxed),
            thread: self.thread.load(Relaxed),
        }
    }
}

/// The process or thread that zaps, and the zap under way.
#[derive(Debug)]
pub(crate) struct Zapper {
    job: &'static Job,
    who: Who,
    stack: Region,
    /// The range, while a zap is under way.
    now: Range<usize>,
    /// Reports within the range since the zap began.
    seen: Vec<Range<usize>>,
    waits: Option<Waits>,
    /// Where it was put last.
    cpu: Option<u32>,
    /// Whether the kernel says what it waits for; not known at first.
    is_told: Option<bool>,
    /// Whether it says so of another process.
    is_told_of_processes: bool,
}

impl Zapper {
    /// One that begins when it is asked first.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new() -> Result<Zapper, Errno> {
        let job = Job {
            state: AtomicU32::new(IDLE),
            what: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            process: AtomicU32::new(0),
            thread: AtomicU32::new(0),
        };
        Ok(Zapper {
            job: Box::leak(Box::new(job)),
            who: Who::Nobody,
            stack: Region::stack(64 << 10)?,
            now: 0..0,
            seen: Vec::new(),
            waits: None,
            cpu: None,
            is_told: None,
            is_told_of_processes: true,
        })
    }

    /// Memory that is the engine's own.
    pub(crate) fn stack(&self) -> Region {
        self.stack
    }

    /// Asks for something. What the kernel refuses to do shows in the pages.
    ///
    /// # Errors
    /// The kernel's, where nobody can be started to do it.
    pub(crate) fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno> {
        let job = self.job;
        job.what.store(what as u32, Relaxed);
        job.start.store(range.start, Relaxed);
        job.len.store(range.len(), Relaxed);
        if job
            .state
            .compare_exchange(IDLE, ASKED, AcqRel, Acquire)
            .is_err()
            && let Some(process) = self.take_process()
        {
            process.join();
        }
        if matches!(self.who, Who::Nobody) {
            job.state.store(ASKED, Release);
            self.start()
                .inspect_err(|_| job.state.store(IDLE, Release))?;
        }
        if what == What::Zap {
            self.now = range.clone();
            self.seen.clear();
        }
        thread::wake_sleeper(&job.state);
        Ok(())
    }

    fn take_process(&mut self) -> Option<Helper> {
        match core::mem::replace(&mut self.who, Who::Nobody) {
            Who::Process(process) => Some(process),
            other => {
                self.who = other;
                None
            }
        }
    }

    /// Ends a process that has nothing to do.
    fn end(&mut self) {
        let state = &self.job.state;
        let idle = state.compare_exchange(IDLE, GONE, AcqRel, Acquire);
        if matches!(idle, Ok(_) | Err(GONE))
            && let Some(process) = self.take_process()
        {
            thread::wake_sleeper(&self.job.state);
            process.join();
            self.job.state.store(IDLE, Release);
        } else if idle.is_ok() {
            self.job.state.store(IDLE, Release);
        }
    }

    /// Has it become what the program is, or end. Called while it has nothing to do.
    pub(crate) fn follow(&mut self) {
        self.end();
        if matches!(self.who, Who::Thread(_)) && self.ask(What::Follow, &(0..0)).is_ok() {
            for turn in 0.. {
                if self.is_done() {
                    break;
                }
                thread::await_turn(turn);
            }
            self.rest();
        }
    }

    fn start(&mut self) -> Result<(), Errno> {
        if LEAVING.load(Acquire) {
            return Err(Errno::CANCELED);
        }
        let arg = core::ptr::from_ref(self.job).cast_mut().cast();
        self.cpu = None;
        self.job.set_starter(Starter::this());
        if self.is_told_of_processes {
            // SAFETY: the entry never returns and uses no thread-local storage; the job
            // lives for ever, and nobody else is on the stack: who was there before has
            // ended. The calling thread has blocked all signals.
            let process = unsafe { Helper::spawn(self.stack, zap_as_process, arg)? };
            self.waits = Waits::of_process(process.id());
            self.who = Who::Process(process);
        } else {
            // SAFETY: as above.
            let tid = unsafe { thread::spawn(self.stack, zap_as_thread, arg)? };
            self.waits = Waits::of(tid as u32);
            self.who = Who::Thread(tid as u32);
        }
        Ok(())
    }

    /// Whether what was asked is done.
    pub(crate) fn is_done(&self) -> bool {
        self.job.state.load(Acquire) == DONE
    }

    /// What was asked is done, and known to be.
    pub(crate) fn rest(&mut self) {
        if !self.is_told_of_processes
            && let Some(process) = self.take_process()
        {
            self.job.state.store(GONE, Release);
            thread::wake_sleeper(&self.job.state);
            process.join();
        }
        self.job.state.store(IDLE, Release);
    }

    /// Forgets a process that has ended, be it that somebody ended it: what it was
    /// asked to do then counts as done.
    pub(crate) fn look_after(&mut self) {
        if let Who::Process(process) = &self.who
            && process.is_gone()
        {
            self.who = Who::Nobody;
            let state = &self.job.state;
            if state
                .compare_exchange(ASKED, DONE, AcqRel, Acquire)
                .is_err()
            {
                let _ = state.compare_exchange(GONE, IDLE, AcqRel, Acquire);
            }
        }
    }

    /// Waits until the zap is done, which is false then, or waits for its report to be
    /// read.
    pub(crate) fn is_to_be_read(&mut self) -> bool {
        let until = now_ns() + PATIENCE_NS;
        for turn in 0.. {
            if self.is_done() {
                return false;
            }
            if self.is_told == Some(false) {
                self.look_after();
                return true;
            }
            if self
                .waits
                .as_ref()
                .is_some_and(|w| w.within(b"userfaultfd"))
            {
                self.is_told = Some(true);
                return true;
            }
            if now_ns() > until {
                self.look_after();
                if let Who::Process(process) = &self.who
                    && Waits::of_process(process.id()).is_none()
                {
                    self.is_told_of_processes = false;
                } else {
                    self.is_told = self.is_told.or(Some(false));
                }
                return true;
            }
            thread::await_turn(turn);
        }
        true
    }

    /// Has it run where the engine does. The two take turns, and to wake one that
    /// sleeps on another processor takes longer than a zap.
    pub(crate) fn stay_with(&mut self, cpu: Option<u32>) {
        let tid = match &self.who {
            Who::Nobody => return,
            Who::Process(process) => process.id(),
            Who::Thread(tid) => *tid,
        };
        if let Some(cpu) = cpu.filter(|cpu| self.cpu != Some(*cpu)) {
            self.cpu = Some(cpu);
            thread::put_on(tid, &thread::Cpus::one(cpu));
        }
    }

    /// Whether a report may be about the zap under way. Which of them were is seen
    /// when it is done.
    pub(crate) fn is_own(&mut self, range: &Range<usize>) -> bool {
        let own = self.now.start <= range.start && range.end <= self.now.end;
        if own {
            self.seen.push(range.clone());
        }
        own
    }

    /// The zap is over: what of its reports was the program's.
    pub(crate) fn foreign(&mut self) -> Vec<Range<usize>> {
        let range = core::mem::replace(&mut self.now, 0..0);
        foreign(core::mem::take(&mut self.seen), range)
    }
}

/// How the process or thread works: it does what it is asked to, and ends where that
/// is nothing for `idle_us` microseconds, or where after such a time nobody is there any
/// more who could ask.
fn work(job: &Job, idle_us: u64, is_left: impl Fn() -> bool) {
    loop {
        match job.state.load(Acquire) {
            ASKED => {}
            GONE => return,
            other => {
                let state = &job.state;
                if thread::sleep_some(state, other, idle_us)
                    && (is_left() || state.compare_exchange(IDLE, GONE, AcqRel, Acquire).is_ok())
                {
                    return;
                }
                continue;
            }
        }
        let (start, len) = (job.start.load(Relaxed), job.len.load(Relaxed));
        // What could not be zapped is found present; what could not be made its own
        // is not moved.
        let _ = match job.what.load(Relaxed) {
            FOLLOW => {
                crate::engine::calls::credentials::become_as(
                    crate::engine::calls::credentials::whom(),
                );
                Ok(())
            }
            UNSHARE => mem::unshare(start, len),
            _ => mem::zap(start, len),
        };
        job.state.store(DONE, Release);
    }
}

unsafe extern "C" fn zap_as_process(arg: *mut u8) -> ! {
    // SAFETY: what `Zapper::start` gave.
    let job = unsafe { &*arg.cast::<Job>() };
    let starter = job.starter();
    helper::begin(starter);
    thread::hurry();
    work(job, IDLE_US, || starter.is_gone());
    thread::exit()
}

unsafe extern "C" fn zap_as_thread(arg: *mut u8) -> ! {
    thread::hurry();
    // SAFETY: what `Zapper::start` gave.
    let job = unsafe { &*arg.cast::<Job>() };
    loop {
        // It does not come to an end while the engine asks this thread.
        work(job, u64::MAX >> 1, || false);
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
