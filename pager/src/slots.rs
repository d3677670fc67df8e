//! Where pages lie on the servers: a [`Slot`] names one page of remote memory,
//! [`Slots`] hands them out from the slabs that servers granted.
//!
//! A slab of this module is a *slab group*: as many slabs of different servers as there
//! are copies (replicas) of each page, with the same pages in use. A slot names the group
//! and not a server, so what holds a slot stays as it is when a replica is lost or made.

mod group;
mod repair;
mod replica;
mod server;
mod set;
mod slab;

use crate::ServerId;
use crate::net::At;
use alloc::boxed::Box;
use alloc::vec::Vec;
pub use group::{Group, Location};
pub use repair::Fill;
use replica::Replica;
use server::Server;
use set::Set;
use slab::Slab;
use thiserror::Error;
use tmem_policy::placement::Share;

/// The most servers that can be used.
pub const MAX_SERVERS: usize = 64;
/// The most pages of a slab.
pub const MAX_SLAB_PAGES: u32 = 1 << PAGE_BITS;
/// The most replicas of a page.
pub const MAX_COPIES: usize = 3;

const PAGE_BITS: u32 = 16;
const SLAB_BITS: u32 = 24;
const MAX_SLABS: usize = 1 << SLAB_BITS;

/// Runs up to this long fill holes of crowded slabs, longer ones go where long
/// runs are likely.
const SMALL: usize = 8;

/// With fewer free pages a set of servers is no place for pages that have one already.
const SPARE: u64 = 256;

/// One page of remote memory, in 40 bits: slab (an index local to this process), page of
/// the slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct Slot(u64);

impl Slot {
    /// How many low bits of [`Slot::bits`] can be set.
    pub const BITS: u32 = SLAB_BITS + PAGE_BITS;

    fn new(slab: usize, page: u32) -> Slot {
        Slot(((slab as u64) << PAGE_BITS) | u64::from(page))
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
    /// By their names. The names of slabs given back are used again; those of slabs that
    /// were lost are not, so that a stale slot names nothing.
    slabs: Vec<Option<Box<Slab>>>,
    vacant: Vec<u32>,
    /// One for each combination of servers that has slabs, or had some.
    sets: Vec<Set>,
    /// How many replicas each page is to have.
    copies: usize,
    /// Some slab may have fewer.
    may_be_degraded: bool,
    /// How many fills of further replicas were begun.
    fills: u64,
    /// How many replicas the slab has that was made last.
    last_group: Option<usize>,
    /// The slab after that which was looked at last, whether it is still shared.
    probed: usize,
}

impl Slots {
    /// No remote memory yet, of servers at `locations` (those beyond [`MAX_SERVERS`] are
    /// never used). Each page is to have `copies` replicas, at most [`MAX_COPIES`].
    pub fn new(locations: Vec<Location>, copies: usize) -> Slots {
        let locations = locations.into_iter().take(MAX_SERVERS);
        Slots {
            servers: locations.map(Server::new).collect(),
            slabs: Vec::new(),
            vacant: Vec::new(),
            sets: Vec::new(),
            copies: copies.clamp(1, MAX_COPIES),
            may_be_degraded: false,
            fills: 0,
            last_group: None,
            probed: 0,
        }
    }

    /// How many replicas each page is to have.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// How many replicas the slab has that was made last.
    pub fn last_group(&self) -> Option<usize> {
        self.last_group
    }

    fn server_mut(&mut self, server: ServerId) -> Option<&mut Server> {
        self.servers.get_mut(server.index())
    }

    fn slab(&self, slot: Slot) -> Option<&Slab> {
        self.slabs.get(slot.slab())?.as_deref()
    }

    fn slab_mut(&mut self, slot: Slot) -> Option<&mut Slab> {
        self.slabs.get_mut(slot.slab())?.as_deref_mut()
    }

    /// Where a page can be read, and all others in use of its slab.
    #[inline]
    pub fn readable(&self, slot: Slot) -> impl Iterator<Item = At> {
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        let whole = replicas.iter().filter(|r| r.is_whole());
        whole.map(move |r| r.at(slot.page()))
    }

    /// Where a page can be read though other pages of its slab cannot: in a replica that is
    /// being made.
    pub fn readable_already(&self, slot: Slot) -> impl Iterator<Item = At> {
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        let has_it = move |r: &&Replica| r.is_filling() && r.has(slot.page());
        let filling = replicas.iter().filter(has_it);
        filling.map(move |r| r.at(slot.page()))
    }

    /// Where a page is to be written.
    pub fn writable(&self, slot: Slot) -> impl Iterator<Item = At> {
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        replicas.iter().map(move |r| r.at(slot.page()))
    }

