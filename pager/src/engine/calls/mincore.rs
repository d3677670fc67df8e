//! Tells threads of the program which of their pages there are (`mincore`): those
//! that are elsewhere, which the kernel takes for absent, are as good as there.
//!
//! What the engine says is of one moment: between two looks at the kernel's answer
//! and at the engine's a page might be in neither. It counts what is present as well.

use crate::engine::Engine;
use crate::engine::calls::engine_call::Question;
use crate::engine::fork::LOOK;
use crate::engine::memory::events::page;
use crate::pages::State;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};
use tmem_wire::PAGE_SIZE;

/// Pages that are asked for at a time.
const MOST: usize = 4096;

static QUESTION: Question = Question::new(LOOK);
/// The first page asked for, and how many from there on.
static FIRST: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
/// A bit for each page that there is.
static ANSWER: [AtomicU64; MOST / 64] = [const { AtomicU64::new(0) }; MOST / 64];

/// Calls `there` with the index of each of `pages` pages from `start` on that is
/// in the program, or was taken out of it. Called by threads of the program, with
/// signals blocked.
pub fn pages_there(start: usize, pages: usize, mut there: impl FnMut(usize)) {
    for from in (0..pages).step_by(MOST) {
        let count = MOST.min(pages - from);
        let turn = QUESTION.turn();
        FIRST.store(page(start) + from as u64, Relaxed);
        COUNT.store(count as u32, Relaxed);
        // Without an engine there is nothing to add.
        let answered = turn.ask();
        let found: [u64; MOST / 64] = core::array::from_fn(|w| match answered {
            true => ANSWER[w].load(Relaxed),
            false => 0,
        });
        drop(turn);
        (0..count)
            .filter(|at| found[at / 64] >> (at % 64) & 1 != 0)
            .for_each(|at| there(from + at));
    }
}

/// In a process that was just forked: whoever was asking is not there.
pub(crate) fn begin_anew() {
    QUESTION.begin_anew();
}

impl Engine {
    /// Answers who asks.
    pub(crate) fn answer_looks(&mut self) {
        QUESTION.answer(|| self.look());
    }

    fn look(&self) {
        let (first, count) = (FIRST.load(Relaxed), COUNT.load(Relaxed) as usize);
        let mut bits = [0u64; MOST / 64];
        let mut set = |at: usize| bits[at / 64] |= 1 << (at % 64);
        for at in 0..count {
            if self.pages.get(first + at as u64).state != State::Local {
                set(at);
            }
        }
        let start = crate::engine::fault::addr(first);
        let mut present = Vec::new();
        // Without the kernel's answer that of `mincore` has to do.
        let _ = self
            .kernel
            .present(start, start + count * PAGE_SIZE, &mut present);
        for run in present {
            ((run.start - start) / PAGE_SIZE..(run.end - start) / PAGE_SIZE).for_each(&mut set);
        }
        for (word, bits) in ANSWER.iter().zip(bits) {
            word.store(bits, Relaxed);
        }
    }
}
