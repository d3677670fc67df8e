//! Asks servers for room, and reports when there is none.

use crate::ServerId;
use crate::engine::memory::Memory;
use crate::engine::memory::report::{DEBUG, INFO, WARN};
use crate::engine::writeback::reuse::take_slots_back;
use crate::pages::State;
use crate::sys::now_ns;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// Asks for slabs before they are needed.
pub(crate) fn ask_for_slabs(m: &mut Memory, now: u64) {
    let want = (m.pool.pending_writeback() + m.residency.marks().pool) as u64;
    m.backing.grants.retry(&mut m.backing.slots, now);
    // The best servers are asked first.
    let group = m.backing.slots.next_group();
    let free = m.backing.slots.free_as_good_as(group);
    let coming = m.backing.grants.coming() / group.len().max(1) as u64;
    if free + coming < want {
        for server in group.iter() {
            let pages = u64::from(m.backing.slots.slab_pages(server)).max(1);
            let n = (want / 2).div_ceil(pages).clamp(1, 64) as u32;
            let bare = m.backing.slots.bare_slabs(server) as u32;
            ask(m, server, n.saturating_sub(bare));
        }
    }
    if let Some(server) = m.backing.slots.wants_slab_of() {
        ask(m, server, 1);
    }
}

/// Asks a server for slabs, unless an answer is to come already.
fn ask(m: &mut Memory, server: ServerId, slabs: u32) {
    let pages = u64::from(m.backing.slots.slab_pages(server)) * u64::from(slabs);
    if pages > 0 && m.backing.grants.ask(server, pages) {
        m.backing.net.grant(server, slabs);
    }
}

/// Gives back slabs in which nothing is, but for so many of each server.
pub(crate) fn give_slabs_back(m: &mut Memory, keep: usize) {
    let mut gone = Vec::new();
    if !m.backing.grants.waiting() {
        // Those that wait for others of their group to be granted are needed.
        m.backing.slots.give_up_bare(keep);
    }
    m.backing.slots.take_empty_slabs(keep, &mut gone);
    for (server, slabs) in gone {
        m.backing.net.release(server, &slabs);
    }
}

/// Returns how many of `n` pages have a slot, or can get one.
pub(crate) fn room_for(m: &mut Memory, n: usize) -> usize {
    if !m.backing.grants.short {
        return n;
    }
    let waiting = m.pool.pending_writeback();
    let free = |m: &Memory| (m.backing.slots.total_free() as usize).saturating_sub(waiting);
    let missing = n.saturating_sub(free(m));
    if missing > 0 {
        take_slots_back(m, missing);
    }
    let room = free(m).min(n);
    if room > 0 || !m.backing.grants.reuse.is_exhausted() {
        return room;
    }
    ask_for_slabs(m, now_ns());
    if !is_to_come(m) && !m.backing.errors.is_passing() {
        no_room(m);
    }
    0
}

/// Tells whether servers were asked for room, or can be.
fn is_to_come(m: &Memory) -> bool {
    m.backing.grants.waiting() || !m.backing.slots.next_group().is_empty()
}

/// Finds room for pending pages when servers grant none, by taking slots back from pages in
/// the program. Returns whether there is room now. If there is none at all, evicted pages
/// return to the program: it goes on in local memory, and nothing is lost.
pub(crate) fn see_whether_full(m: &mut Memory) -> bool {
    if m.pool.pending_writeback() == 0 || m.backing.slots.total_free() > 0 {
        return false;
    }
    let is_to_come = is_to_come(m);
    if is_to_come && !m.backing.grants.short {
        return false;
    }
    if take_slots_back(m, m.pool.pending_writeback()) > 0 {
        return true;
    }
    let goes_on = !m.backing.grants.reuse.is_exhausted() && !m.has_asked_for_children();
    if is_to_come || goes_on || m.backing.errors.is_passing() {
        return false;
    }
    m.report.say(
        DEBUG,
        &format!(
            "no room: {} pages in use, {} wait",
            m.backing.slots.used_pages(),
            m.pool.pending_writeback()
        ),
    );
    while let Some(frame) = m.pool.take_pending() {
        if let Some(page) = m.pool.page(frame)
            && m.pages.get(page).state == State::Pooled(frame)
            && m.install(page, frame, 1).1.is_some()
        {
            m.pool.put_back_pending(frame);
            break;
        }
    }
    no_room(m);
    false
}

/// Stops eviction, because no server has room, and reports it.
fn no_room(m: &mut Memory) {
    m.backing.grants.full = true;
    m.backing.grants.reuse.give_up();
    if m.backing.net.any_up() && m.backing.grants.tells(now_ns()) {
        let why = if m.backing.grants.is_for_lack_of_room() && !m.backing.errors.any_rests() {
            m.report.stats.servers_full.fetch_add(1, Relaxed);
            m.backing.who_is_full()
        } else {
            "no memory server takes pages now"
        };
        let cure = match m.backing.net.local() {
            Some(local) if local.index() == 0 => {
                "give it more memory (--local-tier) or a file (--spill), or name a memory server"
            }
            _ => "give the servers more capacity, or name further ones",
        };
        m.report.say(
            WARN,
            &format!(
                "{why}: until that changes, what has no place there stays local, beyond the \
                 program's budget; {cure}"
            ),
        );
    }
}

/// Allows eviction again when there is room. When servers are short, eviction is limited to
/// the free slots, so one is enough; otherwise there must be room for a whole round.
/// Reports when resident memory is within the budget again.
pub(crate) fn follow_room(m: &mut Memory) {
    let least = match m.backing.grants.short {
        true => 1,
        false => m.residency.marks().pool as u64,
    };
    if m.backing.slots.total_free() >= least {
        m.backing.grants.full = false;
    }
    let is_over = m.resident() > m.residency.marks().throttle;
    if !m.backing.grants.full && !is_over && m.backing.grants.tells_of_room() {
        m.report.say(
            INFO,
            "the memory servers take pages again, and the program's memory is within its \
             budget",
        );
    }
}

/// Distributes pages over the servers by their speed.
pub(crate) fn weigh_servers(m: &mut Memory) {
    let (servers, speeds): (Vec<ServerId>, Vec<_>) = m.backing.net.speeds().unzip();
    let shares = tmem_policy::placement::shares(&speeds);
    for (server, share) in servers.into_iter().zip(shares) {
        m.backing.slots.set_share(server, share);
    }
}