    /// Whether some server has a page.
    pub fn is_kept(&self, slot: Slot) -> bool {
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        replicas.iter().any(|r| r.has(slot.page()))
    }

    /// Sets how many pages the slabs of `server` have, as its HELLO reply says.
    /// A lost server is used again from here on.
    ///
    /// # Errors
    /// [`GeometryError`] when such slabs cannot be used; nothing changes then.
    pub fn set_geometry(&mut self, server: ServerId, slab_pages: u32) -> Result<(), GeometryError> {
        let has_slabs = self.has_slabs(server);
        let s = self
            .servers
            .get_mut(server.index())
            .ok_or(GeometryError::Server(server))?;
        if slab_pages == 0 || slab_pages > MAX_SLAB_PAGES {
            return Err(GeometryError::SlabPages(slab_pages));
        }
        if s.slab_pages != slab_pages && has_slabs {
            return Err(GeometryError::Changed {
                before: s.slab_pages,
                now: slab_pages,
            });
        }
        s.slab_pages = slab_pages;
        s.is_expected = false;
        // What has too few replicas may get one there.
        self.may_be_degraded = self.copies > 1;
        Ok(())
    }

    /// A server is not to be waited for: it cannot be had now.
    pub fn is_absent(&mut self, server: ServerId) {
        if let Some(s) = self.server_mut(server) {
            s.is_expected = false;
        }
        self.form_groups();
    }

    /// No server is waited for any more that has not been there yet.
    pub fn expect_no_more(&mut self) {
        if self.servers.iter().any(|s| s.is_expected) {
            self.servers.iter_mut().for_each(|s| s.is_expected = false);
            self.form_groups();
        }
    }

    /// Sets how many more pages `server` could grant; servers with more get
    /// more of the allocations. Grants are subtracted as they arrive.
    pub fn set_grantable(&mut self, server: ServerId, pages: u64) {
        if let Some(s) = self.server_mut(server) {
            s.grantable = pages;
        }
        self.form_groups();
    }

    /// Takes over slabs that `server` granted.
    pub fn add_slabs(&mut self, server: ServerId, slabs: &[u32]) {
        let Some(s) = self.server_mut(server) else {
            return;
        };
        if s.slab_pages == 0 || s.draining {
            s.surplus.extend_from_slice(slabs);
            return;
        }
        s.bare.extend_from_slice(slabs);
        let pages = slabs.len() as u64 * u64::from(s.slab_pages);
        s.granted += pages;
        s.grantable = s.grantable.saturating_sub(pages);
        self.form_groups();
    }

    /// Makes slab groups of the slabs that belong to none, as far as servers have some.
    fn form_groups(&mut self) {
        loop {
            let group = self.next_group();
            let has_bare = |server: ServerId| !self.servers[server.index()].bare.is_empty();
            if group.is_empty() || !group.iter().all(has_bare) || !self.has_a_name() {
                return;
            }
            let mut replicas = Vec::with_capacity(group.len());
            let mut pages = MAX_SLAB_PAGES;
            for server in group.iter() {
                let s = &mut self.servers[server.index()];
                pages = pages.min(s.slab_pages);
                replicas.extend(s.bare.pop().map(|wire| Replica::new(server, wire)));
            }
            self.may_be_degraded |= replicas.len() < self.copies;
            self.last_group = Some(replicas.len());
            let set = self.set_of(group);
            let name = self.vacant.pop().unwrap_or_else(|| {
                self.slabs.push(None);
                self.slabs.len() as u32 - 1
            });
            self.slabs[name as usize] = Some(Box::new(Slab::new(replicas, pages, set)));
            self.list(name);
        }
    }

    fn has_a_name(&self) -> bool {
        !self.vacant.is_empty() || self.slabs.len() < MAX_SLABS
    }

    /// The set of these servers.
    fn set_of(&mut self, group: Group) -> u32 {
        let known = self.sets.iter().position(|s| s.group == group);
        let at = known.unwrap_or_else(|| {
            self.sets.push(Set::new(group));
            self.sets.len() - 1
        });
        at as u32
    }

    /// Puts a slab into the lists of its set, and counts it there.
    fn list(&mut self, name: u32) {
        if let Some(slab) = self.slabs[name as usize].as_deref_mut() {
            self.sets[slab.set as usize].add(name, slab);
        }
    }

