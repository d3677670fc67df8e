//! What threads of the program and the engine share: one structure, of atomics and of
//! structures that consist of them.
//!
//! Each part is used by the module that is named beside it, and by no other. A forked
//! child has a copy of all of it, in which [`Threads::reset_after_fork`] resets what says
//! how the parent's engine and its other threads stood.
//!
//! Elsewhere are only what the kernel's or the shim's code reaches by itself: the figures
//! and what `tmem run` shares, which are in memory of their own, `exclusion::COPYING`
//! and `exclusion::REPORTED`, which the shim's entries read by their symbols, and what `sys`
//! keeps.

use crate::atomic::{AtomicU32 as GateU32, AtomicU64 as InboxU64, AtomicUsize as InboxUsize};
use crate::engine::fork::manifest::ForkManifest;
use crate::gate::Gate;
use crate::inbox::{Inbox, Node};
use crate::page_set::PageSet;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

/// What can be asked by the doorbell, and which of its pages are for it, in pairs.
pub(crate) mod bell {
    pub(crate) const HOLD: usize = 0;
    pub(crate) const GO_ON: usize = 1;
    pub(crate) const LOOK: usize = 2;
    pub(crate) const RELINQUISH: usize = 3;
    pub(crate) const ASKS: usize = 4;
    pub(crate) const CREDENTIALS: usize = 5;
    pub(crate) const LEAVE: usize = 6;
    pub(crate) const POPULATE: usize = 7;
}

/// Requests of `calls::advice` that the engine has not read yet.
pub(crate) const ADVICE_ROOM: usize = 1024;
/// Threads that can access memory through a descriptor at a time.
pub(crate) const ACCESSES: usize = 16;
/// Lent pages that stay: what two pipes hold of the largest size that an ordinary user may
/// set.
pub(crate) const LENT_PAGES: usize = 512;
/// Pages that are asked for by `mincore` at a time.
pub(crate) const MINCORE_PAGES: usize = 4096;

/// Guards of an engine that is a process of its own.
pub(crate) const GUARDS: usize = 2;

/// All that threads share.
pub(crate) static THREADS: Threads = Threads::new();

/// Held by a test that uses [`THREADS`], of which there is one for all tests of a process.
#[cfg(test)]
static TESTED: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// In a test: waits until [`THREADS`] is no other test's.
#[cfg(test)]
pub(crate) fn for_this_test() -> std::sync::MutexGuard<'static, ()> {
    TESTED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What threads share, by the module that uses it.
