//! The slabs of one server.

use super::slab::{Class, Slab};
use super::{MAX_SLABS, SMALL};
use alloc::vec::Vec;
use tmem_policy::placement::Share;

/// What one server has granted, and what of it is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// 0 until the geometry is known, and again after the server was lost.
    pub(super) slab_pages: u32,
    /// By local index. The places of slabs given back are used again; those of
    /// a lost server are not, so that a stale slot names nothing.
    pub(super) slabs: Vec<Option<Slab>>,
    pub(super) vacant: Vec<u32>,
    /// Indices of slabs by how full they are.
    pub(super) classes: [Vec<u32>; Class::COUNT],
    /// The slab that long runs are being taken from.
    pub(super) current: Option<u32>,
    /// Granted, but beyond what can be numbered: to be given back.
    pub(super) surplus: Vec<u32>,
    pub(super) free: u64,
    pub(super) used: u64,
    pub(super) grantable: u64,
    /// The slab after that which was looked at last, whether it is still
    /// shared.
    pub(super) probed: usize,
    /// Pages that this server is behind its share of the allocations, in
    /// 1/1024.
    pub(super) credit: i64,
    /// Of the pages that its room would bring it.
    pub(super) share: Share,
    /// Nothing is written to it for the moment.
    pub(super) resting: bool,
    /// It means to end: nothing is written to it any more.
    pub(super) draining: bool,
    /// Enough is on its way to it.
    pub(super) busy: bool,
}

impl Server {
    pub(super) fn weight(&self) -> u64 {
        let room = self.free.saturating_add(self.grantable);
        self.share.of(room).max(1)
    }

    /// Pages that can be allocated now.
    pub(super) fn usable(&self) -> u64 {
        if self.resting || self.draining {
            0
        } else {
            self.free
        }
    }

    /// Allocates nothing in a slab, and has nothing written there, until it is
    /// thawed.
    pub(super) fn freeze(&mut self, index: usize) {
        if self.current == Some(index as u32) {
            self.current = None;
        }
        if let Some(Some(slab)) = self.slabs.get_mut(index)
            && !slab.frozen
        {
            slab.frozen = true;
            self.free -= u64::from(slab.free());
            self.reclass(index);
        }
    }

    pub(super) fn add_slab(&mut self, wire: u32) {
        let mut slab = Slab::new(wire, self.slab_pages);
        let index = match self.vacant.pop() {
            Some(index) => index as usize,
            None if self.slabs.len() < MAX_SLABS => {
                self.slabs.push(None);
                self.slabs.len() - 1
            }
            None => {
                self.surplus.push(wire);
                return;
            }
        };
        let class = &mut self.classes[slab.class.index()];
        slab.place = class.len() as u32;
        class.push(index as u32);
        self.slabs[index] = Some(slab);
        self.free += u64::from(self.slab_pages);
        self.grantable = self.grantable.saturating_sub(u64::from(self.slab_pages));
    }

    /// One run of at most `want` pages: slab, first page, length.
    pub(super) fn alloc_run(&mut self, want: usize) -> Option<(usize, u32, u32)> {
        let want = want.min(self.slab_pages as usize) as u32;
        if want == 0 || self.free == 0 {
            return None;
        }
        let index = self.slab_for(want)?;
        let slab = self.slabs[index].as_mut()?;
        let (page, len) = slab.take_run(want)?;
        self.free -= u64::from(len);
        self.used += u64::from(len);
        self.reclass(index);
        Some((index, page, len))
    }

    /// The slab to take a run of `want` pages from.
    pub(super) fn slab_for(&mut self, want: u32) -> Option<usize> {
        let order = if want as usize <= SMALL {
            Class::FOR_SMALL
        } else {
            Class::FOR_LARGE
        };
        if want as usize > SMALL
            && let Some(current) = self.current
            && let Some(Some(slab)) = self.slabs.get(current as usize)
            && slab.may_have_run(want)
        {
            return Some(current as usize);
        }
        let found = order
            .iter()
            .find_map(|c| self.classes[c.index()].last().copied())?;
        if want as usize > SMALL {
            self.current = Some(found);
        }
        Some(found as usize)
    }

    /// Moves a slab to the class that it now belongs to.
    pub(super) fn reclass(&mut self, index: usize) {
        let Some(Some(slab)) = self.slabs.get_mut(index) else {
            return;
        };
        let class = slab.now();
        if class == slab.class {
            return;
        }
        let (old, place) = (slab.class, slab.place);
        slab.class = class;
        slab.place = self.classes[class.index()].len() as u32;
        self.classes[class.index()].push(index as u32);
        self.unlist(old, place);
    }

    pub(super) fn unlist(&mut self, class: Class, place: u32) {
        let list = &mut self.classes[class.index()];
        list.swap_remove(place as usize);
        if let Some(&moved) = list.get(place as usize)
            && let Some(Some(slab)) = self.slabs.get_mut(moved as usize)
        {
            slab.place = place;
        }
    }

    /// Drops a slab without pages in use; returns its name on the wire.
    pub(super) fn remove(&mut self, index: u32) -> Option<u32> {
        let slab = self.slabs.get_mut(index as usize)?.take()?;
        self.unlist(slab.class, slab.place);
        self.vacant.push(index);
        if self.current == Some(index) {
            self.current = None;
        }
        Some(slab.wire)
    }
}
