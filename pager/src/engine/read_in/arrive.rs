//! Handles pages that servers have sent.

use crate::engine::memory::Memory;
use crate::engine::memory::outcome::Stop;
use crate::engine::read_in::run::{Run, add};
use crate::engine::read_in::{Readahead, retry};
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::requests::Read;
use crate::net::RequestError;
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::mem;
use crate::sys::now_ns;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// Finishes a read. Returns how long a thread waited for it, in nanoseconds, if one did.
pub(crate) fn fetched(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    readahead: &mut Readahead,
    read: &Read,
    result: Result<(), RequestError>,
) -> Option<u64> {
    if let Err(error) = result {
        retry::not_fetched(m, reclaim, read, error);
        return None;
    }
    let fetched = &m.report.stats.fetched_pages;
    fetched.fetch_add(read.frames.len() as u64, Relaxed);
    let forking = m.is_forking();
    let mut wrong = Vec::new();
    let mut run = None;
    for &frame in &read.frames {
        m.pool.must_be(frame, Kind::ReadIn);
        let Some(page) = m.pool.page(frame) else {
            // The program has given the page up meanwhile.
            m.pool.put(frame, Kind::Free, None);
            continue;
        };
        let entry = m.pages.get(page);
        if entry.has_waiters && read.asked_ns.is_none() {
            m.faults.part();
        }
        // SAFETY: the read has ended, and nobody else uses the frame.
        let bytes = unsafe { mem::page(m.pool.addr(frame)) };
        if m.backing.digester.digest(bytes, None) != entry.hash {
            wrong.push(frame);
            continue;
        }
        if read.asked_ns.is_some() {
            readahead.note_pointer_page(m, page, bytes);
        }
        m.pages.update(page, |p| p.state = State::Pooled(frame));
        let moves = entry
            .slot
            .is_some_and(|slot| m.backing.slots.is_draining(slot));
        let stays = moves && !entry.has_waiters && !entry.ahead && read.asked_ns.is_none();
        if read.elsewhere.was_spoilt && !forking && entry.slot.is_some() {
            // It is written anew, since what another server has of it is wrong.
            m.backing.free_slot(entry.slot);
            m.report.stats.mended_pages.fetch_add(1, Relaxed);
            m.pages.update(page, |p| p.slot = None);
            m.pool.queue_writeback(frame, page);
        } else if m.backing.leave_slow(entry.slot, forking) {
            m.pages.update(page, |p| p.slot = None);
            m.pool.queue_writeback(frame, page);
        } else if entry.slot.is_some() {
            m.pool.put(frame, Kind::Standby, page);
        } else {
            // The page's server was lost while the answer was on its way.
            m.pool.queue_writeback(frame, page);
        }
        if stays || Some(page) == read.marker && !entry.has_waiters {
            continue;
        }
        if !add(&mut run, page, frame) {
            install_fetched(m, run);
            run = Some(Run::new(page, frame));
        }
    }
    install_fetched(m, run);
    let took = read
        .asked_ns
        .map(|asked_ns| now_ns().saturating_sub(asked_ns));
    if let (Some(took), Some(asked_ns)) = (took, read.asked_ns) {
        reclaim.cache.seen.asked.add(took);
        m.backing.net.waited_for(read.server, took);
        m.faults.set_served_one(true);
        m.report.served(asked_ns);
    }
    if !wrong.is_empty() {
        retry::spoilt(m, reclaim, read, &wrong);
    }
    took
}

/// Installs pages that were read in.
fn install_fetched(m: &mut Memory, run: Option<Run>) {
    let Some(Run { page, frame, n }) = run else {
        return;
    };
    let mut done = 0;
    while done < n {
        let (moved, stop) = m.install(page + done, frame + done, n - done);
        done += moved;
        let Some(stop) = stop else { continue };
        let at = page + done;
        if stop == Stop::Again {
            // The pages stay on standby. Threads that wait are served from there.
            for number in at.until(page + n) {
                if m.pages.get(number).has_waiters {
                    m.faults.recall(number);
                }
            }
            return;
        }
        m.not_installed(at, stop);
        done += 1;
    }
}
