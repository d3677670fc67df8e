//! What becomes of slabs when servers are lost, and how they get new replicas.
//!
//! A replica that is being made takes all writes from the first; pages that were written
//! before are copied into it. It counts for each page that it has by then, so that a
//! further loss takes only what was not copied yet.

use super::replica::Replica;
use super::slab::Slab;
use super::{Group, Slot, Slots};
use crate::ServerId;
use crate::net::At;
use alloc::collections::BTreeSet;
use core::ops::Range;

/// The fill of one further replica of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The slab's name.
    slab: u32,
    /// No two fills have the same.
    number: u64,
}

impl Slots {
    /// Forgets everything on `server`; nothing is allocated from it until its geometry is
    /// set again. Pages that have no other replica are not kept any more: the caller looks
    /// which, frees them, and calls [`Slots::settle`].
    pub fn server_lost(&mut self, server: ServerId) {
        if let Some(s) = self.server_mut(server) {
            s.lost();
        }
        for name in 0..self.slabs.len() as u32 {
            self.drop_replica(name, |r| r.server() == server);
        }
        self.may_be_degraded = self.copies > 1;
        self.form_groups();
    }

    /// Replicas that have become the only one of their slab are whole from here on: what
    /// they did not have is freed.
    pub fn settle(&mut self) {
        for name in 0..self.slabs.len() as u32 {
            let slab = self.slabs[name as usize].as_deref();
            if slab.is_some_and(|s| s.replicas().iter().all(Replica::is_filling)) {
                self.change(name, |slab| {
                    slab.replicas_mut().iter_mut().for_each(Replica::set_whole);
                });
            }
        }
    }

    /// Takes replicas away from a slab, which is forgotten if it has no other.
    fn drop_replica(&mut self, name: u32, which: impl Fn(&Replica) -> bool) {
        let slab = self.slabs[name as usize].as_deref();
        if !slab.is_some_and(|s| s.replicas().iter().any(&which)) {
            return;
        }
        self.unlist(name);
        let group = self.slabs[name as usize].as_deref_mut().map(|slab| {
            slab.replicas_mut().retain(|r| !which(r));
            group_of(slab)
        });
        match group.filter(|g| !g.is_empty()) {
            Some(group) => self.move_to(name, group),
            None => self.slabs[name as usize] = None,
        }
    }

    /// Lists a slab, which is in no list, with those of a group.
    fn move_to(&mut self, name: u32, group: Group) {
        let set = self.set_of(group);
        if let Some(slab) = self.slabs[name as usize].as_deref_mut() {
            slab.set = set;
        }
        self.list(name);
    }

    /// Slabs with pages in use that have fewer replicas than they are to have, and pages
    /// in use in them.
    pub fn degraded(&mut self) -> (usize, u64) {
        if !self.may_be_degraded {
            return (0, 0);
        }
        let copies = self.copies;
        let wholes = |s: &Slab| s.replicas().iter().filter(|r| r.is_whole()).count();
        let slabs = self.slabs.iter().flatten().filter(|s| !self.has_here(s));
        let poor = slabs.filter(|s| wholes(s) < copies && s.used() > 0);
        let (count, pages) = poor.fold((0, 0), |(n, pages), s| (n + 1, pages + s.used()));
        self.may_be_degraded = count > 0;
        (count, pages)
    }

    /// Servers that have pages which no other has.
    pub fn only_servers(&self) -> BTreeSet<ServerId> {
        let used = self.slabs.iter().flatten().filter(|s| s.used() > 0);
        let only = used.filter_map(|slab| {
            let mut whole = slab.replicas().iter().filter(|r| r.is_whole());
            let first = whole.next()?;
            whole.next().is_none().then_some(first.server())
        });
        only.collect()
    }

    /// How many fills of further replicas were begun.
    pub fn fills_begun(&self) -> u64 {
        self.fills
    }

    /// Begins a further replica of the first slab that has too few, where a server has a
    /// slab for it.
    pub fn begin_fill(&mut self) -> Option<Fill> {
        if self.servers.iter().all(|s| s.bare.is_empty()) {
            return None;
        }
        let (name, server) = self.to_fill(|slots, slab| {
            let partner = slots.partner_of(slab)?;
            (!slots.servers[partner.index()].bare.is_empty()).then_some(partner)
        })?;
        let wire = self.server_mut(server)?.bare.pop()?;
        self.unlist(name);
        self.fills += 1;
        let number = self.fills;
        let group = self.slabs[name as usize].as_deref_mut().map(|slab| {
            let replica = Replica::to_fill(server, wire, slab.pages(), number);
            slab.replicas_mut().push(replica);
            group_of(slab)
        });
        self.move_to(name, group?);
        Some(Fill { slab: name, number })
    }

