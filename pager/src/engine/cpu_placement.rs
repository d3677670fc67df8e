//! Where the engine's thread runs, and whether it sleeps while it waits: carries out what
//! the policies of [`tmem_policy::engine_cpu`], [`tmem_policy::spin`] and
//! [`tmem_policy::contention`] decide.

use crate::engine::memory::Memory;
use crate::engine::reclaim::Pacing;
use crate::sys::{now_ns, thread};
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::contention::Contention;
use tmem_policy::engine_cpu::EngineCpu;
use tmem_policy::spin::{SpinOrSleep, WaitMode};

/// So many samples without a fault before it is looked where the program runs.
const SAMPLES: u32 = 4;

/// What the engine knows of its pace.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The processors that the engine was started with.
    all: thread::Cpus,
    /// The one that it keeps to.
    cpu: Option<u32>,
    /// Whether that is the faulting thread's.
    follow: EngineCpu,
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
    contention: Contention,
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

    /// Whether several threads ask for pages.
    pub(crate) fn is_contended(&self) -> bool {
        self.contention.is_contended()
    }

    /// How the thread runs now, for those who take pages out.
    pub(crate) fn pacing(&self) -> Pacing {
        Pacing {
            streams: self.follow.streams(),
            cpu: self.cpu,
            asleep_ns: self.asleep_ns,
        }
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

    /// Sees where the engine should be, at a fault of thread `tid`.
    pub(crate) fn keep(&mut self, m: &mut Memory, tid: u32) {
        self.contention.fault(tid);
        let is_contended = self.is_contended();
        m.mover.set_contended(is_contended);
        let now = now_ns();
        if tid == 0 || !self.follow.is_due(now) {
            return;
        }
        let figures = m.report.stats;
        let faults = figures.faults.load(Relaxed);
        let pages = figures.fetched_pages.load(Relaxed) + figures.zero_fills.load(Relaxed);
        let cpu = match self.follow.follows(now, faults, pages) {
            true => m.mover.kernel_mut().cpu_of(tid),
            false => None,
        };
        self.follow.looked(now, cpu != self.cpu);
        self.run_on(cpu);
    }

    /// While memory grows that is not adopted, nothing wakes the engine but its
    /// timer. A processor that sleeps may take its time to hear of one, the more
    /// so when it is a virtual one; the program's does not sleep. And where more is
    /// resident than may be, what the engine does there is time that the program
    /// does not have to outrun it.
    ///
    /// Until some is adopted nothing else holds the program back, and it may be moved
    /// away from here between any two looks.
    pub(crate) fn stay_near(&mut self, m: &mut Memory, grows: bool) {
        let faults = m.report.stats.faults.load(Relaxed);
        let quiet = core::mem::replace(&mut self.sampled_faults, faults) == faults;
        self.samples += 1;
        let over = m.is_over();
        let unheld = grows && m.space.adopted().is_empty();
        let seldom = m.residency.remote() == 0 && self.samples.is_multiple_of(SAMPLES);
        let due = over || unheld || seldom;
        if quiet && due {
            self.go_near(m);
        }
    }

    /// Keeps to the processor that the program's first thread is on.
    pub(crate) fn go_near(&mut self, m: &mut Memory) {
        let cpu = m.mover.kernel_mut().cpu_of(thread::leader());
        self.run_on(cpu);
    }
}
