//! What servers grant, answer and fail to do.

pub(crate) mod awaited;
pub(crate) mod copies;
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

/// Where pages lie on servers, and what was asked of these.
pub(crate) struct Backing {
    pub(crate) net: Servers,
    pub(crate) slots: Slots,
    /// Tells whether a page is what a server was given.
    pub(crate) digester: &'static Digester,
    pub(crate) requests: requests::Requests,
    pub(crate) grants: grants::Grants,
    pub(crate) errors: errors::ServerErrors,
    pub(crate) rediscovery: rediscovery::Rediscovery,
    pub(crate) repair: repair::Repair,
    pub(crate) copies: copies::CopiesWatch,
    /// Pages that threads wait for, where other servers have them too.
    pub(crate) awaited: Awaited,
    /// Reads from which a page was to be chosen among several replicas.
    pub(crate) turn: u64,
    /// Probes of frozen slabs under way.
    pub(crate) probes: usize,
    pub(crate) done: Vec<Completion>,
    /// Why servers could not be had, before one was.
    pub(crate) refused: Vec<String>,
    /// A server was there: pages may leave.
    pub(crate) was_up: bool,
}

impl Backing {
    /// A slot is not needed any more.
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

    /// Tells servers that the program is about to end; whether they know, or had their time.
    pub(crate) fn leave(&mut self, now: u64) -> bool {
        self.net.leave(now);
        self.net.send(now, &mut self.done);
        self.net.has_left(now)
    }

    /// Slots that follow one another are not needed any more.
    pub(crate) fn free_slots(&mut self, first: Slot, n: u32) {
        self.repair.changes(&self.slots, first, n);
        for at in self.slots.writable(first) {
            self.net.discard(at, n);
        }
        self.slots.free(first, n);
    }

    /// Gives up a page's place on a server that is far slower than others with room.
    /// The page, which is at hand, has no place then.
    pub(crate) fn leave_slow(&mut self, slot: Option<Slot>, forking: bool) -> bool {
        let is_slow = slot.is_some_and(|slot| self.slots.has_better(slot));
        let leaves = is_slow && !forking;
        if leaves {
            self.free_slot(slot);
        }
        leaves
    }
}