    /// Takes a slab out of the lists of its set, and of its counts.
    fn unlist(&mut self, name: u32) {
        let Some(slab) = self.slabs[name as usize].as_deref() else {
            return;
        };
        let (set, class, place) = (slab.set as usize, slab.class, slab.place);
        let (free, used) = (slab.open_pages(), slab.used());
        self.sets[set].remove(name, free, used);
        if let Some(moved) = self.sets[set].unlist(class, place)
            && let Some(moved) = self.slabs[moved as usize].as_deref_mut()
        {
            moved.place = place;
        }
    }

    /// Changes a slab, and has its set's lists and counts follow.
    fn change<R>(&mut self, name: u32, how: impl FnOnce(&mut Slab) -> R) -> Option<R> {
        self.slabs.get(name as usize)?.as_deref()?;
        self.unlist(name);
        let result = self.slabs[name as usize].as_deref_mut().map(how);
        self.list(name);
        result
    }

    /// Allocates up to `want` pages in as few runs as it finds, appends
    /// each run's first slot and length to `out`, and returns the pages
    /// allocated: fewer than `want` when no more are free. Pages get fewer replicas than
    /// they are to have only where there is no other room.
    pub fn alloc(&mut self, want: usize, out: &mut Vec<(Slot, u32)>) -> usize {
        let mut got = 0;
        while got < want {
            let Some(set) = self.choose(want - got) else {
                break;
            };
            let before = got;
            while got < want {
                let Some((slab, page, len)) = self.alloc_run(set, want - got) else {
                    break;
                };
                out.push((Slot::new(slab, page), len));
                got += len as usize;
            }
            self.sets[set].credit -= ((got - before) as i64) << 10;
            // An empty slab may have lost a replica.
            self.may_be_degraded |= self.sets[set].group.len() < self.copies;
        }
        got
    }

    /// One run of at most `want` pages of a set: slab, first page, length.
    fn alloc_run(&mut self, set: usize, want: usize) -> Option<(usize, u32, u32)> {
        let want = want.min(MAX_SLAB_PAGES as usize) as u32;
        let name = self.sets[set].slab_for(want, &self.slabs)?;
        let slab = self.slabs[name as usize].as_deref_mut()?;
        let (page, len) = slab.take_run(want)?;
        self.sets[set].took(u64::from(len));
        self.reclass(name);
        Some((name as usize, page, len))
    }

    /// Moves a slab to the class that it now belongs to.
    fn reclass(&mut self, name: u32) {
        let Some(slab) = self.slabs[name as usize].as_deref_mut() else {
            return;
        };
        let class = slab.now();
        if class == slab.class {
            return;
        }
        let (set, old, place) = (slab.set as usize, slab.class, slab.place);
        slab.class = class;
        slab.place = self.sets[set].enlist(name, class);
        if let Some(moved) = self.sets[set].unlist(old, place)
            && let Some(moved) = self.slabs[moved as usize].as_deref_mut()
        {
            moved.place = place;
        }
    }

    /// The set to allocate from next: a smooth weighted round robin over those that have
    /// free pages, of those with the most replicas.
    fn choose(&mut self, want: usize) -> Option<usize> {
        let servers = &self.servers;
        let has_room = |s: &Set| s.usable(servers) > 0 && !s.is_busy(servers);
        // The local tier comes last.
        let rank = |s: &Set| match s
            .group
            .iter()
            .any(|id| servers[id.index()].location.is_here)
        {
            true => 0,
            false => s.group.len(),
        };
        let most = self.sets.iter().filter(|s| has_room(s));
        let most = most.map(rank).max()?;
        let takes_part = |s: &Set| has_room(s) && rank(s) == most;
        let weights = self.sets.iter().filter(|s| takes_part(s));
        let total: u64 = weights.map(|s| s.weight(servers)).sum();
        let mut best: Option<(i64, usize)> = None;
        for (i, s) in self.sets.iter_mut().enumerate() {
            if s.usable(servers) == 0 {
                s.credit = 0;
                continue;
            }
            if !takes_part(s) {
                continue;
            }
            let share = (want as u128 * 1024 * u128::from(s.weight(servers))) / u128::from(total);
            // Bounded, so that no history weighs for ever.
            s.credit = s
                .credit
                .saturating_add(share as i64)
                .clamp(-(1 << 30), 1 << 30);
            if best.is_none_or(|(credit, _)| s.credit > credit) {
                best = Some((s.credit, i));
            }
        }
        best.map(|(_, i)| i)
    }

    /// Makes the `len` pages from `start` on free again. The caller has queued
    /// their DISCARD. Slots of lost slabs are ignored.
    pub fn free(&mut self, start: Slot, len: u32) {
        let Some(slab) = self.slab_mut(start) else {
            return;
        };
        let freed = u64::from(slab.free_run(start.page(), len));
        let (set, is_open) = (slab.set as usize, !slab.frozen);
        self.sets[set].gave(freed, is_open);
        self.reclass(start.slab() as u32);
    }

