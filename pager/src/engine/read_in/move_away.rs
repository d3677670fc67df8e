//! Moves pages away from servers that mean to end: reads them, and has them written to others.
//!
//! As many are under way as there is room for on the others: what is read and finds no place
//! would have to go into the program, beyond its budget. Without room they stay where they are.

use crate::ServerId;
use crate::engine::memory::Memory;
use crate::engine::memory::report::{WARN, program};
use crate::engine::read_in::read::{self, How};
use crate::engine::reclaim::Reclaim;
use crate::engine::writeback::room;
use crate::net::Lane;
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use alloc::format;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// Pages that are moved at a time.
const BATCH: usize = 128;

/// Entries of the page table looked at in one go, about a millisecond's worth.
const ENTRIES: usize = 1 << 16;

/// Moves some pages, if a server means to end and nothing more urgent is to be done.
pub(crate) fn move_away(m: &mut Memory, reclaim: &mut Reclaim, now: u64) {
    let Some(server) = m.backing.slots.draining().next() else {
        return;
    };
    let under_way = m.pool.pending_writeback() + m.backing.net.outstanding(Lane::Bulk);
    if m.is_forking() || m.has_asked_for_children() || under_way > BATCH {
        return;
    }
    let free = m.backing.slots.total_free() as usize;
    let room = free.saturating_sub(m.pool.pending_writeback());
    if room < BATCH {
        room::ask_for_slabs(m, now);
    }
    if room == 0 {
        let is_to_come = m.backing.grants.waiting() || !m.backing.slots.next_group().is_empty();
        if !is_to_come && m.backing.slots.used_on(server) > 0 {
            say_that_it_stays(m, server, now);
        }
        return;
    }
    let mut found: Vec<(PageNumber, Slot)> = Vec::new();
    let slots = &m.backing.slots;
    let next = m.pages.find(
        m.backing.drains.cursor,
        ENTRIES,
        room.min(BATCH),
        &mut found,
        |page, entry| {
            let slot = entry.slot.filter(|slot| slots.is_draining(*slot))?;
            Some((page, slot))
        },
    );
    m.backing.drains.cursor = next.unwrap_or_default();
    let mut run: Vec<(PageNumber, Slot)> = Vec::new();
    for (page, slot) in found {
        match m.pages.get(page).state {
            // It is written when it leaves again.
            State::Local => give_up(m, page, slot),
            State::Pooled(frame) if m.pool.kind(frame) == Kind::Standby => {
                give_up(m, page, slot);
                m.pool.queue_writeback(frame, page);
            }
            State::Remote => {
                let follows = run.last().is_none_or(|(_, last)| last.is_before(slot));
                if !follows && !read_run(m, reclaim, &mut run) {
                    // There are no frames now. What was found is found again.
                    return;
                }
                run.push((page, slot));
            }
            _ => {}
        }
    }
    read_run(m, reclaim, &mut run);
}

/// A page, which is at hand, has no place any more.
fn give_up(m: &mut Memory, page: PageNumber, slot: Slot) {
    m.pages.update(page, |p| p.slot = None);
    m.backing.free_slot(Some(slot));
}

/// Asks for a run of pages; whether there were frames for all.
fn read_run(m: &mut Memory, reclaim: &mut Reclaim, run: &mut Vec<(PageNumber, Slot)>) -> bool {
    let mut left = &run[..];
    while !left.is_empty() {
        let Some((frame, n)) = reclaim.take_frames(m, left.len(), false) else {
            break;
        };
        let (now, later) = left.split_at(n);
        let reads: Vec<_> = now
            .iter()
            .zip(frame.run(n))
            .map(|(&(page, slot), frame)| (page, slot, frame))
            .collect();
        read::ask_for(m, &reads, How::default(), Lane::Bulk);
        left = later;
    }
    let all = left.is_empty();
    run.clear();
    all
}

fn say_that_it_stays(m: &mut Memory, server: ServerId, now: u64) {
    if !m.backing.drains.tells(now) {
        return;
    }
    let (name, who) = (m.backing.net.name(server), program());
    let pages = m.backing.slots.used_on(server);
    let text = format!(
        "server {name} means to end, and no other has room for the {pages} pages of {who} that \
         are there: they stay; give the other servers more capacity, or name further ones"
    );
    m.report.say(WARN, &text);
}
