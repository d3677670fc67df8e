//! Where pages lie on the servers: a [`Slot`] names one page of remote memory,
//! [`Slots`] hands them out from the slabs that servers granted.

mod server;
mod slab;

use crate::ServerId;
use alloc::vec::Vec;
use server::Server;
use slab::{Class, Slab};
use thiserror::Error;
use tmem_policy::placement::Share;

/// The most servers that a [`Slot`] can tell apart.
pub const MAX_SERVERS: usize = 1 << SERVER_BITS;
/// The most pages of a slab.
pub const MAX_SLAB_PAGES: u32 = 1 << PAGE_BITS;

const PAGE_BITS: u32 = 16;
const SLAB_BITS: u32 = 18;
const SERVER_BITS: u32 = 6;
const MAX_SLABS: usize = 1 << SLAB_BITS;

/// Runs up to this long fill holes of crowded slabs, longer ones go where long
/// runs are likely.
const SMALL: usize = 8;

/// With fewer free pages a server is no place for pages that have one already.
const SPARE: u64 = 256;

/// One page of remote memory, in 40 bits: server, slab of that server (an index
/// local to this process), page of the slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Slot(u64);

impl Slot {
    /// How many low bits of [`Slot::bits`] can be set.
    pub const BITS: u32 = SERVER_BITS + SLAB_BITS + PAGE_BITS;

    fn new(server: ServerId, slab: usize, page: u32) -> Slot {
        Slot(
            ((server.index() as u64) << (SLAB_BITS + PAGE_BITS))
                | ((slab as u64) << PAGE_BITS)
                | u64::from(page),
        )
    }

    /// The server that has the page.
    pub fn server(self) -> ServerId {
        ServerId::new((self.0 >> (SLAB_BITS + PAGE_BITS)) as u16)
    }

    /// The slot as a number below 2^40.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// What [`Slot::bits`] gave; bits beyond the fortieth are dropped.
    pub fn from_bits(bits: u64) -> Slot {
        Slot(bits & ((1 << Slot::BITS) - 1))
    }

    /// The next page of the same slab. Only meaningful within a run that was
    /// allocated as one.
    pub fn next(self) -> Slot {
        self.offset(1)
    }

    /// Whether `next` is the next page of the same slab.
    pub fn is_before(self, next: Slot) -> bool {
        self.0 + 1 == next.0 && next.page() != 0
    }

    /// The page `n` further on in the same slab, as [`Slot::next`].
    pub fn offset(self, n: u32) -> Slot {
        Slot::from_bits(self.0 + u64::from(n))
    }

    fn slab(self) -> usize {
        (self.0 >> PAGE_BITS) as usize & (MAX_SLABS - 1)
    }

    fn page(self) -> u32 {
        (self.0 & ((1 << PAGE_BITS) - 1)) as u32
    }
}

/// Why the slabs of a server cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// Slabs of no pages, or of more than a [`Slot`] can number.
    #[error("slabs of {0} pages: between 1 and {MAX_SLAB_PAGES} can be used")]
    SlabPages(u32),
    /// Slabs of another size are in use already.
    #[error("slabs of {now} pages, where there were slabs of {before}")]
    Changed {
        /// Pages per slab so far.
        before: u32,
        /// Pages per slab now.
        now: u32,
    },
    /// There is no such server.
    #[error("server {0} is unknown")]
    Server(ServerId),
}

/// All remote memory at hand, and which of it is free.
#[derive(Clone, Debug)]
pub struct Slots {
    servers: Vec<Server>,
}

impl Slots {
    /// No remote memory yet, of `servers` servers (those beyond
    /// [`MAX_SERVERS`] are never used).
    pub fn new(servers: usize) -> Slots {
        Slots {
            servers: (0..servers.min(MAX_SERVERS))
                .map(|_| Server::default())
                .collect(),
        }
    }

