//! Pages that the program's threads have stay in memory.
//!
//! When a thread ends, the kernel goes through the robust mutexes that it holds
//! and marks them. It does so without waiting for a page: those that are not
//! there are passed over, and who waits for such a mutex waits for ever.

use super::Engine;
use super::event::page;
use alloc::boxed::Box;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use core::sync::atomic::{AtomicPtr, AtomicUsize};

/// More are not kept in mind.
const MOST: usize = 1 << 20;

/// What was asked last. Nothing is ever taken out: a forked child reads it all
/// from its beginning.
static ASKED: AtomicPtr<Asked> = AtomicPtr::new(null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
pub(super) struct Asked {
    page: u64,
    before: *const Asked,
}

/// Has the page at `at` stay in memory until it is unmapped. Called by threads
/// of the program.
pub fn stay(at: usize) {
    if COUNT.fetch_add(1, AcqRel) >= MOST {
        return;
    }
    let asked = Box::leak(Box::new(Asked {
        page: page(at),
        before: ASKED.load(Acquire),
    }));
    while let Err(now) = ASKED.compare_exchange(
        asked.before.cast_mut(),
        core::ptr::from_mut(asked),
        AcqRel,
        Acquire,
    ) {
        asked.before = now;
    }
}

impl Engine {
    /// Keeps what was asked for since this was done last.
    pub(super) fn follow_stays(&mut self) {
        let last = ASKED.load(Acquire).cast_const();
        let mut at = last;
        // SAFETY: null, or what `stay` made and nobody changes or frees.
        while at != self.stays
            && let Some(asked) = unsafe { at.as_ref() }
        {
            self.pin(asked.page);
            at = asked.before;
        }
        self.stays = last;
    }
}
