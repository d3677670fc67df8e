//! The task of the zap worker.
//!
//! The kernel holds this task until the zap's event was read, and a stop signal does not
//! release it. If it were a thread of the program's process, a stop of the program at that
//! moment would stop the engine, which reads the event, and so never complete: the parent
//! process would not be told, and a shell would hang. So the task is a process of its own,
//! which lives while pages are being evicted.
//!
//! The kernel shows what another process waits for only if that process may be inspected.
//! If it may not (`PR_SET_DUMPABLE`), the task is a thread after all. It is a thread, too,
//! if the engine is a thread of the program, and a process that outlives the program would
//! be reported to a process that does not expect it.

use crate::engine::calls::credentials;
use crate::engine::kernel::{Task, Work};
use crate::engine::threads::THREADS;
use crate::sys::helper::{self, Helper, Starter};
use crate::sys::mem::{self, Region};
use crate::sys::proc::Waits;
use crate::sys::{detached, now_ns, program, thread};
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicUsize};
use rustix::io::Errno;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;
/// The process has had no work, and ends.
const GONE: u32 = 3;

/// How long the process waits for more work. That is longer than the time between two
/// rounds of eviction. It should not be much longer, since whoever reaps the processes of a
/// program that was killed sees this one too.
const IDLE_US: u64 = 5_000;
/// How long to wait for the work before reading events that might be its own.
const PATIENCE_NS: u64 = 20_000_000;

const UNSHARE: u32 = Work::Unshare as u32;
const FOLLOW: u32 = Work::Follow as u32;

/// The memory that the engine and its task share.
#[derive(Debug)]
struct Job {
    state: AtomicU32,
    /// The [`Work`] to do.
    what: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    /// Process and thread that started the task.
    process: AtomicU32,
    thread: AtomicU32,
}

/// The kind of the current task.
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

/// The process or thread that does the work.
#[derive(Debug)]
pub(crate) struct ZapTask {
    job: &'static Job,
    who: Who,
    stack: Region,
    waits: Option<Waits>,
    /// The CPU that it was last moved to.
    cpu: Option<u32>,
    /// Whether the kernel shows what the task waits for, once that is known.
    is_told: Option<bool>,
    /// The same for a task that is a process.
    is_told_of_processes: bool,
}

impl ZapTask {
    /// Prepares a task that starts with the first piece of work.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn new() -> Result<ZapTask, Errno> {
        let job = Job {
            state: AtomicU32::new(IDLE),
            what: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            process: AtomicU32::new(0),
            thread: AtomicU32::new(0),
        };
        Ok(ZapTask {
            job: Box::leak(Box::new(job)),
            who: Who::Nobody,
            stack: Region::stack(64 << 10)?,
            waits: None,
            cpu: None,
            is_told: None,
            is_told_of_processes: program::is_apart() || !detached::is_told_of_orphans(),
        })
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

    fn start(&mut self) -> Result<(), Errno> {
        if THREADS.calls.leaving.load(Acquire) {
            return Err(Errno::CANCELED);
        }
        let arg = core::ptr::from_ref(self.job).cast_mut().cast();
        self.cpu = None;
        self.job.set_starter(Starter::this());
        if self.is_told_of_processes {
            // SAFETY: the entry never returns and uses no thread-local storage. The job
            // lives for ever. The stack is free, since the task that used it before has
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
}

impl Task for ZapTask {
    fn stack(&self) -> Option<Region> {
        Some(self.stack)
    }

    fn ask(&mut self, work: Work, range: &Range<usize>) -> Result<(), Errno> {
        let job = self.job;
        job.what.store(work as u32, Relaxed);
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
        thread::wake_sleeper(&job.state);
        Ok(())
    }

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
            // A thread of the program's process stays, and counts among its threads. The
            // engine's own process has to end with its last thread.
            if let Who::Thread(tid) = self.who
                && program::is_apart()
            {
                thread::wake_sleeper(state);
                (0..)
                    .take_while(|_| thread::is_there(thread::leader(), tid))
                    .for_each(thread::await_turn);
                self.who = Who::Nobody;
            }
            self.job.state.store(IDLE, Release);
        }
    }

    fn follow(&mut self) {
        self.end();
        if matches!(self.who, Who::Thread(_)) && self.ask(Work::Follow, &(0..0)).is_ok() {
            for turn in 0.. {
                if self.is_done() {
                    break;
                }
                thread::await_turn(turn);
            }
            self.rest();
        }
    }

    fn is_done(&self) -> bool {
        self.job.state.load(Acquire) == DONE
    }

    fn rest(&mut self) {
        if !self.is_told_of_processes
            && let Some(process) = self.take_process()
        {
            self.job.state.store(GONE, Release);
            thread::wake_sleeper(&self.job.state);
            process.join();
        }
        self.job.state.store(IDLE, Release);
    }

    fn look_after(&mut self) {
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

    fn is_to_be_read(&mut self) -> bool {
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

    fn stay_with(&mut self, cpu: Option<u32>) {
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
}

/// Does work until there has been none for `idle_us` microseconds, or until nothing is left
/// that could ask for more, which is checked after such a time.
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
        // If a zap is refused, the pages are found present. If unsharing is refused, they
        // are not moved.
        let _ = match job.what.load(Relaxed) {
            FOLLOW => {
                credentials::become_as(credentials::whom());
                Ok(())
            }
            UNSHARE => mem::unshare(start, len),
            _ => mem::zap(start, len),
        };
        job.state.store(DONE, Release);
    }
}

unsafe extern "C" fn zap_as_process(arg: *mut u8) -> ! {
    // SAFETY: `ZapTask::start` passes a job that lives for ever.
    let job = unsafe { &*arg.cast::<Job>() };
    let starter = job.starter();
    helper::begin(starter);
    thread::hurry();
    work(job, IDLE_US, || starter.is_gone());
    thread::exit()
}

unsafe extern "C" fn zap_as_thread(arg: *mut u8) -> ! {
    thread::hurry();
    // SAFETY: `ZapTask::start` passes a job that lives for ever.
    let job = unsafe { &*arg.cast::<Job>() };
    loop {
        // In the program's process the thread never ends while the engine may ask it.
        work(job, u64::MAX >> 1, || false);
        if program::is_apart() {
            thread::exit();
        }
    }
}

#[cfg(test)]
mod tests;
