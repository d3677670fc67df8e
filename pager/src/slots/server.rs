//! What one server has granted, and how it does.

use super::group::Location;
use alloc::vec::Vec;
use tmem_policy::placement::Share;

/// One server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) location: Location,
    /// 0 until the geometry is known, and again after the server was lost.
    pub(super) slab_pages: u32,
    /// Granted, and in no group yet.
    pub(super) bare: Vec<u32>,
    /// To be given back.
    pub(super) surplus: Vec<u32>,
    /// Pages of slabs that it has granted and that are not to be given back.
    pub(super) granted: u64,
    pub(super) grantable: u64,
    /// Of the pages that its room would bring it.
    pub(super) share: Share,
    /// Nothing is written to it for the moment.
    pub(super) resting: bool,
    /// It means to end: nothing is written to it any more.
    pub(super) draining: bool,
    /// Enough is on its way to it.
    pub(super) busy: bool,
    /// It was not there yet, and may be soon.
    pub(super) is_expected: bool,
}

impl Server {
    pub(super) fn new(location: Location) -> Server {
        Server {
            location,
            slab_pages: 0,
            bare: Vec::new(),
            surplus: Vec::new(),
            granted: 0,
            grantable: 0,
            share: Share::default(),
            resting: false,
            draining: false,
            busy: false,
            is_expected: true,
        }
    }

    /// Everything that it has granted is gone.
    pub(super) fn lost(&mut self) {
        *self = Server {
            is_expected: false,
            ..Server::new(self.location)
        };
    }

    /// Whether pages may be written to it now.
    pub(super) fn takes_pages(&self) -> bool {
        !self.resting && !self.draining
    }

    /// A slab is to be given back.
    pub(super) fn give_up(&mut self, wire: u32) {
        let pages = u64::from(self.slab_pages);
        self.granted = self.granted.saturating_sub(pages);
        self.grantable = self.grantable.saturating_add(pages);
        self.surplus.push(wire);
    }
}
