//! What threads of the program and the engine share: one structure, which consists of
//! atomics.
//!
//! Each part is used only by the module that is named with it. A forked child has a copy of
//! everything. In it [`Threads::reset_after_fork`] resets the state of the parent's engine
//! and of its other threads.
//!
//! A few things are elsewhere, since the kernel or the shim reaches them directly: the
//! statistics and what `tmem run` shares, which are in memory of their own;
//! `exclusion::COPYING` and `exclusion::REPORTED`, which the shim reads by their symbols;
//! and what `sys` keeps.

mod calls;

pub(crate) use calls::{Ever, MINCORE_PAGES, Question, bell};

use crate::atomic::AtomicU32 as GateU32;
use crate::engine::fork::manifest::ForkManifest;
use crate::gate::Gate;
use crate::page_set::PageSet;
use calls::{Advice, Calls};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

/// The most lent pages that stay: as many as two pipes hold, of the largest size that an
/// ordinary user may set.
pub(crate) const LENT_PAGES: usize = 512;
/// Guards of an engine that is a process of its own.
pub(crate) const GUARDS: usize = 2;

/// Everything that threads share.
pub(crate) static THREADS: Threads = Threads::new();

/// A lock for tests that use [`THREADS`], which all tests of a process share.
#[cfg(test)]
static TESTED: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Waits until no other test uses [`THREADS`].
#[cfg(test)]
pub(crate) fn for_this_test() -> std::sync::MutexGuard<'static, ()> {
    TESTED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Everything that threads share, by the module that uses it.
pub(crate) struct Threads {
    pub(crate) evicted: Evicted,
    pub(crate) alive: Alive,
    pub(crate) exclusion: Exclusion,
    /// The address of the doorbell, or 0 without an engine.
    pub(crate) doorbell: AtomicUsize,
    pub(crate) fork: Fork,
    pub(crate) handover: Handover,
    pub(crate) adoption: Adoption,
    pub(crate) advice: Advice,
    pub(crate) calls: Calls,
    pub(crate) lending: Lending,
    pub(crate) throttle: Throttle,
    pub(crate) watchdog: Watchdog,
}

/// For `evicted`: pages are not in memory.
pub(crate) struct Evicted {
    pub(crate) evicted: AtomicBool,
    pub(crate) lost: AtomicBool,
}

/// For `alive`: the engine's progress.
pub(crate) struct Alive {
    /// There is an engine that has begun, or will begin.
    pub(crate) alive: AtomicBool,
    /// Counts how often a thread wanted the engine to look while it watches.
    pub(crate) poked: AtomicU32,
    /// A thread wants the engine to open all that it will need.
    pub(crate) wanted_now: AtomicBool,
    /// The engine has opened all that it will need.
    pub(crate) has_all: AtomicBool,
}

/// For `exclusion`.
pub(crate) struct Exclusion {
    /// Direct reads are delayed, because memory has to be zapped first.
    pub(crate) delays: AtomicBool,
    /// The gate that threads enter for a direct read.
    pub(crate) reads: Gate,
    /// The gate that threads enter to change the address space.
    pub(crate) changes: Gate,
    /// The gate that threads enter for any such change but a move that keeps the old range,
    /// for which the gate is shut.
    pub(crate) moves: Gate,
    /// Counts how often a thread was about to change the address space.
    pub(crate) changed: AtomicU32,
}

/// For `fork`.
pub(crate) struct Fork {
    /// Forks begun plus forks ended: odd while one is under way.
    pub(crate) forking: AtomicU32,
    /// The value of `forking` for which the engine is quiescent.
    pub(crate) quiescent_for: AtomicU32,
    /// This process was forked from another that has an engine.
    pub(crate) is_child: AtomicBool,
    /// The program has asked the kernel to merge equal pages.
    pub(crate) merges: AtomicBool,
    /// The manifest that a child inherits, while the engine is quiescent.
    pub(crate) manifest: AtomicPtr<ForkManifest>,
}

/// For `fork::handover`.
pub(crate) struct Handover {
    /// The child's end of the pair, and the parent's.
    pub(crate) childs: Offered,
    pub(crate) parents: Offered,
    /// The thread that forks while the engine only watches.
    pub(crate) forks: AtomicU32,
    /// The inode of the last end that the engine has taken.
    pub(crate) taken: AtomicU64,
    /// Children that have memory elsewhere and have not begun.
    pub(crate) waiting: AtomicU32,
}

/// An end of the pair in the program's file table. There is none without a fork.
pub(crate) struct Offered {
    pub(crate) fd: AtomicI32,
    pub(crate) inode: AtomicU64,
}

/// For `adopt`: how often threads asked for adoption, and how often they were answered.
pub(crate) struct Adoption {
    pub(crate) asked: AtomicU32,
    pub(crate) answered: AtomicU32,
}

/// For `reclaim::lending` and `calls::lent_pages`.
pub(crate) struct Lending {
    /// A call that can lend pages was made, or is about to be made.
    pub(crate) lent: AtomicBool,
    /// Advice on memory may be given past the shim.
    pub(crate) advised: AtomicBool,
    /// A digest of the code that was searched. A forked child has the same code.
    pub(crate) searched: AtomicU64,
    /// When the program was last about to load code, or 0.
    pub(crate) loaded_ns: AtomicU64,
    /// Lent pages that stay, as a set and in the order of lending, and their total number.
    pub(crate) pages: PageSet,
    pub(crate) last: [AtomicU64; LENT_PAGES],
    pub(crate) count: AtomicUsize,
}