    /// From now on allocates nothing in the slabs there are, because another
    /// session shares them; each is given back once all of it was freed. Replicas that are
    /// being made are given up: nothing can be written to them.
    pub fn freeze(&mut self) {
        for name in 0..self.slabs.len() as u32 {
            let slab = self.slabs[name as usize].as_deref();
            // A child has the local tier for itself.
            if slab.is_none_or(|slab| self.has_here(slab)) {
                continue;
            }
            self.abandon_fill(name);
            self.change(name, |slab| slab.frozen = true);
        }
        self.give_up_bare(0);
    }

    /// Slots that are not in use, of up to `most` frozen slabs, others each time:
    /// who writes there learns whether the slab is still shared.
    pub fn frozen_with_room(&mut self, most: usize) -> Vec<Slot> {
        let mut found = Vec::new();
        let slabs = self.slabs.len();
        let first = self.probed;
        for step in 0..slabs {
            if found.len() >= most {
                break;
            }
            let name = (first + step) % slabs;
            let slab = self.slabs[name].as_deref();
            let slab = slab.filter(|slab| slab.frozen);
            if let Some(page) = slab.and_then(Slab::a_free_page) {
                found.push(Slot::new(name, page));
                self.probed = name + 1;
            }
        }
        found
    }

    /// No other session shares the slab of a slot any more: it can be used
    /// again.
    pub fn thaw(&mut self, slot: Slot) {
        self.change(slot.slab() as u32, |slab| slab.frozen = false);
    }

    /// Whether nothing is to be written to a slot, because another session
    /// shares its slab, or the slab or a server of it fails.
    pub fn is_frozen(&self, slot: Slot) -> bool {
        let rests = |r: &Replica| !self.servers[r.server().index()].takes_pages();
        self.slab(slot)
            .is_some_and(|s| s.frozen || s.replicas().iter().any(rests))
    }

    /// Pages of a slot's slab could not be written, which counts as the last of
    /// `most` times if the server is `sure` to refuse there. After so many in a
    /// row the slab is given up for new pages, until it is thawed.
    pub fn failed(&mut self, slot: Slot, sure: bool, most: u8) {
        let Some(slab) = self.slab_mut(slot) else {
            return;
        };
        slab.failed = slab.failed.saturating_add(1);
        if sure || slab.failed >= most {
            self.change(slot.slab() as u32, |slab| slab.frozen = true);
        }
    }

    /// `len` pages from a slot on were written to all replicas that there were when so many
    /// fills had begun, see [`Slots::fills_begun`].
    pub fn worked(&mut self, slot: Slot, len: u32, fills: u64) {
        if let Some(slab) = self.slab_mut(slot) {
            slab.failed = 0;
            slab.filled(slot.page(), len, fills);
        }
    }

    /// Whether nothing is to be allocated or written on `server` for the moment.
    pub fn set_resting(&mut self, server: ServerId, resting: bool) {
        if let Some(s) = self.server_mut(server) {
            s.resting = resting;
        }
        self.form_groups();
    }

    /// The server means to end: nothing is allocated or written there, and its slabs are given
    /// back as they get empty.
    pub fn drain(&mut self, server: ServerId) {
        if let Some(s) = self.server_mut(server) {
            s.draining = true;
            for wire in core::mem::take(&mut s.bare) {
                s.give_up(wire);
            }
        }
        self.form_groups();
    }

    /// Whether a server of a slot means to end.
    #[inline]
    pub fn is_draining(&self, slot: Slot) -> bool {
        let drains = |r: &Replica| self.servers[r.server().index()].draining;
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        replicas.iter().any(drains)
    }

    /// The servers that mean to end, and still have slabs.
    pub fn draining(&self) -> impl Iterator<Item = ServerId> {
        let servers = ServerId::all().zip(&self.servers);
        let leaves = servers.filter(|(_, s)| s.draining && s.granted > 0);
        leaves.map(|(n, _)| n)
    }

    /// Pages in use on `server`.
    pub fn used_on(&self, server: ServerId) -> u64 {
        let sets = self.sets.iter().filter(|s| s.group.has(server));
        sets.map(Set::used).sum()
    }

    /// Whether nothing is to be allocated on `server` before others have had
    /// their turn.
    pub fn set_busy(&mut self, server: ServerId, busy: bool) {
        if let Some(s) = self.server_mut(server) {
            s.busy = busy;
        }
    }

