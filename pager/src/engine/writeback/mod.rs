//! Writes evicted pages to servers.

mod reuse;
pub(crate) mod room;

use crate::ServerId;
use crate::engine::memory::Memory;
use crate::engine::memory::report::{DEBUG, INFO, WARN};
use crate::engine::servers::requests::{Answers, Op, Write};
use crate::frame_number::FrameNumber;
use crate::net::{At, Lane, RequestError};
use crate::pool::Kind;
use crate::slots::Slot;
use crate::sys::now_ns;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::PageNumber;

/// The most pages of one write.
const RUN: usize = 128;

/// While threads wait for pages, writes are held back until this many can go together.
const CLUSTER: usize = 16;

/// Consecutive failed writes after which a slab is not used for new pages.
const SLAB_TRIES: u8 = 3;

/// Writes pending pages, as far as there is room.
pub(crate) fn start(m: &mut Memory) {
    if m.has_asked_for_children() || is_too_few(m) {
        return;
    }
    while m.pool.pending_writeback() > 0 && see_who_is_busy(m) {
        let mut batch: Vec<(FrameNumber, PageNumber, Option<Slot>)> = Vec::with_capacity(RUN);
        while batch.len() < RUN {
            let Some(frame) = m.pool.take_pending() else {
                break;
            };
            let Some(page) = m.pool.page(frame) else {
                // The program has given the page up.
                m.pool.put(frame, Kind::Free, None);
                continue;
            };
            m.pool.put(frame, Kind::Writeback, page);
            leave_place(m, page);
            batch.push((frame, page, m.pages.get(page).slot));
        }
        let bare = batch.iter().filter(|b| b.2.is_none()).count();
        let mut runs = Vec::new();
        m.backing.slots.alloc(bare, &mut runs);
        let mut fresh = runs
            .iter()
            .flat_map(|(slot, n)| (0..*n).map(|i| slot.offset(i)));
        let mut rest = Vec::new();
        batch.retain_mut(|item| {
            if item.2.is_none() {
                item.2 = fresh.next();
            }
            if item.2.is_none() {
                rest.push(item.0);
            }
            item.2.is_some()
        });
        let short = !rest.is_empty();
        for frame in rest.into_iter().rev() {
            m.pool.put_back_pending(frame);
        }
        write(m, &batch);
        if short && m.backing.slots.waits_for_turn() {
            return;
        }
        if short {
            room::ask_for_slabs(m, now_ns());
            if room::see_whether_full(m) {
                continue;
            }
            return;
        }
    }
}

/// Tells whether too few pages are pending. While a program asks for one page after
/// another, as many pages leave, and to write them one by one would cost it more than to
/// write several together.
fn is_too_few(m: &Memory) -> bool {
    let asks = m.faults.has_served_one() || m.backing.net.outstanding(Lane::Demand) > 0;
    let is_pressed = m.is_forking() || !m.faults.is_empty();
    m.pool.pending_writeback() < CLUSTER && asks && !is_pressed
}

/// Finds out which servers have enough writes under way: as many as keep the network busy,
/// but not so many that a read would wait long behind them. Returns whether any server can
/// take more.
fn see_who_is_busy(m: &mut Memory) -> bool {
    let mut any = !m.backing.net.any_up();
    for (server, speed) in m.backing.net.speeds() {
        let is_busy = m.backing.net.queued_at(server, Lane::Bulk) >= speed.queue();
        m.backing.slots.set_busy(server, is_busy);
        any |= !is_busy;
    }
    any
}

/// Frees the slot of a page if it is shared with another process, or if its server fails or
/// is slow.
fn leave_place(m: &mut Memory, page: PageNumber) {
    let slot = m.pages.get(page).slot;
    if slot.is_some_and(|slot| m.backing.slots.is_frozen(slot)) {
        m.pages.update(page, |p| p.slot = None);
        m.backing.free_slot(slot);
        return;
    }
    let forking = m.is_forking();
    if m.backing.leave_slow(slot, forking) {
        m.pages.update(page, |p| p.slot = None);
    }
}