pub(crate) struct Threads {
    pub(crate) evicted: Evicted,
    pub(crate) alive: Alive,
    pub(crate) exclusion: Exclusion,
    /// Where the pages of the doorbell are; 0 without an engine.
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

/// For `evicted`: whether pages are not in memory.
pub(crate) struct Evicted {
    pub(crate) evicted: AtomicBool,
    pub(crate) lost: AtomicBool,
}

/// For `alive`: whether there is an engine, and how far it is.
pub(crate) struct Alive {
    /// There is an engine that has begun, or will.
    pub(crate) alive: AtomicBool,
    /// How often somebody has wanted it to look while it watches.
    pub(crate) poked: AtomicU32,
    /// The engine is to have by now what it will need.
    pub(crate) wanted_now: AtomicBool,
    /// It has.
    pub(crate) has_all: AtomicBool,
}

/// For `exclusion`.
pub(crate) struct Exclusion {
    /// Memory has to be zapped before more is read.
    pub(crate) hold: AtomicBool,
    /// Threads that read directly are inside.
    pub(crate) reads: Gate,
    /// Threads that change the address space are inside.
    pub(crate) changes: Gate,
    /// How often a thread was about to change the address space.
    pub(crate) changed: AtomicU32,
}

/// For `fork`.
pub(crate) struct Fork {
    /// Forks asked for, times two; odd while one is under way.
    pub(crate) forking: AtomicU32,
    /// The value of `forking` that the engine holds for.
    pub(crate) held: AtomicU32,
    /// This process was forked from another that has an engine.
    pub(crate) is_child: AtomicBool,
    /// What a child inherits, while the engine holds.
    pub(crate) manifest: AtomicPtr<ForkManifest>,
}

/// For `fork::handover`.
pub(crate) struct Handover {
    /// The child's end of the pair, and the parent's.
    pub(crate) childs: Offered,
    pub(crate) parents: Offered,
    /// The thread that forks while the engine watches.
    pub(crate) forks: AtomicU32,
    /// Of the last pair whose end that has taken, the inode.
    pub(crate) taken: AtomicU64,
}

/// An end of the pair in the program's file table; no end while there is no fork.
pub(crate) struct Offered {
    pub(crate) fd: AtomicI32,
    pub(crate) inode: AtomicU64,
}

/// For `adopt`: how often threads asked for adoption, and how many of these were answered.
pub(crate) struct Adoption {
    pub(crate) asked: AtomicU32,
    pub(crate) answered: AtomicU32,
}

/// For `calls::advice`.
pub(crate) struct Advice {
    pub(crate) inbox: Inbox<ADVICE_ROOM>,
    pub(crate) question: Question,
    /// Pages that are to stay.
    pub(crate) staying: PageSet,
    /// There are others, of which it could not be noted which. Then none leaves.
    pub(crate) others_stay: AtomicBool,
    /// Whether the program has ever asked for ranges to be wiped, or withheld.
    pub(crate) wipes: Ever,
    pub(crate) withholds: Ever,
}

/// Whether something was ever asked for a range that may be adopted by itself, and for
/// one that may not, unless everything is.
pub(crate) struct Ever {
    pub(crate) large: AtomicBool,
    pub(crate) small: AtomicBool,
}

/// One kind of question that a thread asks the engine.
pub(crate) struct Question {
    /// Its page of the doorbell.
    pub(crate) bell: usize,
    /// Held by the thread that asks.
    pub(crate) taken: AtomicU32,
    /// How often it was asked, and how often answered.
    pub(crate) asked: AtomicU32,
    pub(crate) answered: AtomicU32,
}

/// For the other files of `calls`, and for `reclaim::zap_worker`.
pub(crate) struct Calls {
    pub(crate) relinquish: Relinquish,
    pub(crate) mincore: Mincore,
    pub(crate) populate: Populate,
    pub(crate) credentials: Credentials,
    /// The program is about to end: nothing is begun any more that would outlive it.
    pub(crate) leaving: AtomicBool,
    pub(crate) leave: Question,
    /// Addresses of the pages that threads are accessing; 0 for none.
    pub(crate) accessed: [AtomicUsize; ACCESSES],
}

/// For `calls::relinquish`: the range, how often zeros were looked for in it, and the answer.
pub(crate) struct Relinquish {
    pub(crate) question: Question,
    pub(crate) start: AtomicUsize,
    pub(crate) len: AtomicUsize,
    pub(crate) zeros: AtomicU32,
    pub(crate) outcome: AtomicU32,
}

/// For `calls::mincore`: the first page asked for, how many from there on, and a bit for
/// each page that there is.
pub(crate) struct Mincore {
    pub(crate) question: Question,
    pub(crate) first: AtomicU64,
    pub(crate) count: AtomicU32,
    pub(crate) answer: [AtomicU64; MINCORE_PAGES / 64],
}

/// For `calls::mem_file`: the page that is asked for, and the answer.
pub(crate) struct Populate {
    pub(crate) question: Question,
    pub(crate) wanted: AtomicUsize,
    pub(crate) answer: AtomicU32,
}

/// For `calls::credentials`.
pub(crate) struct Credentials {
    pub(crate) question: Question,
    /// The thread to follow.
    pub(crate) whom: AtomicU32,
    /// The program has given up something since it began, or the process before it.
    pub(crate) given_up: AtomicBool,
    /// The engine's tasks have nothing that they could give up.
    pub(crate) is_plain: AtomicBool,
    /// That the engine cannot follow was said.
    pub(crate) said: AtomicBool,
}

/// For `reclaim::lending` and `calls::lent_pages`.
pub(crate) struct Lending {
    /// A call that can lend pages has been made, or was about to be.
    pub(crate) lent: AtomicBool,
    /// Advice on memory may be given past the shim.
    pub(crate) advised: AtomicBool,
    /// Tells which code was searched, for a forked child, which has the same.
    pub(crate) searched: AtomicU64,
    /// When the program was about to load code last; 0 if it never was.
    pub(crate) loaded_ns: AtomicU64,
    /// Pages that were lent last, and stay; in which order they were; and how many in all.
    pub(crate) pages: PageSet,
    pub(crate) last: [AtomicU64; LENT_PAGES],
    pub(crate) count: AtomicUsize,
}

/// For `map_throttle`.
pub(crate) struct Throttle {
    /// More is resident than there may be, and it will become less; or it is not
    /// known how much there is.
    pub(crate) full: AtomicBool,
    /// Small mappings are adopted as well.
    pub(crate) small_too: AtomicBool,
}

/// For `watchdog`.
pub(crate) struct Watchdog {
    /// Turns that the engine has had.
    pub(crate) turns: AtomicU64,
    /// How often the guards were to follow the program's credentials, and how often each
    /// has.
    pub(crate) called: AtomicU32,
    pub(crate) came: [AtomicU32; GUARDS],
    /// Nothing of the program is elsewhere: the engine may end without it.
    pub(crate) not_needed: AtomicBool,
}

impl Question {
    const fn new(bell: usize) -> Question {
        Question {
            bell,
            taken: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
        }
    }

