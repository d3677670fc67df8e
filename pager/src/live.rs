//! What a process shows of itself while it runs, and what it is asked: words in memory that
//! `tmem run`, or the process alone, shares with who may look at the process.
//!
//! There is no thread for it and no socket. The engine writes what it knows where it has just
//! counted anyway, and looks ten times a second whether something is asked, as it looks at
//! other slow things: nobody's looking costs nothing, and a request never stands in the way of
//! a fault. Who may reach this memory is decided by the kernel: it has no name, only the
//! descriptors of `tmem run` or of the engine, which `/proc` opens for the owner of the
//! process and for root.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// What can be asked of an engine beside another budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Request {
    /// Have all leave that can.
    Evict = 1,
    /// Bring back what there is room for.
    Recall = 2,
}

/// Bits of a request's word below its number.
const KIND: u32 = 8;

/// One process. All zeros is its start.
#[repr(C, align(64))]
pub struct Live {
    /// The process, as its own PID namespace numbers it.
    pid: AtomicU32,
    /// Which of the shared slots has its figures.
    slot: AtomicU32,
    /// What it may have now, in bytes.
    budget: AtomicU64,
    /// What counts of it as resident, in bytes.
    resident: AtomicU64,
    /// What is on servers only, in bytes.
    remote: AtomicU64,
    /// What it uses again and again, in bytes; 0 when that is not known.
    working_set: AtomicU64,
    /// The budget that was asked for, in bytes; 0 for that of the start.
    wanted: AtomicU64,
    /// The last request: its number and what is asked.
    asked: AtomicU64,
    /// The number of the last request that was carried out.
    done: AtomicU64,
}

/// What a process shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The process, as its own PID namespace numbers it.
    pub pid: u32,
    /// Which of the shared slots has its figures.
    pub slot: u32,
    /// What it may have now, in bytes.
    pub budget: u64,
    /// What counts of it as resident, in bytes.
    pub resident: u64,
    /// What is on servers only, in bytes.
    pub remote: u64,
    /// What it uses again and again, in bytes, where that is known.
    pub working_set: Option<u64>,
}

impl Live {
    /// A process begins here.
    pub fn begin(&self, pid: u32, slot: u32) {
        for word in [
            &self.budget,
            &self.resident,
            &self.remote,
            &self.working_set,
        ] {
            word.store(0, Relaxed);
        }
        self.wanted.store(0, Relaxed);
        self.done.store(self.asked.load(Relaxed) >> KIND, Relaxed);
        self.slot.store(slot, Relaxed);
        self.pid.store(pid, Release);
    }

    /// There is no engine here any more.
    pub fn end(&self) {
        self.pid.store(0, Release);
    }

    /// What there is now, in bytes.
    pub fn show(&self, budget: u64, resident: u64, remote: u64) {
        self.budget.store(budget, Relaxed);
        self.resident.store(resident, Relaxed);
        self.remote.store(remote, Relaxed);
    }

    /// The working set was estimated, in bytes.
    pub fn show_working_set(&self, bytes: u64) {
        self.working_set.store(bytes, Relaxed);
    }

    /// What it shows.
    pub fn shown(&self) -> Shown {
        let working_set = self.working_set.load(Relaxed);
        Shown {
            pid: self.pid.load(Acquire),
            slot: self.slot.load(Relaxed),
            budget: self.budget.load(Relaxed),
            resident: self.resident.load(Relaxed),
            remote: self.remote.load(Relaxed),
            working_set: (working_set > 0).then_some(working_set),
        }
    }

    /// Gives it a budget of so many bytes.
    pub fn want(&self, bytes: u64) {
        self.wanted.store(bytes, Relaxed);
    }

    /// The budget that was asked for, in bytes.
    pub fn wanted(&self) -> Option<u64> {
        Some(self.wanted.load(Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Asks for something; the number by which it is known. What was asked before and not
    /// begun is not done any more.
    pub fn ask(&self, request: Request) -> u64 {
        let next = |word: u64| Some(((word >> KIND) + 1) << KIND | request as u64);
        let before = self.asked.fetch_update(Release, Relaxed, next);
        before.map_or(0, |word| (word >> KIND) + 1)
    }

    /// Whether a request was carried out, or a later one.
    pub fn is_done(&self, number: u64) -> bool {
        self.done.load(Acquire) >= number
    }

    /// The request that is to be carried out, and its number.
    pub(crate) fn asked(&self) -> Option<(u64, Request)> {
        let word = self.asked.load(Acquire);
        let number = word >> KIND;
        let request = match word as u8 {
            1 => Request::Evict,
            2 => Request::Recall,
            _ => return None,
        };
        (number > self.done.load(Relaxed)).then_some((number, request))
    }

    /// A request was carried out.
    pub(crate) fn set_done(&self, number: u64) {
        self.done.fetch_max(number, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        // SAFETY: all zeros is a valid value of every field, and is its start.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn what_is_asked_is_done_once() {
        let live = live();
        assert_eq!(live.asked(), None);
        let number = live.ask(Request::Evict);
        assert_eq!(live.asked(), Some((number, Request::Evict)));
        assert!(!live.is_done(number));
        let later = live.ask(Request::Recall);
        live.set_done(number);
        assert!(live.is_done(number) && !live.is_done(later));
        assert_eq!(live.asked(), Some((later, Request::Recall)));
        live.set_done(later);
        assert_eq!(live.asked(), None);
    }

    #[test]
    fn who_takes_the_place_of_another_is_not_asked_what_that_was() {
        let live = live();
        live.begin(7, 1);
        live.show(10, 20, 30);
        live.show_working_set(40);
        live.want(5);
        let number = live.ask(Request::Evict);
        live.begin(8, 2);
        assert_eq!((live.asked(), live.wanted()), (None, None));
        assert!(live.is_done(number));
        let shown = Shown {
            pid: 8,
            slot: 2,
            ..Shown::default()
        };
        assert_eq!(live.shown(), shown);
    }
}
