//! Which servers hold the replicas of a slab together.

use super::server::Server;
use super::slab::Slab;
use super::{MAX_COPIES, Slots};
use crate::ServerId;

/// Where a server is, as far as it matters to what fails together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Its machine, by any number that machines do not share.
    pub machine: u16,
    /// Its zone, likewise; none where the user has named none.
    pub zone: Option<u16>,
    /// It is the local tier: a place for what no server has room for. It cannot be lost, so
    /// nothing there has a second replica.
    pub is_here: bool,
}

/// Up to [`MAX_COPIES`] servers, each once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    servers: [Option<ServerId>; MAX_COPIES],
}

impl PartialEq for Group {
    /// Whether they are the same servers, in any order.
    fn eq(&self, other: &Group) -> bool {
        self.len() == other.len() && self.iter().all(|s| other.has(s))
    }
}

impl Group {
    /// The servers.
    pub fn iter(&self) -> impl Iterator<Item = ServerId> + use<> {
        self.servers.into_iter().flatten()
    }

    /// How many servers.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `server` is one of them.
    pub fn has(&self, server: ServerId) -> bool {
        self.iter().any(|s| s == server)
    }

    /// Adds a server, as long as there is a place for it.
    pub(super) fn add(&mut self, server: ServerId) {
        if let Some(place) = self.servers.iter_mut().find(|s| s.is_none()) {
            *place = Some(server);
        }
    }
}

impl FromIterator<ServerId> for Group {
    fn from_iter<I: IntoIterator<Item = ServerId>>(servers: I) -> Group {
        let mut group = Group::default();
        servers.into_iter().for_each(|s| group.add(s));
        group
    }
}

impl Slots {
    /// The servers for the next slab group: as many as there are to be replicas, or as can
    /// be had. Empty while a server is expected that would have part in it.
    pub fn next_group(&self) -> Group {
        let mut group = Group::default();
        while group.len() < self.copies
            && let Some(server) = self.partner(&group, 1)
        {
            group.add(server);
            if self.is_here(server) {
                return group;
            }
        }
        let expected = self.servers.iter().filter(|s| s.is_expected).count();
        match group.len() < self.copies && expected > 0 && self.copies > 1 {
            true => Group::default(),
            false => group,
        }
    }

    /// Whether it is the local tier.
    pub(super) fn is_here(&self, server: ServerId) -> bool {
        let server = self.servers.get(server.index());
        server.is_some_and(|s| s.location.is_here)
    }

    /// Whether a slab is in the local tier.
    pub(super) fn has_here(&self, slab: &Slab) -> bool {
        slab.replicas().iter().any(|r| self.is_here(r.server()))
    }

    /// The best server beside those of a group, with slabs of at least so many pages: on
    /// another machine if possible, and in another zone if possible.
    pub(super) fn partner(&self, group: &Group, least_pages: u32) -> Option<ServerId> {
        let others = ServerId::all().zip(&self.servers);
        let is_expected = self.servers.iter().any(|s| s.is_expected);
        let may_be = |s: &Server| !s.location.is_here || group.is_empty() && !is_expected;
        let able = others.filter(|(id, s)| {
            s.can_have_more() && s.slab_pages >= least_pages && !group.has(*id) && may_be(s)
        });
        let best = able.min_by_key(|(_, s)| {
            let with = |apart: fn(&Location, &Location) -> bool| {
                let of = |id: ServerId| &self.servers[id.index()].location;
                group
                    .iter()
                    .filter(|id| !apart(of(*id), &s.location))
                    .count()
            };
            (
                s.location.is_here,
                with(is_other_machine),
                with(is_other_zone),
                s.bare.is_empty(),
                s.filled_part(),
            )
        });
        best.map(|(id, _)| id)
    }
}

fn is_other_machine(a: &Location, b: &Location) -> bool {
    a.machine != b.machine
}

fn is_other_zone(a: &Location, b: &Location) -> bool {
    a.zone.is_none() || a.zone != b.zone
}

impl Server {
    /// Whether it has a slab without a group, or could grant one.
    fn can_have_more(&self) -> bool {
        let grants = self.grantable >= u64::from(self.slab_pages);
        self.slab_pages > 0 && self.takes_pages() && (grants || !self.bare.is_empty())
    }

    /// Which part of its memory is granted, by its share: the smallest is asked first.
    fn filled_part(&self) -> u128 {
        let granted = self.granted;
        let all = granted.saturating_add(self.grantable).max(1);
        // With the slab to come, so that a small share counts from the first.
        let then = u128::from(granted) + u128::from(self.slab_pages);
        self.share.against((then << 32) / u128::from(all))
    }
}