    /// Sets how many pages the slabs of `server` have, as its HELLO reply says.
    /// A lost server is used again from here on.
    ///
    /// # Errors
    /// [`GeometryError`] when such slabs cannot be used; nothing changes then.
    pub fn set_geometry(&mut self, server: ServerId, slab_pages: u32) -> Result<(), GeometryError> {
        let s = self
            .servers
            .get_mut(server.index())
            .ok_or(GeometryError::Server(server))?;
        if slab_pages == 0 || slab_pages > MAX_SLAB_PAGES {
            return Err(GeometryError::SlabPages(slab_pages));
        }
        if s.slab_pages != slab_pages && s.slabs.iter().any(Option::is_some) {
            return Err(GeometryError::Changed {
                before: s.slab_pages,
                now: slab_pages,
            });
        }
        s.slab_pages = slab_pages;
        Ok(())
    }

    /// Sets how many more pages `server` could grant; servers with more get
    /// more of the allocations. Grants are subtracted as they arrive.
    pub fn set_grantable(&mut self, server: ServerId, pages: u64) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            s.grantable = pages;
        }
    }

    /// Takes over slabs that `server` granted.
    pub fn add_slabs(&mut self, server: ServerId, slabs: &[u32]) {
        let Some(s) = self.servers.get_mut(server.index()) else {
            return;
        };
        if s.slab_pages == 0 {
            s.surplus.extend_from_slice(slabs);
            return;
        }
        for &wire in slabs {
            s.add_slab(wire);
        }
    }

    /// Allocates up to `want` pages in as few runs as it finds, appends
    /// each run's first slot and length to `out`, and returns the pages
    /// allocated: fewer than `want` when no more are free.
    pub fn alloc(&mut self, want: usize, out: &mut Vec<(Slot, u32)>) -> usize {
        let mut got = 0;
        while got < want {
            let Some(server) = self.choose(want - got) else {
                break;
            };
            let s = &mut self.servers[server.index()];
            let before = got;
            while got < want {
                let Some((slab, page, len)) = s.alloc_run(want - got) else {
                    break;
                };
                out.push((Slot::new(server, slab, page), len));
                got += len as usize;
            }
            s.credit -= ((got - before) as i64) << 10;
        }
        got
    }

    /// The server to allocate from next: a smooth weighted round robin over
    /// those that have free pages.
    fn choose(&mut self, want: usize) -> Option<ServerId> {
        let total: u64 = self
            .servers
            .iter()
            .filter(|s| s.usable() > 0 && !s.busy)
            .map(Server::weight)
            .sum();
        if total == 0 {
            return None;
        }
        let mut best: Option<(i64, ServerId)> = None;
        for (id, s) in ServerId::all().zip(&mut self.servers) {
            if s.usable() == 0 {
                s.credit = 0;
                continue;
            }
            if s.busy {
                continue;
            }
            let share = (want as u128 * 1024 * u128::from(s.weight())) / u128::from(total);
            // Bounded, so that no history weighs for ever.
            s.credit = s
                .credit
                .saturating_add(share as i64)
                .clamp(-(1 << 30), 1 << 30);
            if best.is_none_or(|(credit, _)| s.credit > credit) {
                best = Some((s.credit, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Makes the `len` pages from `start` on free again. The caller has queued
    /// their DISCARD. Slots of lost servers are ignored.
    pub fn free(&mut self, start: Slot, len: u32) {
        let Some(s) = self.servers.get_mut(start.server().index()) else {
            return;
        };
        let index = start.slab();
        let Some(slab) = s.slabs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let freed = u64::from(slab.free_run(start.page(), len));
        s.used -= freed;
        if !slab.frozen {
            s.free += freed;
        }
        s.reclass(index);
    }

    /// From now on allocates nothing in the slabs there are, because another
    /// session shares them; each is given back once all of it was freed.
    pub fn freeze(&mut self) {
        for s in &mut self.servers {
            for index in 0..s.slabs.len() {
                s.freeze(index);
            }
        }
    }

    /// Slots that are not in use, of up to `most` frozen slabs, others each time:
    /// who writes there learns whether the slab is still shared.
    pub fn frozen_with_room(&mut self, most: usize) -> Vec<Slot> {
        let mut found = Vec::new();
        for (id, s) in ServerId::all().zip(&mut self.servers) {
            let (slabs, first) = (s.slabs.len(), s.probed);
            for step in 0..slabs {
                if found.len() >= most {
                    break;
                }
                let index = (first + step) % slabs;
                let slab = s.slabs[index].as_ref().filter(|slab| slab.frozen);
                if let Some(page) = slab.and_then(Slab::a_free_page) {
                    found.push(Slot::new(id, index, page));
                    s.probed = index + 1;
                }
            }
        }
        found
    }

    /// No other session shares the slab of a slot any more: it can be used
    /// again.
    pub fn thaw(&mut self, slot: Slot) {
        let Some(s) = self.servers.get_mut(slot.server().index()) else {
            return;
        };
        let slab = s.slabs.get_mut(slot.slab()).and_then(Option::as_mut);
        if let Some(slab) = slab.filter(|slab| slab.frozen) {
            slab.frozen = false;
            s.free += u64::from(slab.free());
            s.reclass(slot.slab());
        }
    }

    /// Whether nothing is to be written to a slot, because another session
    /// shares its slab, or the slab or its server fails.
    pub fn is_frozen(&self, slot: Slot) -> bool {
        let server = self.servers.get(slot.server().index());
        let slab = server.and_then(|s| s.slabs.get(slot.slab())?.as_ref());
        slab.is_some_and(|s| s.frozen) || server.is_some_and(|s| s.resting || s.draining)
    }

    /// Pages of a slot's slab could not be written, which counts as the last of
    /// `most` times if the server is `sure` to refuse there. After so many in a
    /// row the slab is given up for new pages, until it is thawed.
    pub fn failed(&mut self, slot: Slot, sure: bool, most: u8) {
        let Some(s) = self.servers.get_mut(slot.server().index()) else {
            return;
        };
        let index = slot.slab();
        if let Some(Some(slab)) = s.slabs.get_mut(index) {
            slab.failed = slab.failed.saturating_add(1);
            if sure || slab.failed >= most {
                s.freeze(index);
            }
        }
    }

    /// Pages of a slot's slab were written.
    pub fn worked(&mut self, slot: Slot) {
        let server = self.servers.get_mut(slot.server().index());
        if let Some(Some(slab)) = server.and_then(|s| s.slabs.get_mut(slot.slab())) {
            slab.failed = 0;
        }
    }

    /// Whether nothing is to be allocated or written on `server` for the moment.
    pub fn set_resting(&mut self, server: ServerId, resting: bool) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            s.resting = resting;
        }
    }

    /// The server means to end: nothing is allocated or written there, and its slabs are given
    /// back as they get empty.
    pub fn drain(&mut self, server: ServerId) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            s.draining = true;
        }
    }

    /// Whether a slot's server means to end.
    pub fn is_draining(&self, slot: Slot) -> bool {
        let server = self.servers.get(slot.server().index());
        server.is_some_and(|s| s.draining)
    }

    /// The servers that mean to end, and still have slabs.
    pub fn draining(&self) -> impl Iterator<Item = ServerId> {
        let leaves = |s: &Server| s.draining && s.slabs.iter().any(Option::is_some);
        let servers = ServerId::all().zip(&self.servers);
        servers.filter(move |(_, s)| leaves(s)).map(|(n, _)| n)
    }

    /// Pages in use on `server`.
    pub fn used_on(&self, server: ServerId) -> u64 {
        self.servers.get(server.index()).map_or(0, |s| s.used)
    }

    /// Whether nothing is to be allocated on `server` before others have had
    /// their turn.
    pub fn set_busy(&mut self, server: ServerId, busy: bool) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            s.busy = busy;
        }
    }

    /// Whether a server is busy that has free pages.
    pub fn waits_for_turn(&self) -> bool {
        self.servers.iter().any(|s| s.busy && s.usable() > 0)
    }

    /// Sets what part `server` gets of the pages that its room would bring it.
    pub fn set_share(&mut self, server: ServerId, share: Share) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            s.share = share;
        }
    }

    /// Whether a page on `server` is better off on another, which has free pages
    /// and a larger share by far.
    pub fn has_better(&self, server: ServerId) -> bool {
        let share = self.servers.get(server.index()).map(|s| s.share);
        share.is_some_and(|share| {
            let mut others = self.servers.iter().filter(|s| s.usable() >= SPARE);
            others.any(|s| share.is_poor_beside(s.share))
        })
    }

    /// Whether `server` has granted any slab that is still here.
    pub fn has_slabs(&self, server: ServerId) -> bool {
        let server = self.servers.get(server.index());
        server.is_some_and(|s| s.slabs.iter().any(Option::is_some))
    }

    /// Pages of `server` that can be allocated now.
    pub fn free_pages(&self, server: ServerId) -> u64 {
        self.servers.get(server.index()).map_or(0, |s| s.free)
    }

    /// Pages of all servers that can be allocated now.
    pub fn total_free(&self) -> u64 {
        self.servers.iter().map(Server::usable).sum()
    }

    /// Those of them that are no worse placed than on `server`.
    pub fn free_as_good_as(&self, server: ServerId) -> u64 {
        let share = self.servers.get(server.index()).map(|s| s.share);
        let good = |s: &&Server| share.is_none_or(|share| !s.share.is_poor_beside(share));
        self.servers.iter().filter(good).map(Server::usable).sum()
    }

    /// Pages in use on all servers that are not lost.
    pub fn used_pages(&self) -> u64 {
        self.servers.iter().map(|s| s.used).sum()
    }

    /// Pages that `server` could still grant, as far as is known.
    pub fn grantable(&self, server: ServerId) -> u64 {
        self.servers.get(server.index()).map_or(0, |s| s.grantable)
    }

    /// Pages of one slab of `server`; 0 while it is not known.
    pub fn slab_pages(&self, server: ServerId) -> u32 {
        self.servers.get(server.index()).map_or(0, |s| s.slab_pages)
    }

    /// The server to ask for the next slabs: the one of whose memory the
    /// smallest part was granted, by its share. `None` when none could grant any.
    pub fn grant_target(&self) -> Option<ServerId> {
        let able = |s: &Server| {
            s.slab_pages > 0 && s.grantable >= u64::from(s.slab_pages) && !s.resting && !s.draining
        };
        let emptiest = ServerId::all()
            .zip(&self.servers)
            .filter(|(_, s)| able(s))
            .min_by_key(|(_, s)| {
                let granted = s.used.saturating_add(s.free);
                let all = granted.saturating_add(s.grantable).max(1);
                // With the slab to come, so that a small share counts from the first.
                let then = u128::from(granted) + u128::from(s.slab_pages);
                s.share.against((then << 32) / u128::from(all))
            });
        emptiest.map(|(id, _)| id)
    }

    /// Takes out slabs without any page in use, to be RELEASEd: per server all
    /// but `keep` of them, and all of those that are frozen.
    pub fn take_empty_slabs(&mut self, keep: usize, out: &mut Vec<(ServerId, Vec<u32>)>) {
        for (id, s) in ServerId::all().zip(&mut self.servers) {
            let mut gone = core::mem::take(&mut s.surplus);
            while let Some(&index) = s.classes[Class::FROZEN_EMPTY.index()].last() {
                // At the latest when the others have given it back, too.
                s.grantable += u64::from(s.slab_pages);
                gone.extend(s.remove(index));
            }
            let keep = if s.draining { 0 } else { keep };
            while s.classes[Class::EMPTY.index()].len() > keep {
                let Some(&index) = s.classes[Class::EMPTY.index()].last() else {
                    break;
                };
                s.grantable += u64::from(s.slab_pages);
                s.free -= u64::from(s.slab_pages);
                gone.extend(s.remove(index));
            }
            if !gone.is_empty() {
                out.push((id, gone));
            }
        }
    }

    /// Forgets everything on `server`; nothing is allocated from it until its
    /// geometry is set again.
    pub fn server_lost(&mut self, server: ServerId) {
        if let Some(s) = self.servers.get_mut(server.index()) {
            let mut slabs = core::mem::take(&mut s.slabs);
            slabs.fill_with(|| None);
            *s = Server {
                slabs,
                ..Server::default()
            };
        }
    }

    /// The wire's name of a slot: slab and page. `None` when the slot's server
    /// was lost.
    pub fn address(&self, slot: Slot) -> Option<(u32, u32)> {
        let server = self.servers.get(slot.server().index())?;
        let slab = server.slabs.get(slot.slab())?.as_ref()?;
        Some((slab.wire, slot.page()))
    }
}

#[cfg(test)]
mod tests;
