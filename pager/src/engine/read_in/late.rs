//! Reads that take longer than nearly all others: their pages are asked of a second server
//! that has them, and the first answer counts.
//!
//! The second answer goes into a frame of its own, since the first may come at any time. A
//! frame whose answer is not needed any more is free once that has come.

use crate::engine::memory::Memory;
use crate::engine::read_in::read::choose;
use crate::engine::read_in::{Readahead, arrive};
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::requests::{Elsewhere, Op, Read, SecondRead};
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::mem;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;

/// Where there is no frame for a second answer, that is tried again after so long.
const AGAIN_NS: u64 = 1_000_000;

/// A thread waits for a page that has been asked for: sees to it that it is not late, if
/// another server has it.
pub(crate) fn watch(m: &mut Memory, page: PageNumber, since_ns: u64) {
    if m.backing.slots.copies() < 2 {
        return;
    }
    let Some(slot) = m.pages.get(page).slot else {
        return;
    };
    let mut servers = m.backing.slots.readable(slot).map(|at| at.server);
    if let (Some(first), Some(second)) = (servers.next(), servers.next()) {
        let net = &m.backing.net;
        let late_ns = net.late_ns(first).max(net.late_ns(second));
        m.backing.awaited.watch(page, since_ns + late_ns);
    }
}

/// Asks a second server for pages that are late.
pub(crate) fn look(m: &mut Memory, reclaim: &mut Reclaim, now: u64) {
    let pages = &m.pages;
    m.backing.awaited.drop_answered(|page| {
        let entry = pages.get(page);
        entry.has_waiters && matches!(entry.state, State::ReadIn(_))
    });
    while let Some(page) = m.backing.awaited.take_due(now) {
        let entry = m.pages.get(page);
        let (State::ReadIn(frame), Some(slot)) = (entry.state, entry.slot) else {
            continue;
        };
        if !entry.has_waiters {
            continue;
        }
        let Some(server) = m.backing.requests.server_of(frame) else {
            continue;
        };
        let mut elsewhere = Elsewhere::default();
        elsewhere.add(server);
        let Some(at) = choose(m, slot, &elsewhere) else {
            continue;
        };
        let Some((frame, _)) = reclaim.take_frames(m, 1, false) else {
            m.backing.awaited.watch(page, now + AGAIN_NS);
            return;
        };
        m.pool.put(frame, Kind::ReadIn, None);
        // It has taken so long at least.
        let late_ns = m.backing.net.late_ns(server);
        m.backing.net.waited_for(server, late_ns * 2);
        m.report.stats.late_pages.fetch_add(1, Relaxed);
        let token = m.backing.requests.add(Op::Second(SecondRead {
            page,
            slot,
            frame,
            server: at.server,
        }));
        let dest = [m.pool.addr(frame)];
        // SAFETY: frames of kind `ReadIn` are used by nobody until the read has ended.
        unsafe { m.backing.net.read(Lane::Demand, token, at, &dest) };
    }
}

/// A second server has answered: if the page is still waited for, this is it.
pub(crate) fn answered(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    readahead: &mut Readahead,
    second: &SecondRead,
    result: Result<(), RequestError>,
) {
    let SecondRead {
        page,
        slot,
        frame,
        server,
    } = *second;
    m.pool.must_be(frame, Kind::ReadIn);
    let entry = m.pages.get(page);
    // SAFETY: the read has ended, and nobody else knows the frame.
    let bytes = unsafe { mem::page(m.pool.addr(frame)) };
    let is_it = |m: &Memory| m.backing.digester.digest(bytes, None) == entry.hash;
    match entry.state {
        State::ReadIn(first) if entry.slot == Some(slot) && result.is_ok() && is_it(m) => {
            m.pool.set_page(first, None);
            m.pool.put(frame, Kind::ReadIn, page);
            m.pages.update(page, |p| p.state = State::ReadIn(frame));
            let read = Read {
                frames: alloc::vec![frame],
                marker: None,
                asked_ns: None,
                server,
                tries: 0,
                elsewhere: Elsewhere::default(),
            };
            arrive::fetched(m, reclaim, readahead, &read, Ok(()));
        }
        _ => m.pool.put(frame, Kind::Free, None),
    }
}
