//! Sends reads to servers, and gives up pages that no server can return.

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::requests::{Op, Read};
use crate::frame_number::FrameNumber;
use crate::net::{At, Lane};
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;
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
    ask_for(m, run, asked_ns, marker, 0, Lane::Demand);
}

/// The same, after so many tries, over one of the connections.
pub(crate) fn ask_for(
    m: &mut Memory,
    run: &[(PageNumber, Slot, FrameNumber)],
    asked_ns: Option<u64>,
    marker: Option<PageNumber>,
    tries: u8,
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
    let server = slot.server();
    let token = m.backing.requests.add(Op::Read(Read {
        frames,
        marker,
        asked_ns,
        server,
        tries,
    }));
    let (slab, page) = m.backing.slots.address(slot).unwrap_or((u32::MAX, 0));
    let at = At { server, slab, page };
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
