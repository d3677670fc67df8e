//! Finds room on servers for evicted pages, and writes them there.

use crate::engine::servers::requests::{Op, Write};
use crate::engine::{Engine, INFO, WARN};
use crate::net::{At, Lane};
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use crate::sys::now_ns;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// The most pages of one write.
const RUN: usize = 128;

/// As many pages are written together while a thread waits for one.
const CLUSTER: usize = 16;

impl Engine {
    /// Begins to write what waits for it, as far as there is room.
    pub(crate) fn place(&mut self) {
        if self.has_asked_for_children() || self.is_too_few() {
            return;
        }
        while !self.unplaced.is_empty() && self.see_who_is_busy() {
            let mut batch: Vec<(u32, u64, Option<Slot>)> = Vec::with_capacity(RUN);
            while batch.len() < RUN {
                let Some(frame) = self.unplaced.pop_front() else {
                    break;
                };
                // It may have gone back to the program in the meantime; and have
                // been filled again, so that it stands in line twice. Once it
                // is of another kind, the second time counts for nothing.
                if self.pool.kind(frame) == Kind::Unplaced {
                    let page = self.pool.page(frame);
                    self.pool.put(frame, Kind::Writing, page);
                    self.leave_place(page);
                    batch.push((frame, page, self.pages.get(page).slot));
                }
            }
            let bare = batch.iter().filter(|b| b.2.is_none()).count();
            let mut runs = Vec::new();
            self.slots.alloc(bare, &mut runs);
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
                let page = self.pool.page(frame);
                self.pool.put(frame, Kind::Unplaced, page);
                self.unplaced.push_front(frame);
            }
            self.write(&batch);
            if short && self.slots.waits_for_turn() {
                return;
            }
            if short {
                self.ask_for_slabs(now_ns());
                self.see_whether_full();
                return;
            }
        }
    }

    /// Whether it is too soon to write the few pages that wait for it: while a
    /// program asks for page after page, as many leave, and to write them one
    /// by one costs it more than to write some together.
    fn is_too_few(&self) -> bool {
        let asks = self.served_one || self.net.outstanding(Lane::Demand) > 0;
        let is_pressed = self.is_forking() || !self.faults.is_empty();
        self.unplaced.len() < CLUSTER && asks && !is_pressed
    }

    /// Sees to which servers enough is on its way: so much as keeps a network
    /// busy, and is little for a read to wait behind. Whether more can be sent to
    /// any.
    fn see_who_is_busy(&mut self) -> bool {
        let mut any = !self.net.any_up();
        for (server, speed) in self.net.speeds() {
            let is_busy = self.net.queued_at(server, Lane::Bulk) >= speed.queue();
            self.slots.set_busy(server, is_busy);
            any |= !is_busy;
        }
        any
    }

    /// A page that another process can read where it is, or that is on a server that
    /// fails, gets another place.
    fn leave_place(&mut self, page: u64) {
        let slot = self.pages.get(page).slot;
        if slot.is_some_and(|slot| self.slots.is_frozen(slot)) {
            self.pages.update(page, |p| p.slot = None);
            self.free_slot(slot);
        } else if self.leave_slow(slot) {
            self.pages.update(page, |p| p.slot = None);
        }
    }

    /// Gives up a page's place on a server that is far slower than others with room.
    /// The page, which is at hand, has no place then.
    pub(crate) fn leave_slow(&mut self, slot: Option<Slot>) -> bool {
        let is_slow = slot.is_some_and(|slot| self.slots.has_better(slot.server()));
        let leaves = is_slow && !self.is_forking();
        if leaves {
            self.free_slot(slot);
        }
        leaves
    }

    /// Writes pages to their slots.
    fn write(&mut self, batch: &[(u32, u64, Option<Slot>)]) {
        let mut at = 0;
        while let Some(&(_, _, Some(first))) = batch.get(at) {
            let mut frames: Vec<u32> = Vec::new();
            let mut last = first;
            for &(frame, page, slot) in &batch[at..] {
                let Some(slot) = slot else { break };
                if !frames.is_empty() && !last.is_before(slot) {
                    break;
                }
                last = slot;
                frames.push(frame);
                self.pages.update(page, |p| {
                    p.slot = Some(slot);
                    p.unsure = false;
                });
            }
            at += frames.len();
            let addrs: Vec<usize> = frames.iter().map(|f| self.pool.addr(*f)).collect();
            let (slab, page) = self.slots.address(first).unwrap_or((u32::MAX, 0));
            let server = first.server();
            let slot = first;
            let token = self.ops.add(Op::Write(Write { frames, slot }));
            // SAFETY: frames of kind `Writing` stay as they are until the
            // write has ended.
            unsafe { self.net.write(token, At { server, slab, page }, &addrs) };
        }
    }

    /// A server has the pages.
    pub(crate) fn written(&mut self, frames: &[u32]) {
        let written = &self.figures.written_pages;
        written.fetch_add(frames.len() as u64, Relaxed);
        for &frame in frames {
            self.must_be(frame, Kind::Writing);
            match self.pool.page(frame) {
                0 => self.pool.put(frame, Kind::Free, 0),
                page if self.pages.get(page).slot.is_none() => self.unplace(frame, page),
                page => self.pool.put(frame, Kind::Standby, page),
            }
        }
    }

    /// A request has ended that used a frame: what the frame holds must be what
    /// the request was for. To go on otherwise could be to take one page for
    /// another.
    pub(crate) fn must_be(&self, frame: u32, kind: Kind) {
        if self.pool.kind(frame) != kind {
            crate::sys::say::die(
                "a defect of tmem: a frame is not what it was taken for; the program is ended \
                 before it reads wrong data",
            );
        }
    }

    /// The page in a frame needs a new place.
    pub(crate) fn unplace(&mut self, frame: u32, page: u64) {
        self.pool.put(frame, Kind::Unplaced, page);
        self.unplaced.push_back(frame);
    }

    /// A slot is not needed any more.
    pub(crate) fn free_slot(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.free_slots(slot, 1);
        }
    }

    /// Slots that follow one another are not needed any more.
    pub(crate) fn free_slots(&mut self, first: Slot, n: u32) {
        if let Some((slab, page)) = self.slots.address(first) {
            let server = first.server();
            self.net.discard(At { server, slab, page }, n);
        }
        self.slots.free(first, n);
    }

    /// Asks for slabs before they are needed.
    pub(crate) fn ask_for_slabs(&mut self, now: u64) {
        let want = (self.unplaced.len() + self.budget.pool) as u64;
        self.grants.retry(&mut self.slots, now);
        // Of those that it would come to anyway the best is asked.
        while let Some(server) = self.slots.grant_target() {
            let free = self.slots.free_as_good_as(server);
            let pages = u64::from(self.slots.slab_pages(server)).max(1);
            let n = (want / 2).div_ceil(pages).clamp(1, 64) as u32;
            let is_enough = free + self.grants.coming() >= want;
            if is_enough || !self.grants.ask(server, u64::from(n) * pages) {
                return;
            }
            self.net.grant(server, n);
        }
    }

    /// Gives back slabs in which nothing is.
    pub(crate) fn give_slabs_back(&mut self) {
        let mut gone = Vec::new();
        self.slots.take_empty_slabs(4, &mut gone);
        for (server, slabs) in gone {
            self.net.release(server, &slabs);
        }
    }

    /// With no room left anywhere, what was evicted goes back: the program goes
    /// on in local memory, and nothing is lost.
    pub(crate) fn see_whether_full(&mut self) {
        if self.unplaced.is_empty()
            || self.slots.total_free() > 0
            || self.grants.waiting()
            || self.slots.grant_target().is_some()
            || self.troubles.is_passing()
        {
            return;
        }
        self.grants.full = true;
        self.say(
            crate::engine::DEBUG,
            &alloc::format!(
                "no room: {} pages in use, {} wait",
                self.slots.used_pages(),
                self.unplaced.len()
            ),
        );
        while let Some(frame) = self.unplaced.pop_front() {
            if self.pool.kind(frame) != Kind::Unplaced {
                continue;
            }
            let page = self.pool.page(frame);
            if self.pages.get(page).state == State::Pooled(frame)
                && self.install(page, frame, 1).1.is_some()
            {
                self.unplaced.push_front(frame);
                break;
            }
        }
        if self.net.any_up() && self.grants.tells(now_ns()) {
            let why = if self.grants.is_for_lack_of_room() && !self.troubles.any_rests() {
                self.figures.servers_full.fetch_add(1, Relaxed);
                "the memory servers are full"
            } else {
                "no memory server takes pages now"
            };
            self.say(
                WARN,
                &alloc::format!(
                    "{why}: until that changes, the program's memory stays local, beyond its \
                     budget; give the servers more capacity, or name further ones"
                ),
            );
        }
    }

    /// Lets pages leave again when there is room for as many as leave at a time, and
    /// says so once the program's memory came down.
    pub(crate) fn look_at_room(&mut self) {
        let free = self.slots.total_free();
        if free >= self.budget.pool as u64 {
            self.grants.full = false;
        }
        let is_over = self.resident() > self.budget.throttle;
        if !self.grants.full && !is_over && self.grants.tells_of_room() {
            self.say(
                INFO,
                "the memory servers take pages again, and the program's memory is within its \
                 budget",
            );
        }
    }
}
