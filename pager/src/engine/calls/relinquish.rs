//! Relinquishes memory that the program registers with a userfaultfd of its own.
//!
//! A range can have only one userfaultfd, so the kernel refuses the program what tmem has
//! registered. The thread that was refused asks the engine to *relinquish* the range: all
//! of it returns into the program and is unregistered, and the program registers it. The
//! range stays local from then on, since the kernel now refuses it to tmem.
//!
//! Pages that the program has never touched must be absent, because it waits for faults
//! there. But the engine may have filled them ahead with zeros, and cannot tell these zeros
//! from the program's. So pages of zeros are removed again, and count as never touched.

use crate::engine::threads::THREADS;

use crate::engine::calls::engine_call::Turn;
use crate::engine::evicted::set_evicted;
use crate::engine::exclusion::ChangesBlocked;
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::engine::reclaim::Reclaim;
use crate::maps;
use crate::pages::State;
use crate::ranges::Ranges;
use crate::sys::{mem, thread};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Pause between two calls to the engine, in microseconds.
const NAP_US: u64 = 200;

/// How often to look for pages of zeros: some cannot be removed at once, and other threads
/// may fill more.
const LOOKS: u32 = 16;

const DONE: u32 = 0;
const WAIT: u32 = 1;
const REFUSED: u32 = 2;

/// A guard: relinquished memory is not adopted again while it lives.
pub struct Relinquished(#[expect(dead_code, reason = "is dropped")] Turn<'static>);

/// Relinquishes a range, so that all of it is local. Returns `None` if that is impossible,
/// because pages are lost or there is no engine. Called by threads of the program.
pub fn relinquish(range: &Range<usize>) -> Option<Relinquished> {
    let turn = THREADS.calls.relinquish.question.turn();
    THREADS.calls.relinquish.start.store(range.start, Relaxed);
    THREADS.calls.relinquish.len.store(range.len(), Relaxed);
    THREADS.calls.relinquish.zeros.store(0, Relaxed);
    while turn.ask() {
        match THREADS.calls.relinquish.outcome.load(Relaxed) {
            DONE => return Some(Relinquished(turn)),
            WAIT => thread::rest_us(NAP_US),
            _ => return None,
        }
    }
    None
}

/// Returns the range that is being relinquished, as long as the program may not have
/// registered it yet.
pub(crate) fn under_way() -> Option<Range<usize>> {
    THREADS.calls.relinquish.question.is_taken().then(asked_for)
}

fn asked_for() -> Range<usize> {
    let start = THREADS.calls.relinquish.start.load(Relaxed);
    start..start + THREADS.calls.relinquish.len.load(Relaxed)
}

/// Answers a thread that asks.
pub(crate) fn answer(m: &mut Memory, reclaim: &mut Reclaim) {
    THREADS.calls.relinquish.question.answer(|| {
        THREADS
            .calls
            .relinquish
            .outcome
            .store(serve(m, reclaim, &asked_for()), Relaxed);
    });
}

fn serve(m: &mut Memory, reclaim: &mut Reclaim, range: &Range<usize>) -> u32 {
    if m.is_forking() || m.mover.is_changing() {
        return WAIT;
    }
    let parts = m.space.adopted().within(range);
    if parts.is_empty() {
        return DONE;
    }
    let (mut absent, mut lost) = (Vec::new(), false);
    for part in &parts {
        let pages = page(part.start)..page(part.end);
        m.pages.each_of(&pages, |page, entry| match entry.state {
            State::Local => {}
            State::Lost => lost = true,
            State::Pooled(_) | State::ReadIn(_) | State::Remote => absent.push(page),
        });
    }
    if lost {
        return REFUSED;
    }
    // Pinned pages do not leave again.
    let waits = !absent.is_empty();
    absent.into_iter().for_each(|page| m.pin(page));
    if waits || take_zeros_away(m, reclaim, &parts) {
        return WAIT;
    }
    // Threads that change the address space wait meanwhile.
    let _still = ChangesBlocked::begin();
    for part in parts {
        match m.mover.kernel().unregister(part.start, part.len()) {
            Ok(()) => relinquished(m, part),
            Err(Errno::AGAIN) => return WAIT,
            Err(_) => return REFUSED,
        }
    }
    DONE
}

/// Removes pages of zeros. Returns whether there were any. If a thread writes to one at
/// this moment, it returns like any evicted page.
fn take_zeros_away(m: &mut Memory, reclaim: &mut Reclaim, parts: &[Range<usize>]) -> bool {
    if THREADS.calls.relinquish.zeros.fetch_add(1, Relaxed) >= LOOKS {
        return false;
    }
    let mut present = Vec::new();
    for part in parts {
        // Without the kernel's answer they stay.
        let _ = m.mover.kernel().present(part.start, part.end, &mut present);
    }
    let mut any = false;
    // As at any eviction: a page that is written now is elsewhere for a moment.
    set_evicted(true);
    for run in present {
        let zeros = zeros(m, run.start, run.end);
        any |= !zeros.is_empty();
        for run in zeros.iter() {
            let mut left = 0;
            // Pages that cannot be evicted now stay.
            let _ = reclaim.evict_run(m, page(run.start), run.len() / PAGE_SIZE, &mut left);
            // Frees the frames for the pages that follow.
            reclaim.release(m, left);
        }
    }
    set_evicted(m.residency.remote() > 0);
    any
}

/// Finds the pages of zeros of a range.
fn zeros(m: &Memory, start: usize, end: usize) -> Ranges {
    let mut zeros = Ranges::default();
    let mut bytes = alloc::boxed::Box::new([0u8; PAGE_SIZE]);
    let to = bytes.as_mut_ptr() as usize;
    for at in (start..end).step_by(PAGE_SIZE) {
        // SAFETY: the destination is the engine's own.
        let read = unsafe { m.mover.kernel().copy_out(at, to, PAGE_SIZE) };
        if read.is_ok() && mem::is_zero(&bytes) {
            zeros.insert(at..at + PAGE_SIZE);
        }
    }
    zeros
}

/// Forgets a range that was unregistered.
fn relinquished(m: &mut Memory, range: Range<usize>) {
    let pages = page(range.start)..page(range.end);
    m.forget(&pages);
    m.pinned.forget(&pages);
    // Threads that waited here have been woken, and nothing can be installed here any more.
    m.faults.forget(&pages);
    let mut shown = alloc::vec![range.clone()];
    maps::subtract(&mut shown, &m.space.dontfork().iter().collect::<Vec<_>>());
    for part in shown {
        // An error means that the range is not mapped any more, so it cannot be copied
        // either.
        let _ = m
            .mover
            .kernel()
            .copied_by_forks(part.start, part.len(), true);
    }
    // Later changes of the range are not reported.
    m.space.remove(&range);
}
