//! Remote memory: what servers grant, answer and fail to do.

pub(crate) mod awaited;
pub(crate) mod copies;
pub(crate) mod drains;
pub(crate) mod errors;
pub(crate) mod grants;
pub(crate) mod rediscovery;
pub(crate) mod repair;
pub(crate) mod requests;
pub(crate) mod reuse;
pub(crate) mod thaw;

use crate::digest::Digester;
use crate::engine::servers::awaited::Awaited;
use crate::net::{Completion, Servers};
use crate::slots::{Slot, Slots};
use alloc::string::String;
use alloc::vec::Vec;

/// The owner of everything about memory servers.
pub(crate) struct Backing {
    pub(crate) net: Servers,
    pub(crate) slots: Slots,
    /// Computes digests, which show whether a page is what the server was given.
    pub(crate) digester: &'static Digester,
    pub(crate) requests: requests::Requests,
    pub(crate) grants: grants::Grants,
    pub(crate) errors: errors::ServerErrors,
    pub(crate) rediscovery: rediscovery::Rediscovery,
    /// The move away from servers that mean to end.
    pub(crate) drains: drains::Drains,
    pub(crate) repair: repair::Repair,
    pub(crate) copies: copies::CopiesWatch,
    /// Pages that threads wait for, where other servers have them too.
    pub(crate) awaited: Awaited,
    /// Reads for which a server was chosen among several.
    pub(crate) turn: u64,
    /// Probes of frozen slabs under way.
    pub(crate) probes: usize,
    pub(crate) done: Vec<Completion>,
    /// Reasons why servers could not be used, before the first one was.
    pub(crate) refused: Vec<String>,
    /// A server could be used: pages may leave.
    pub(crate) was_up: bool,
}

impl Backing {
    /// Frees the slot of a page, if it has one.
    pub(crate) fn free_slot(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.free_slots(slot, 1);
        }
    }

    /// When something is to be done though no server has answered.
    pub(crate) fn due(&self, forking: bool) -> Option<u64> {
        let repair = self.repair.due().filter(|_| !forking);
        let dues = [self.errors.due(), self.awaited.due(), repair];
        dues.into_iter().flatten().min()
    }

    /// What to say is full when pages find no place.
    pub(crate) fn who_is_full(&self) -> &'static str {
        match self.net.local() {
            Some(local) if local.index() == 0 => "the local tier is full",
            Some(_) => "the memory servers and the local tier are full",
            None => "the memory servers are full",
        }
    }

    /// Tells servers that the program is about to end. Returns true when they know, or have
    /// had enough time.
    pub(crate) fn leave(&mut self, now: u64) -> bool {
        self.net.leave(now);
        self.net.send(now, &mut self.done);
        self.net.has_left(now)
    }

    /// Frees consecutive slots.
    pub(crate) fn free_slots(&mut self, first: Slot, n: u32) {
        self.repair.changes(&self.slots, first, n);
        for at in self.slots.writable(first) {
            self.net.discard(at, n);
        }
        self.slots.free(first, n);
    }

    fn has_better(&self, slot: Slot) -> bool {
        match self.slots.is_draining(slot) {
            true => self.slots.total_free() > 0,
            false => self.slots.has_better(slot),
        }
    }

    /// Gives up a page's place on a server that is far slower than others with room, or that means
    /// to end.
    /// The page, which is at hand, has no place then.
    pub(crate) fn leave_slow(&mut self, slot: Option<Slot>, forking: bool) -> bool {
        let leaves = !forking && slot.is_some_and(|slot| self.has_better(slot));
        if leaves {
            self.free_slot(slot);
        }
        leaves
    }
}