/// Writes pages to their slots.
fn write(m: &mut Memory, batch: &[(FrameNumber, PageNumber, Option<Slot>)]) {
    let mut at = 0;
    while let Some(&(_, _, Some(first))) = batch.get(at) {
        let mut frames: Vec<FrameNumber> = Vec::new();
        let mut last = first;
        for &(frame, page, slot) in &batch[at..] {
            let Some(slot) = slot else { break };
            if !frames.is_empty() && !last.is_before(slot) {
                break;
            }
            last = slot;
            frames.push(frame);
            m.pages.update(page, |p| {
                p.slot = Some(slot);
                p.dirty = false;
            });
        }
        at += frames.len();
        let addrs: Vec<usize> = frames.iter().map(|f| m.pool.addr(*f)).collect();
        send(m, frames, first, &addrs);
    }
}

/// Sends pages to all servers that are to have them.
fn send(m: &mut Memory, frames: Vec<FrameNumber>, slot: Slot, addrs: &[usize]) {
    let to: Vec<At> = m.backing.slots.writable(slot).collect();
    let write = Write {
        answers: Answers::of(to.len()),
        fills: m.backing.slots.fills_begun(),
        frames,
        slot,
    };
    if to.is_empty() {
        // Its servers were lost meanwhile.
        return not_written(m, &write, None);
    }
    let count = write.frames.len() as u32;
    m.backing.repair.changes(&m.backing.slots, slot, count);
    let token = m.backing.requests.add(Op::Write(write));
    for at in to {
        // SAFETY: frames of kind `Writeback` do not change until the write has ended.
        unsafe { m.backing.net.write(token, at, addrs) };
    }
}

/// Handles a write that all servers have answered.
pub(crate) fn ended(m: &mut Memory, write: &Write) {
    match write.answers.outcome() {
        Ok(()) => {
            m.backing
                .slots
                .worked(write.slot, write.frames.len() as u32, write.fills);
            written(m, &write.frames);
        }
        Err(failed) => not_written(m, write, failed),
    }
}

/// Handles a successful write.
fn written(m: &mut Memory, frames: &[FrameNumber]) {
    let written = &m.report.stats.written_pages;
    written.fetch_add(frames.len() as u64, Relaxed);
    for &frame in frames {
        m.pool.must_be(frame, Kind::Writeback);
        match m.pool.page(frame) {
            None => m.pool.put(frame, Kind::Free, None),
            Some(page) if m.pages.get(page).slot.is_none() => {
                m.pool.queue_writeback(frame, page);
            }
            Some(page) => m.pool.put(frame, Kind::Standby, page),
        }
    }
}

/// Handles a failed write. The frames still hold the pages.
fn not_written(m: &mut Memory, write: &Write, failed: Option<(ServerId, RequestError)>) {
    if let Some((server, error)) = failed {
        fails(m, write, server, error);
    }
    for &frame in &write.frames {
        m.pool.must_be(frame, Kind::Writeback);
        match m.pool.page(frame) {
            None => m.pool.put(frame, Kind::Free, None),
            Some(page) => {
                let slot = m.pages.get(page).slot;
                m.pages.update(page, |p| p.slot = None);
                m.backing.free_slot(slot);
                m.pool.queue_writeback(frame, page);
            }
        }
    }
}

/// Counts a write that a server has refused, and reports it.
fn fails(m: &mut Memory, write: &Write, server: ServerId, error: RequestError) {
    let failed = m.backing.errors.write_failed(server, now_ns());
    let level = if failed.is_news { WARN } else { DEBUG };
    let is_sure = !error.is_transient();
    m.backing.slots.failed(write.slot, is_sure, SLAB_TRIES);
    let name = m.backing.net.called(server);
    let n = write.frames.len();
    m.report.say(
        level,
        &format!("{name} did not take {n} page(s): {error}; they are written again"),
    );
    if failed.rests {
        m.backing.slots.set_resting(server, true);
    }
    if failed.tells_of_rest {
        m.report.say(
            WARN,
            &format!(
                "{name} takes no pages ({error}): it keeps those that it has, others \
                 go elsewhere until it takes some again"
            ),
        );
    }
}

/// Notes that a server has accepted pages.
pub(crate) fn took(m: &mut Memory, server: ServerId) {
    if m.backing.errors.wrote(server) {
        let name = m.backing.net.called(server);
        m.report.say(INFO, &format!("{name} takes pages again"));
    }
}
