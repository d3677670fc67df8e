//! Chooses the CPU of the engine's thread, and whether the thread spins or sleeps while it
//! waits. The policies are in [`tmem_policy::engine_cpu`], [`tmem_policy::spin`] and
//! [`tmem_policy::contention`].

use crate::engine::memory::Memory;
use crate::engine::reclaim::Pacing;
use crate::sys::{now_ns, program, thread};
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::contention::Contention;
use tmem_policy::engine_cpu::EngineCpu;
use tmem_policy::spin::{SpinOrSleep, WaitMode};

/// Samples without a fault before the engine looks again on which CPU the program runs.
const SAMPLES: u32 = 4;

/// State of CPU placement and of waiting.
#[derive(Debug, Default)]
pub(crate) struct CpuPlacement {
    /// The CPUs that the engine was started with.
    all: thread::Cpus,
    /// The single CPU that the thread is bound to, if it is bound.
    cpu: Option<u32>,
    /// The policy that decides whether to run on the faulting thread's CPU.
    follow: EngineCpu,
    /// The policy that decides whether to spin or sleep.
    choice: SpinOrSleep,
    waiting: Option<WaitMode>,
    /// When the last demand read was sent.
    asked_ns: u64,
    /// Total time that demand reads were waited for asleep.
    asleep_ns: u64,
    /// Number of faults at the last sample, and samples since the last look at the
    /// program's CPU.
    sampled_faults: u64,
    samples: u32,
    contention: Contention,
}

impl CpuPlacement {
    /// Starts with the CPUs `all`, bound to `cpu` if that is given.
    pub(crate) fn new(all: thread::Cpus, cpu: Option<u32>) -> CpuPlacement {
        CpuPlacement {
            all,
            cpu,
            ..CpuPlacement::default()
        }
    }

    /// Notes that a demand read is sent. Returns whether to spin until its answer.
    pub(crate) fn asks(&mut self, now: u64) -> bool {
        self.asked_ns = now;
        let how = self.choice.choose();
        self.waiting = Some(how);
        how == WaitMode::Spin
    }

    /// Notes that a demand read took `ns`.
    pub(crate) fn answered(&mut self, ns: u64) {
        if let Some(how) = self.waiting.take() {
            if how == WaitMode::Sleep {
                self.asleep_ns += ns;
            }
            self.choice.record(how, ns);
        }
    }

    /// Tells whether several threads ask for pages.
    pub(crate) fn is_contended(&self) -> bool {
        self.contention.is_contended()
    }

    /// Returns what eviction needs to know of how the thread runs.
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

    /// Tells whether to poll again instead of sleeping, with a demand read under way.
    pub(crate) fn spins(&self, now: u64) -> bool {
        self.waiting == Some(WaitMode::Spin) && now < self.asked_ns + self.choice.longest_spin_ns()
    }

    /// Chooses the CPU, at a fault of thread `tid`.
    pub(crate) fn keep(&mut self, m: &mut Memory, tid: u32) {
        self.contention.fault(tid);
        let is_contended = self.is_contended();
        m.mover.set_contended(is_contended);
        let now = now_ns();
        if tid == 0 || !self.follow.is_due(now) {
            return;
        }
        let stats = m.report.stats;
        let faults = stats.faults.load(Relaxed);
        let pages = stats.fetched_pages.load(Relaxed) + stats.zero_fills.load(Relaxed);
        let cpu = match self.follow.follows(now, faults, pages) {
            true => m.mover.kernel_mut().cpu_of(tid),
            false => None,
        };
        self.follow.looked(now, cpu != self.cpu);
        self.run_on(cpu);
    }

    /// Moves next to the program while it runs without faults. Then only the timer wakes
    /// the engine, and an idle CPU may take long to notice a timer, above all a virtual
    /// one. The program's CPU is not idle. While resident memory exceeds the throttle
    /// watermark, running there also takes CPU time from the program, so that it cannot
    /// outrun the engine.
    ///
    /// Before anything is adopted nothing else slows the program down, and the scheduler
    /// may move it between any two samples.
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

    /// Moves to the CPU of the program's first thread.
    pub(crate) fn go_near(&mut self, m: &mut Memory) {
        let cpu = m.mover.kernel_mut().cpu_of(program::id());
        self.run_on(cpu);
    }
}
