//! The slabs whose replicas lie on the same servers.

use super::SMALL;
use super::group::Group;
use super::server::Server;
use super::slab::{Class, Slab};
use alloc::boxed::Box;
use alloc::vec::Vec;
use tmem_policy::placement::Share;

/// Slabs by how full they are, and what of them is used.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) group: Group,
    /// Names of slabs.
    classes: [Vec<u32>; Class::COUNT],
    /// The slab that long runs are being taken from.
    current: Option<u32>,
    /// Pages that can be allocated.
    free: u64,
    used: u64,
    /// Pages that this set is behind its share of the allocations, in 1/1024.
    pub(super) credit: i64,
}

impl Set {
    pub(super) fn new(group: Group) -> Set {
        Set {
            group,
            classes: Default::default(),
            current: None,
            free: 0,
            used: 0,
            credit: 0,
        }
    }

    fn servers<'a>(&self, all: &'a [Server]) -> impl Iterator<Item = &'a Server> + use<'a> {
        self.group.iter().filter_map(|s| all.get(s.index()))
    }

    /// What part it gets of the pages that its room would bring it: that of its slowest
    /// server, which each write waits for.
    pub(super) fn share(&self, all: &[Server]) -> Share {
        let shares = self.servers(all).map(|s| s.share);
        shares.min().unwrap_or_default()
    }

    pub(super) fn weight(&self, all: &[Server]) -> u64 {
        let grantable = self.servers(all).map(|s| s.grantable).min();
        let room = self.free.saturating_add(grantable.unwrap_or(0));
        self.share(all).of(room).max(1)
    }

    /// Pages that can be allocated now.
    pub(super) fn usable(&self, all: &[Server]) -> u64 {
        match self.free > 0 && self.servers(all).all(Server::takes_pages) {
            true => self.free,
            false => 0,
        }
    }

    /// Whether enough is on its way to one of its servers.
    pub(super) fn is_busy(&self, all: &[Server]) -> bool {
        self.servers(all).any(|s| s.busy)
    }

    /// Whether one of its servers means to end.
    pub(super) fn is_draining(&self, all: &[Server]) -> bool {
        self.servers(all).any(|s| s.draining)
    }

    /// Pages in use.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Takes in a slab.
    pub(super) fn add(&mut self, name: u32, slab: &mut Slab) {
        slab.class = slab.now();
        slab.place = self.enlist(name, slab.class);
        self.free += slab.open_pages();
        self.used += slab.used();
    }

    /// Counts a slab no longer, of which so many pages are free and in use.
    pub(super) fn remove(&mut self, name: u32, free: u64, used: u64) {
        self.free -= free;
        self.used -= used;
        if self.current == Some(name) {
            self.current = None;
        }
    }

    /// Pages of one of its slabs were allocated.
    pub(super) fn took(&mut self, pages: u64) {
        self.free -= pages;
        self.used += pages;
    }

    /// Pages of one of its slabs were freed, and can be allocated if it is open.
    pub(super) fn gave(&mut self, pages: u64, is_open: bool) {
        self.used -= pages;
        if is_open {
            self.free += pages;
        }
    }

    /// Puts a slab at the end of a list; its place there.
    pub(super) fn enlist(&mut self, name: u32, class: Class) -> u32 {
        let list = &mut self.classes[class.index()];
        list.push(name);
        list.len() as u32 - 1
    }

    /// Takes the slab at a place out of a list; the one that has this place now, if any.
    pub(super) fn unlist(&mut self, class: Class, place: u32) -> Option<u32> {
        let list = &mut self.classes[class.index()];
        list.swap_remove(place as usize);
        list.get(place as usize).copied()
    }

    /// The slab to take a run of `want` pages from.
    pub(super) fn slab_for(&mut self, want: u32, slabs: &[Option<Box<Slab>>]) -> Option<u32> {
        if want == 0 || self.free == 0 {
            return None;
        }
        let order = match want as usize <= SMALL {
            true => Class::FOR_SMALL,
            false => Class::FOR_LARGE,
        };
        if want as usize > SMALL
            && let Some(current) = self.current
            && let Some(Some(slab)) = slabs.get(current as usize)
            && slab.may_have_run(want)
        {
            return Some(current);
        }
        let found = order
            .iter()
            .find_map(|c| self.classes[c.index()].last().copied())?;
        if want as usize > SMALL {
            self.current = Some(found);
        }
        Some(found)
    }

    /// A slab in which nothing is and that is to be given back: any that is not to be
    /// written to, and any beyond the `keep` others.
    pub(super) fn to_give_back(&self, keep: usize) -> Option<u32> {
        let frozen = self.classes[Class::FROZEN_EMPTY.index()].last();
        let empty = &self.classes[Class::EMPTY.index()];
        frozen
            .or_else(|| empty.last().filter(|_| empty.len() > keep))
            .copied()
    }
}
