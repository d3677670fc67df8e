//! Sends reads to servers, and gives up pages that no server can return.

use crate::ServerId;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::requests::{Elsewhere, Op, Read};
use crate::frame_number::FrameNumber;
use crate::net::{At, Lane};
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
use tmem_policy::replica;
use tmem_wire::PAGE_SIZE;

/// Reads a run of consecutive slots. `asked_ns` is the time of the fault if a thread waits.
pub(crate) fn read(
    m: &mut Memory,
    run: &[(PageNumber, Slot, FrameNumber)],
    asked_ns: Option<u64>,
    marker: Option<PageNumber>,
) {
    if asked_ns.is_none() {
        let ahead = &m.report.stats.prefetched_pages;
        ahead.fetch_add(run.len() as u64, Relaxed);
    }
    let how = How {
        asked_ns,
        marker,
        ..How::default()
    };
    ask_for(m, run, how, Lane::Demand);
}

/// How pages are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// See [`Read`].
    pub(crate) asked_ns: Option<u64>,
    pub(crate) marker: Option<PageNumber>,
    pub(crate) tries: u8,
    pub(crate) elsewhere: Elsewhere,
}

/// No server has the page.
const NOWHERE: At = At {
    server: ServerId::new(u16::MAX),
    slab: u32::MAX,
    page: 0,
};

/// Neighbouring pages are asked of the same server, up to so many.
const TOGETHER: u64 = 128;

/// The server to ask for a page, of those that have it and were not asked yet.
pub(crate) fn choose(m: &mut Memory, slot: Slot, elsewhere: &Elsewhere) -> Option<At> {
    let net = &m.backing.net;
    let places = m.backing.slots.readable(slot);
    let mut is_new = places.filter(|at| !elsewhere.has(at.server));
    let Some(first) = is_new.next() else {
        let mut others = m.backing.slots.readable_already(slot);
        return others.find(|at| !elsewhere.has(at.server));
    };
    let Some(second) = is_new.next() else {
        return Some(first);
    };
    let mut all = [first, second, first];
    let mut count = 2;
    if let Some(third) = is_new.next() {
        (all[2], count) = (third, 3);
    }
    let waits = all.map(|at| net.wait_ns(at.server));
    m.backing.turn += 1;
    let spread = slot.bits() / TOGETHER;
    let chosen = replica::choose(&waits[..count], m.backing.turn, spread);
    all.get(chosen).copied()
}

/// Asks for a run of consecutive slots, over one of the connections.
pub(crate) fn ask_for(
    m: &mut Memory,
    run: &[(PageNumber, Slot, FrameNumber)],
    how: How,
    lane: Lane,
) {
    let Some(&(_, slot, _)) = run.first() else {
        return;
    };
    for &(page, _, frame) in run {
        m.pool.put(frame, Kind::ReadIn, page);
        m.pages.update(page, |p| p.state = State::ReadIn(frame));
    }
    let frames: Vec<FrameNumber> = run.iter().map(|r| r.2).collect();
    let addrs: Vec<usize> = frames.iter().map(|f| m.pool.addr(*f)).collect();
    let at = choose(m, slot, &how.elsewhere).unwrap_or(NOWHERE);
    let token = m.backing.requests.add(Op::Read(Read {
        frames,
        marker: how.marker,
        asked_ns: how.asked_ns,
        server: at.server,
        tries: how.tries,
        elsewhere: how.elsewhere,
    }));
    // SAFETY: nobody uses a frame of kind `ReadIn` until the read has ended.
    unsafe {
        m.backing.net.read(lane, token, at, &addrs);
    };
}

/// Gives up a page that its server does not return. The page is lost unless the compressed
/// cache has a copy.
pub(crate) fn lose(m: &mut Memory, reclaim: &mut Reclaim, page: PageNumber, frame: FrameNumber) {
    let mut entry = m.pages.get(page);
    m.backing.free_slot(entry.slot.take());
    m.pages.set(page, &entry);
    let wanted = entry.has_waiters;
    if reclaim.restore(m, page, &entry, frame).is_some() {
        if wanted {
            m.faults.recall(page);
        }
        return;
    }
    m.pool.put(frame, Kind::Free, None);
    entry.state = State::Lost;
    entry.has_waiters = false;
    m.pages.set(page, &entry);
    // The loss is noted before the page stops to count as remote: a child that is forked in
    // between must not read zeros there.
    m.lost_some(1);
    m.count_remote(-1);
    if wanted {
        // Threads that wait fault again, and are told.
        m.mover.kernel().wake(addr(page), PAGE_SIZE);
    }
}

/// Restores pages that are only in the compressed cache into frames, from where they are
/// written to another server.
pub(crate) fn place_rescued(m: &mut Memory, reclaim: &mut Reclaim) {
    while let Some(page) = reclaim.cache.rescued() {
        let entry = m.pages.get(page);
        if entry.state == State::Remote && entry.slot.is_none() {
            // A fork waits for all of them.
            let forking = m.is_forking();
            let Some((frame, _)) = reclaim.take_frames(m, 1, forking) else {
                return;
            };
            if reclaim.restore(m, page, &entry, frame).is_none() {
                lose(m, reclaim, page, frame);
            }
        }
        reclaim.cache.has_been_rescued();
    }
}
