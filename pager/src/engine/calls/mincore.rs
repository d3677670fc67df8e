//! Corrects `mincore`: evicted pages count as resident, although the kernel takes them for
//! absent.
//!
//! The engine's answer is about a single moment. If the kernel and the engine were asked
//! one after the other, a page that is moved in between could seem to be in neither place.
//! So the engine's answer includes the pages that are present.

use crate::engine::threads::{MINCORE_PAGES, THREADS};
use tmem_policy::PageNumber;

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::address::page;
use crate::pages::State;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// Calls `there` with the index of each of `pages` pages from `start` on that is present or
/// evicted. Called by threads of the program, with signals blocked.
pub fn pages_there(start: usize, pages: usize, mut there: impl FnMut(usize)) {
    for from in (0..pages).step_by(MINCORE_PAGES) {
        let count = MINCORE_PAGES.min(pages - from);
        let turn = THREADS.calls.mincore.question.turn();
        THREADS
            .calls
            .mincore
            .first
            .store((page(start) + from).get(), Relaxed);
        THREADS.calls.mincore.count.store(count as u32, Relaxed);
        // Without an engine nothing is evicted.
        let answered = turn.ask();
        let found: [u64; MINCORE_PAGES / 64] = core::array::from_fn(|w| match answered {
            true => THREADS.calls.mincore.answer[w].load(Relaxed),
            false => 0,
        });
        drop(turn);
        (0..count)
            .filter(|at| found[at / 64] >> (at % 64) & 1 != 0)
            .for_each(|at| there(from + at));
    }
}

/// Answers a thread that asks.
pub(crate) fn answer(m: &Memory) {
    THREADS.calls.mincore.question.answer(|| look(m));
}

fn look(m: &Memory) {
    let (first, count) = (
        PageNumber::new(THREADS.calls.mincore.first.load(Relaxed)),
        THREADS.calls.mincore.count.load(Relaxed) as usize,
    );
    let mut bits = [0u64; MINCORE_PAGES / 64];
    let mut set = |at: usize| bits[at / 64] |= 1 << (at % 64);
    for at in 0..count {
        if m.pages.get(first + at).state != State::Local {
            set(at);
        }
    }
    let start = addr(first);
    let mut present = Vec::new();
    // Without the kernel's answer, the thread has that of `mincore`.
    let _ = m
        .mover
        .kernel()
        .present(start, start + count * PAGE_SIZE, &mut present);
    for run in present {
        ((run.start - start) / PAGE_SIZE..(run.end - start) / PAGE_SIZE).for_each(&mut set);
    }
    for (word, bits) in THREADS.calls.mincore.answer.iter().zip(bits) {
        word.store(bits, Relaxed);
    }
}