    /// Whoever was asking is not there.
    fn reset_after_fork(&self) {
        self.taken.store(0, Release);
        self.answered.store(self.asked.load(Acquire), Release);
    }
}

impl Ever {
    const fn new() -> Ever {
        Ever {
            large: AtomicBool::new(false),
            small: AtomicBool::new(false),
        }
    }
}

impl Offered {
    /// No descriptor.
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
                hold: AtomicBool::new(false),
                reads: Gate(GateU32::new(0)),
                changes: Gate(GateU32::new(0)),
                changed: AtomicU32::new(0),
            },
            doorbell: AtomicUsize::new(0),
            fork: Fork {
                forking: AtomicU32::new(0),
                held: AtomicU32::new(0),
                is_child: AtomicBool::new(false),
                manifest: AtomicPtr::new(null_mut()),
            },
            handover: Handover {
                childs: Offered::none(),
                parents: Offered::none(),
                forks: AtomicU32::new(0),
                taken: AtomicU64::new(0),
            },
            adoption: Adoption {
                asked: AtomicU32::new(0),
                answered: AtomicU32::new(0),
            },
            advice: Advice {
                inbox: Inbox {
                    last: GateU32::new(0),
                    free: InboxU64::new(0),
                    used: GateU32::new(0),
                    nodes: [const {
                        Node {
                            before: GateU32::new(0),
                            words: [const { InboxUsize::new(0) }; 3],
                        }
                    }; ADVICE_ROOM],
                },
                question: Question::new(bell::ASKS),
                staying: PageSet::new(),
                others_stay: AtomicBool::new(false),
                wipes: Ever::new(),
                withholds: Ever::new(),
            },
            calls: Calls {
                relinquish: Relinquish {
                    question: Question::new(bell::RELINQUISH),
                    start: AtomicUsize::new(0),
                    len: AtomicUsize::new(0),
                    zeros: AtomicU32::new(0),
                    outcome: AtomicU32::new(0),
                },
                mincore: Mincore {
                    question: Question::new(bell::LOOK),
                    first: AtomicU64::new(0),
                    count: AtomicU32::new(0),
                    answer: [const { AtomicU64::new(0) }; MINCORE_PAGES / 64],
                },
                populate: Populate {
                    question: Question::new(bell::POPULATE),
                    wanted: AtomicUsize::new(0),
                    answer: AtomicU32::new(0),
                },
                credentials: Credentials {
                    question: Question::new(bell::CREDENTIALS),
                    whom: AtomicU32::new(0),
                    given_up: AtomicBool::new(false),
                    is_plain: AtomicBool::new(false),
                    said: AtomicBool::new(false),
                },
                leaving: AtomicBool::new(false),
                leave: Question::new(bell::LEAVE),
                accessed: [const { AtomicUsize::new(0) }; ACCESSES],
            },
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

    /// In a process that was just forked: the engine, and all threads but the one that
    /// forked, are not there, and what they were doing is not under way. What is reset
    /// here says how these stood. The rest is the child's as well:
    ///
    /// - `evicted`: the child's own engine sees to it, or `fork::child`;
    /// - `fork.is_child` and `fork.manifest`, which `fork::child` sees to;
    /// - `handover`: the child takes its end from there;
    /// - which pages stay, and what was asked of ranges (`advice`);
    /// - what the program has given up, lent or advised, and which code was searched.
    pub(crate) fn reset_after_fork(&self) {
        self.alive.alive.store(false, Release);
        self.alive.wanted_now.store(false, Release);
        self.alive.has_all.store(false, Release);
        self.exclusion.changed.store(0, Relaxed);
        self.exclusion.hold.store(false, Relaxed);
        self.exclusion.reads.reset_after_fork();
        self.exclusion.changes.reset_after_fork();
        self.doorbell.store(0, SeqCst);
        self.fork.forking.store(0, SeqCst);
        self.fork.held.store(0, SeqCst);
        self.adoption.asked.store(0, Relaxed);
        self.adoption.answered.store(0, Relaxed);
        self.advice.inbox.reset_after_fork();
        self.advice.question.reset_after_fork();
        self.calls.relinquish.question.reset_after_fork();
        self.calls.mincore.question.reset_after_fork();
        self.calls.populate.question.reset_after_fork();
        self.calls.credentials.question.reset_after_fork();
        self.calls.credentials.is_plain.store(false, Relaxed);
        self.calls.leaving.store(false, Relaxed);
        self.calls.leave.reset_after_fork();
        for place in &self.calls.accessed {
            place.store(0, SeqCst);
        }
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
    /// What the child writes to its pages no pipe shows.
    pub(crate) fn reset_after_fork(&self) {
        self.pages.clear();
        for page in &self.last {
            page.store(0, SeqCst);
        }
    }
}
