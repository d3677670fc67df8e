//! Where the engine's thread runs, and whether it sleeps while it waits.
//!
//! To wake a thread on another processor that sleeps costs several times what
//! a fault costs otherwise; to switch to one on the same processor costs little.
//! So while a program asks for pages one by one, and waits for each, the engine
//! runs on the processor of the thread that faults, and looks for the answer
//! without sleeping as long as answers come soon. While pages stream, there is
//! work for two processors, and the kernel places the engine.

use super::Engine;
use crate::sys::{now_ns, thread};
use core::sync::atomic::Ordering::Relaxed;

/// Between two looks where the engine should be.
const LOOK_NS: u64 = 2_000_000;
/// Fewer pages for each fault than this, and the program is one that waits.
const STREAMING: u64 = 8;
/// After so many answers in a row that were not there in time, the engine
/// sleeps for them, but for one of so many: they may come sooner again.
const LATE: u32 = 8;
const TRY: u32 = 32;
/// The longest time to look for an answer without sleeping.
const SPIN_NS: u64 = 150_000;

/// What the engine knows of its pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The processors that the engine was started with.
    all: thread::Cpus,
    /// The one that it keeps to.
    cpu: Option<u32>,
    looked_ns: u64,
    faults: u64,
    pages: u64,
    /// Answers in a row that came late.
    late: u32,
    /// When the last demand read was sent.
    asked_ns: u64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            all: thread::cpus(),
            ..Pace::default()
        }
    }

    /// A demand read was sent.
    pub(super) fn asked(&mut self, now: u64) {
        self.asked_ns = now;
    }

    /// A demand read took so long.
    pub(super) fn answered(&mut self, ns: u64) {
        self.late = if ns < SPIN_NS { 0 } else { self.late + 1 };
    }

    /// Whether to look again at once instead of sleeping, with a demand read
    /// under way.
    pub(super) fn spins(&self, now: u64) -> bool {
        let hopeful = self.late < LATE || self.late.is_multiple_of(TRY);
        self.cpu.is_some() && hopeful && now < self.asked_ns + SPIN_NS
    }
}

impl Engine {
    /// Sees where the engine should be, at a fault of thread `tid`.
    pub(super) fn keep_pace(&mut self, tid: u32) {
        let now = now_ns();
        if now < self.pace.looked_ns + LOOK_NS || tid == 0 {
            return;
        }
        let figures = self.figures;
        let faults = figures.faults.load(Relaxed);
        let pages = figures.fetched_pages.load(Relaxed) + figures.zero_fills.load(Relaxed);
        let pace = &mut self.pace;
        let few = pages - pace.pages < (faults - pace.faults) * STREAMING;
        (pace.looked_ns, pace.faults, pace.pages) = (now, faults, pages);
        let cpu = if few { self.proc.cpu_of(tid) } else { None };
        if cpu != pace.cpu {
            pace.cpu = cpu;
            match cpu {
                Some(cpu) => thread::run_on(&thread::Cpus::one(cpu)),
                None => thread::run_on(&pace.all),
            }
        }
    }
}