    /// A server that is to be asked for slabs so that there can be further replicas.
    pub fn wants_slab_of(&self) -> Option<ServerId> {
        let found = self.to_fill(|slots, slab| {
            let partner = slots.partner_of(slab)?;
            slots.servers[partner.index()]
                .bare
                .is_empty()
                .then_some(partner)
        });
        found.map(|(_, server)| server)
    }

    /// The first slab with too few replicas for which `server` gives a server.
    fn to_fill(
        &self,
        server: impl Fn(&Slots, &Slab) -> Option<ServerId>,
    ) -> Option<(u32, ServerId)> {
        if !self.may_be_degraded {
            return None;
        }
        let slabs = (0..).zip(&self.slabs);
        let mut poor = slabs.filter_map(|(name, s)| {
            let slab = s.as_deref()?;
            let is_settled = slab.replicas().iter().all(Replica::is_whole);
            let is_poor =
                slab.replicas().len() < self.copies && slab.used() > 0 && !self.has_here(slab);
            (is_settled && is_poor).then_some((name, slab))
        });
        poor.find_map(|(name, slab)| Some((name, server(self, slab)?)))
    }

    fn partner_of(&self, slab: &Slab) -> Option<ServerId> {
        self.partner(&group_of(slab), slab.pages())
    }

    /// Where a page is copied to; `None` when the fill has ended or was given up.
    pub fn target(&self, fill: Fill, page: u32) -> Option<At> {
        let slab = self.slabs.get(fill.slab as usize)?.as_deref()?;
        let mut replicas = slab.replicas().iter();
        let filling = replicas.find(|r| r.fill() == Some(fill.number));
        filling.map(|r| r.at(page))
    }

    /// Where a page can be copied from.
    pub fn sources(&self, fill: Fill, page: u32) -> impl Iterator<Item = At> {
        let slab = self.slabs.get(fill.slab as usize);
        let slab = slab.and_then(|s| s.as_deref());
        let replicas = slab.map_or(&[][..], Slab::replicas);
        let whole = replicas.iter().filter(|r| r.is_whole());
        whole.map(move |r| r.at(page))
    }

    /// The first run of pages in use of a slab at or after `from`, of at most `most`:
    /// first page and length.
    pub fn used_run(&self, fill: Fill, from: u32, most: u32) -> Option<(u32, u32)> {
        let slab = self.slabs.get(fill.slab as usize)?.as_deref()?;
        slab.used_run(from, most)
    }

    /// These pages were copied.
    pub fn filled(&mut self, fill: Fill, page: u32, len: u32) {
        if self.target(fill, page).is_some()
            && let Some(slab) = self.slabs[fill.slab as usize].as_deref_mut()
        {
            slab.filled(page, len, fill.number);
        }
    }

    /// All pages were copied.
    pub fn end_fill(&mut self, fill: Fill) {
        if self.target(fill, 0).is_some() {
            self.change(fill.slab, |slab| {
                let mut replicas = slab.replicas_mut().iter_mut();
                let filling = replicas.find(|r| r.fill() == Some(fill.number));
                filling.into_iter().for_each(Replica::set_whole);
            });
        }
    }

    /// The replica is not made.
    pub fn give_up_fill(&mut self, fill: Fill) {
        if self.target(fill, 0).is_some() {
            self.abandon_fill(fill.slab);
        }
    }

    pub(super) fn abandon_fill(&mut self, name: u32) {
        let Some(slab) = self.slabs.get(name as usize).and_then(|s| s.as_deref()) else {
            return;
        };
        let filling = slab.replicas().iter().find(|r| r.is_filling());
        let Some((server, wire)) = filling.map(|r| (r.server(), r.wire())) else {
            return;
        };
        self.drop_replica(name, Replica::is_filling);
        if let Some(s) = self.server_mut(server) {
            s.give_up(wire);
        }
        self.may_be_degraded = true;
    }

    /// Whether a run of slots has any of these pages of the slab that is filled.
    pub fn meets(&self, first: Slot, count: u32, fill: Fill, pages: Range<u32>) -> bool {
        let is_of_it = first.slab() == fill.slab as usize;
        is_of_it && first.page() < pages.end && pages.start < first.page().saturating_add(count)
    }
}

fn group_of(slab: &Slab) -> Group {
    slab.replicas().iter().map(Replica::server).collect()
}