    /// Whether a server is busy that has free pages.
    pub fn waits_for_turn(&self) -> bool {
        let waits = |s: &Set| s.is_busy(&self.servers) && s.usable(&self.servers) > 0;
        self.sets.iter().any(waits)
    }

    /// Sets what part `server` gets of the pages that its room would bring it.
    pub fn set_share(&mut self, server: ServerId, share: Share) {
        if let Some(s) = self.server_mut(server) {
            s.share = share;
        }
    }

    /// Whether a page is better off on other servers, which have free pages and a larger
    /// share by far. It is read from the best of its servers.
    pub fn has_better(&self, slot: Slot) -> bool {
        let replicas = self.slab(slot).map_or(&[][..], Slab::replicas);
        let is_here = |r: &Replica| self.is_here(r.server());
        if replicas.iter().any(is_here) {
            let servers = |s: &&Set| !s.group.iter().any(|id| self.is_here(id));
            let mut others = self.sets.iter().filter(servers);
            return others.any(|s| s.usable(&self.servers) >= SPARE);
        }
        let shares = replicas
            .iter()
            .map(|r| self.servers[r.server().index()].share);
        // Most often there is nothing better than all.
        let share = shares.max().filter(|share| *share < Share::FULL);
        share.is_some_and(|share| {
            let others = self
                .sets
                .iter()
                .filter(|s| s.usable(&self.servers) >= SPARE);
            let mut others = others.filter(|s| s.group.len() >= replicas.len());
            others.any(|s| share.is_poor_beside(s.share(&self.servers)))
        })
    }

    /// Whether `server` has granted any slab that is still here.
    pub fn has_slabs(&self, server: ServerId) -> bool {
        self.servers
            .get(server.index())
            .is_some_and(|s| s.granted > 0)
    }

    /// Pages of all servers that can be allocated now.
    pub fn total_free(&self) -> u64 {
        self.sets.iter().map(|s| s.usable(&self.servers)).sum()
    }

    /// Those of them that are no worse placed than on the servers of a group, and have as
    /// many replicas.
    pub fn free_as_good_as(&self, group: Group) -> u64 {
        let share = Set::new(group).share(&self.servers);
        let is_good = |s: &&Set| {
            s.group.len() >= group.len() && !s.share(&self.servers).is_poor_beside(share)
        };
        let good = self.sets.iter().filter(is_good);
        good.map(|s| s.usable(&self.servers)).sum()
    }

    /// Pages in use that are not lost; replicas do not count.
    pub fn used_pages(&self) -> u64 {
        self.sets.iter().map(Set::used).sum()
    }

    /// Pages that `server` could still grant, as far as is known.
    pub fn grantable(&self, server: ServerId) -> u64 {
        let server = self.servers.get(server.index());
        server.map_or(0, |s| s.grantable)
    }

    /// Pages of one slab of `server`; 0 while it is not known.
    pub fn slab_pages(&self, server: ServerId) -> u32 {
        let server = self.servers.get(server.index());
        server.map_or(0, |s| s.slab_pages)
    }

    /// Slabs that `server` has granted and that belong to no group yet.
    pub fn bare_slabs(&self, server: ServerId) -> usize {
        let server = self.servers.get(server.index());
        server.map_or(0, |s| s.bare.len())
    }

    /// Takes out slabs without any page in use, to be RELEASEd: of each set all
    /// but `keep` of them, and all of those that are frozen.
    pub fn take_empty_slabs(&mut self, keep: usize, out: &mut Vec<(ServerId, Vec<u32>)>) {
        for set in 0..self.sets.len() {
            let keep = match self.sets[set].is_draining(&self.servers) {
                true => 0,
                false => keep,
            };
            while let Some(name) = self.sets[set].to_give_back(keep) {
                self.unlist(name);
                let slab = self.slabs[name as usize].take();
                self.vacant.push(name);
                for replica in slab.iter().flat_map(|s| s.replicas()) {
                    self.servers[replica.server().index()].give_up(replica.wire());
                }
            }
        }
        for (server, s) in ServerId::all().zip(&mut self.servers) {
            if !s.surplus.is_empty() {
                out.push((server, core::mem::take(&mut s.surplus)));
            }
        }
    }

    /// Gives up the slabs of `server` that belong to no group, but for `keep` of them.
    pub fn give_up_bare(&mut self, keep: usize) {
        for s in &mut self.servers {
            for wire in s.bare.split_off(keep.min(s.bare.len())) {
                s.give_up(wire);
            }
        }
    }
}

#[cfg(test)]
mod copies_tests;
#[cfg(test)]
mod tests;
