//! What threads of the program leave for the engine when they call it: for `calls`.

use crate::atomic::{AtomicU32 as InboxU32, AtomicU64 as InboxU64, AtomicUsize as InboxUsize};
use crate::inbox::{Inbox, Node};
use crate::page_set::PageSet;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// The pages of the doorbell: a pair for each kind of call.
pub(crate) mod bell {
    pub(crate) const QUIESCE: usize = 0;
    pub(crate) const RESUME: usize = 1;
    pub(crate) const MINCORE: usize = 2;
    pub(crate) const RELINQUISH: usize = 3;
    pub(crate) const ADVICE: usize = 4;
    pub(crate) const CREDENTIALS: usize = 5;
    pub(crate) const LEAVE: usize = 6;
    pub(crate) const POPULATE: usize = 7;
}

/// The most entries of the advice log that the engine has not read yet.
pub(crate) const ADVICE_ROOM: usize = 1024;
/// The most threads that can access memory through a file descriptor at a time.
pub(crate) const ACCESSES: usize = 16;
/// The most pages that one engine call for `mincore` asks for.
pub(crate) const MINCORE_PAGES: usize = 4096;

/// For `calls::advice`.
pub(crate) struct Advice {
    pub(crate) inbox: Inbox<ADVICE_ROOM>,
    pub(crate) question: Question,
    /// Pages that must stay in memory.
    pub(crate) staying: PageSet,
    /// Other pages must stay, too, but could not be noted. Then nothing leaves.
    pub(crate) others_stay: AtomicBool,
    /// Whether the program has ever asked to wipe ranges, or to withhold them.
    pub(crate) wipes: Ever,
    pub(crate) withholds: Ever,
}

/// Whether an advice was ever given on a range that is large enough to be adopted by
/// itself, and on a smaller one.
pub(crate) struct Ever {
    pub(crate) large: AtomicBool,
    pub(crate) small: AtomicBool,
}

/// One kind of engine call.
pub(crate) struct Question {
    /// Its pages of the doorbell.
    pub(crate) bell: usize,
    /// Held by the thread that calls.
    pub(crate) taken: AtomicU32,
    /// Number of calls, and of answers.
    pub(crate) asked: AtomicU32,
    pub(crate) answered: AtomicU32,
}

/// For the other files of `calls`, and for `reclaim::zap_worker`.
pub(crate) struct Calls {
    pub(crate) relinquish: Relinquish,
    pub(crate) mincore: Mincore,
    pub(crate) populate: Populate,
    pub(crate) credentials: Credentials,
    /// The program is about to end, so no helper is started any more that would outlive it.
    pub(crate) leaving: AtomicBool,
    pub(crate) leave: Question,
    /// Addresses of the pages that threads are accessing, or 0.
    pub(crate) accessed: [AtomicUsize; ACCESSES],
}

/// For `calls::relinquish`: the range, how often it was searched for zeros, and the answer.
pub(crate) struct Relinquish {
    pub(crate) question: Question,
    pub(crate) start: AtomicUsize,
    pub(crate) len: AtomicUsize,
    pub(crate) zeros: AtomicU32,
    pub(crate) outcome: AtomicU32,
}

/// For `calls::mincore`: the first page, the number of pages, and one bit for each that is
/// resident.
pub(crate) struct Mincore {
    pub(crate) question: Question,
    pub(crate) first: AtomicU64,
    pub(crate) count: AtomicU32,
    pub(crate) answer: [AtomicU64; MINCORE_PAGES / 64],
}

/// For `calls::mem_file`: the page to populate, and the answer.
pub(crate) struct Populate {
    pub(crate) question: Question,
    pub(crate) wanted: AtomicUsize,
    pub(crate) answer: AtomicU32,
}

/// For `calls::credentials`.
pub(crate) struct Credentials {
    pub(crate) question: Question,
    /// The thread whose credentials count.
    pub(crate) whom: AtomicU32,
    /// The program, or the process that it was forked from, has given up rights.
    pub(crate) given_up: AtomicBool,
    /// The engine's tasks have no rights that they could give up.
    pub(crate) is_plain: AtomicBool,
    /// The user was told that the engine cannot follow.
    pub(crate) said: AtomicBool,
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

    /// Resets the call, since the thread that made it does not exist in the child.
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

impl Advice {
    pub(super) const fn new() -> Advice {
        Advice {
            inbox: Inbox {
                last: InboxU32::new(0),
                free: InboxU64::new(0),
                used: InboxU32::new(0),
                nodes: [const {
                    Node {
                        before: InboxU32::new(0),
                        words: [const { InboxUsize::new(0) }; 3],
                    }
                }; ADVICE_ROOM],
            },
            question: Question::new(bell::ADVICE),
            staying: PageSet::new(),
            others_stay: AtomicBool::new(false),
            wipes: Ever::new(),
            withholds: Ever::new(),
        }
    }

    /// Resets the log and the call, and keeps which advice was given.
    pub(super) fn reset_after_fork(&self) {
        self.inbox.reset_after_fork();
        self.question.reset_after_fork();
    }
}

impl Calls {
    pub(super) const fn new() -> Calls {
        Calls {
            relinquish: Relinquish {
                question: Question::new(bell::RELINQUISH),
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                zeros: AtomicU32::new(0),
                outcome: AtomicU32::new(0),
            },
            mincore: Mincore {
                question: Question::new(bell::MINCORE),
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
        }
    }

    /// Resets all calls, and keeps what the program has given up.
    pub(super) fn reset_after_fork(&self) {
        self.relinquish.question.reset_after_fork();
        self.mincore.question.reset_after_fork();
        self.populate.question.reset_after_fork();
        self.credentials.question.reset_after_fork();
        self.credentials.is_plain.store(false, Relaxed);
        self.leaving.store(false, Relaxed);
        self.leave.reset_after_fork();
        for place in &self.accessed {
            place.store(0, SeqCst);
        }
    }
}
