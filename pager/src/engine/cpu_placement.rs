//! Where the engine's thread runs, and whether it sleeps while it waits.
//!
//! To wake a thread on another processor that sleeps costs several times what
//! a fault costs otherwise; to switch to one on the same processor costs little.
//! So while a program asks for pages one by one, and waits for each, the engine
//! runs on the processor of the thread that faults, and looks for the answer
//! without sleeping where that has proved quicker. While pages stream, there is
//! work for two processors, and the kernel places the engine.

use crate::engine::Engine;
use crate::sys::{now_ns, thread};
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::spin::{SpinOrSleep, WaitMode};

/// Between two looks where the engine should be; and while the program stays
/// where it is.
const LOOK_NS: u64 = 2_000_000;
const STABLE_LOOK_NS: u64 = 8_000_000;
/// Fewer pages for each fault than this, and the program is one that waits.
const STREAMING: u64 = 8;
/// With less than one fault in so long it waits for little.
const OFTEN_NS: u64 = 2_000_000;

/// Of so many faults, one in so many that comes from another thread than the one
/// before it tells that several threads ask for pages.
const FAULTS: u32 = 64;
const ONE_IN: u32 = 4;

/// So many samples without a fault before it is looked where the program runs.
const SAMPLES: u32 = 4;

/// What the engine knows of its pace.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The processors that the engine was started with.
    all: thread::Cpus,
    /// The one that it keeps to.
    cpu: Option<u32>,
    /// When it is looked next where the engine should be, and when it was last.
    look_ns: u64,
    looked_ns: u64,
    /// Pages stream.
    streams: bool,
    faults: u64,
    pages: u64,
    /// How to wait for answers.
    choice: SpinOrSleep,
    waiting: Option<WaitMode>,
    /// When the last demand read was sent.
    asked_ns: u64,
    /// How long was waited asleep for all of them.
    asleep_ns: u64,
    /// Faults there were at the last sample, and samples since a look.
    sampled_faults: u64,
    samples: u32,
    crowd: Crowd,
}

/// Whether several threads ask for pages.
#[derive(Debug, Default)]
struct Crowd {
    tid: u32,
    faults: u32,
    changes: u32,
    is_one: bool,
}

impl Crowd {
    fn fault(&mut self, tid: u32) {
        self.faults += 1;
        self.changes += u32::from(core::mem::replace(&mut self.tid, tid) != tid);
        if self.faults == FAULTS {
            self.is_one = self.changes * ONE_IN >= FAULTS;
            (self.faults, self.changes) = (0, 0);
        }
    }
}

impl Pace {
    /// Of an engine that was started with the processors `all`, and is on `cpu` if it
    /// keeps to one.
    pub(crate) fn new(all: thread::Cpus, cpu: Option<u32>) -> Pace {
        Pace {
            all,
            cpu,
            ..Pace::default()
        }
    }

    /// A demand read is sent; whether to wait awake for it.
    pub(crate) fn asks(&mut self, now: u64) -> bool {
        self.asked_ns = now;
        let how = self.choice.choose();
        self.waiting = Some(how);
        how == WaitMode::Spin
    }

    /// A demand read took so long.
    pub(crate) fn answered(&mut self, ns: u64) {
        if let Some(how) = self.waiting.take() {
            if how == WaitMode::Sleep {
                self.asleep_ns += ns;
            }
            self.choice.record(how, ns);
        }
    }

    /// Nanoseconds that answers were waited for asleep, in all.
    pub(crate) fn asleep_ns(&self) -> u64 {
        self.asleep_ns
    }

    /// Whether several threads ask for pages, which then run on several processors.
    /// Those have to forget the address of whatever is moved, even of a frame that
    /// none of them has ever used: to copy a single page into the program is cheaper
    /// then.
    pub(crate) fn is_crowd(&self) -> bool {
        self.crowd.is_one
    }

    /// Whether pages stream.
    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// The processor that the engine keeps to.
    pub(crate) fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    fn run_on(&mut self, cpu: Option<u32>) {
        if cpu != self.cpu {
            self.cpu = cpu;
            match cpu {
                Some(cpu) => thread::run_on(&thread::Cpus::one(cpu)),
                None => thread::run_on(&self.all),
            }
        }
    }

    /// Whether to look again at once instead of sleeping, with a demand read
    /// under way.
    pub(crate) fn spins(&self, now: u64) -> bool {
        self.waiting == Some(WaitMode::Spin) && now < self.asked_ns + self.choice.longest_spin_ns()
    }
}

impl Engine {
    /// Sees where the engine should be, at a fault of thread `tid`.
    pub(crate) fn keep_pace(&mut self, tid: u32) {
        self.pace.crowd.fault(tid);
        let now = now_ns();
        if now < self.pace.look_ns || tid == 0 {
            return;
        }
        let figures = self.figures;
        let faults = figures.faults.load(Relaxed);
        let pages = figures.fetched_pages.load(Relaxed) + figures.zero_fills.load(Relaxed);
        let pace = &mut self.pace;
        let asked = faults - pace.faults;
        let few = pages - pace.pages < asked * STREAMING;
        let often = now.saturating_sub(pace.looked_ns) < asked * OFTEN_NS;
        (pace.faults, pace.pages, pace.looked_ns) = (faults, pages, now);
        let cpu = if few && often {
            self.kernel.cpu_of(tid)
        } else {
            None
        };
        pace.streams = !few;
        let stable = cpu == pace.cpu;
        pace.look_ns = now + if stable { STABLE_LOOK_NS } else { LOOK_NS };
        self.pace.run_on(cpu);
    }

    /// While memory grows that is not adopted, nothing wakes the engine but its
    /// timer. A processor that sleeps may take its time to hear of one, the more
    /// so when it is a virtual one; the program's does not sleep. And where more is
    /// resident than may be, what the engine does there is time that the program
    /// does not have to outrun it.
    ///
    /// Until some is adopted nothing else holds the program back, and it may be moved
    /// away from here between any two looks.
    pub(crate) fn stay_near(&mut self, grows: bool) {
        let faults = self.figures.faults.load(Relaxed);
        let quiet = core::mem::replace(&mut self.pace.sampled_faults, faults) == faults;
        self.pace.samples += 1;
        let over = self.is_over();
        let unheld = grows && self.adopted.is_empty();
        let seldom = self.remote == 0 && self.pace.samples.is_multiple_of(SAMPLES);
        let due = over || unheld || seldom;
        if quiet && due {
            self.go_near();
        }
    }

    /// Keeps to the processor that the program's first thread is on.
    pub(crate) fn go_near(&mut self) {
        let cpu = self.kernel.cpu_of(thread::leader());
        self.pace.run_on(cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_fault_by_turns_are_a_crowd_and_one_that_does_most_is_none() {
        let mut crowd = Crowd::default();
        (0..FAULTS).for_each(|i| crowd.fault(i % 8));
        assert!(crowd.is_one);
        (0..FAULTS).for_each(|i| crowd.fault(u32::from(i % 32 == 0)));
        assert!(!crowd.is_one);
    }
}