/// For `map_throttle`.
pub(crate) struct Throttle {
    /// Memory is full, but some will be freed; or it is unknown how much there is.
    pub(crate) full: AtomicBool,
    /// Small mappings are adopted as well.
    pub(crate) small_too: AtomicBool,
}

/// For `watchdog`.
pub(crate) struct Watchdog {
    /// Turns of the event loop.
    pub(crate) turns: AtomicU64,
    /// How often the guards were told to follow the program's credentials, and the last
    /// time that each did.
    pub(crate) called: AtomicU32,
    pub(crate) came: [AtomicU32; GUARDS],
    /// None of the program's pages is elsewhere, so the engine's end does no harm.
    pub(crate) not_needed: AtomicBool,
}

impl Offered {
    /// No file descriptor.
    pub(crate) const NONE: i32 = -1;

    const fn none() -> Offered {
        Offered {
            fd: AtomicI32::new(Self::NONE),
            inode: AtomicU64::new(0),
        }
    }
}

impl Threads {
    const fn new() -> Threads {
        Threads {
            evicted: Evicted {
                evicted: AtomicBool::new(false),
                lost: AtomicBool::new(false),
            },
            alive: Alive {
                alive: AtomicBool::new(false),
                poked: AtomicU32::new(0),
                wanted_now: AtomicBool::new(false),
                has_all: AtomicBool::new(false),
            },
            exclusion: Exclusion {
                delays: AtomicBool::new(false),
                reads: Gate(GateU32::new(0)),
                changes: Gate(GateU32::new(0)),
                moves: Gate(GateU32::new(0)),
                changed: AtomicU32::new(0),
            },
            doorbell: AtomicUsize::new(0),
            fork: Fork {
                forking: AtomicU32::new(0),
                quiescent_for: AtomicU32::new(0),
                is_child: AtomicBool::new(false),
                merges: AtomicBool::new(false),
                manifest: AtomicPtr::new(null_mut()),
            },
            handover: Handover {
                childs: Offered::none(),
                parents: Offered::none(),
                forks: AtomicU32::new(0),
                taken: AtomicU64::new(0),
                waiting: AtomicU32::new(0),
            },
            adoption: Adoption {
                asked: AtomicU32::new(0),
                answered: AtomicU32::new(0),
            },
            advice: Advice::new(),
            calls: Calls::new(),
            lending: Lending {
                lent: AtomicBool::new(false),
                advised: AtomicBool::new(false),
                searched: AtomicU64::new(0),
                loaded_ns: AtomicU64::new(0),
                pages: PageSet::new(),
                last: [const { AtomicU64::new(0) }; LENT_PAGES],
                count: AtomicUsize::new(0),
            },
            throttle: Throttle {
                full: AtomicBool::new(false),
                small_too: AtomicBool::new(false),
            },
            watchdog: Watchdog {
                turns: AtomicU64::new(0),
                called: AtomicU32::new(0),
                came: [const { AtomicU32::new(0) }; GUARDS],
                not_needed: AtomicBool::new(false),
            },
        }
    }

    /// Resets the state of the parent's engine and threads, of which only the thread that
    /// forked exists in the child. The child keeps:
    ///
    /// - `evicted`, which the child's engine or `fork::child` updates;
    /// - `fork.is_child` and `fork.manifest`, which `fork::child` uses, and `fork.merges`;
    /// - the ends in `handover`, of which the child takes one;
    /// - the pages that must stay, and the kinds of advice that were given (`advice`);
    /// - what the program has given up, lent or advised, and which code was searched.
    pub(crate) fn reset_after_fork(&self) {
        self.alive.alive.store(false, Release);
        self.alive.wanted_now.store(false, Release);
        self.alive.has_all.store(false, Release);
        self.exclusion.changed.store(0, Relaxed);
        self.exclusion.delays.store(false, Relaxed);
        self.exclusion.reads.reset_after_fork();
        self.exclusion.changes.reset_after_fork();
        self.exclusion.moves.reset_after_fork();
        self.doorbell.store(0, SeqCst);
        self.handover.waiting.store(0, Relaxed);
        self.fork.forking.store(0, SeqCst);
        self.fork.quiescent_for.store(0, SeqCst);
        self.adoption.asked.store(0, Relaxed);
        self.adoption.answered.store(0, Relaxed);
        self.advice.reset_after_fork();
        self.calls.reset_after_fork();
        self.lending.reset_after_fork();
        self.throttle.full.store(false, Relaxed);
        self.throttle.small_too.store(false, Relaxed);
        self.watchdog.turns.store(0, Relaxed);
        self.watchdog.called.store(0, Relaxed);
        self.watchdog
            .came
            .iter()
            .for_each(|came| came.store(0, Relaxed));
        self.watchdog.not_needed.store(false, Relaxed);
    }
}

impl Lending {
    /// Clears the lent pages: no pipe shows what the child writes to its copies.
    pub(crate) fn reset_after_fork(&self) {
        self.pages.clear();
        for page in &self.last {
            page.store(0, SeqCst);
        }
    }
}
