//! Brings pages back from servers before they are touched, as far as there is room.

use crate::engine::memory::Memory;
use crate::engine::read_in::ahead;
use crate::engine::reclaim::Reclaim;
use crate::net::Lane;
use crate::pages::State;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// The most and the fewest pages asked for at a time, and the entries that are looked at for
/// them.
const BATCH: usize = 128;
const FEW: usize = 4;
const ENTRIES: usize = 8192;

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Recall {
    /// When it began.
    begun_ns: u64,
    /// The page to go on from.
    next: PageNumber,
}

impl Recall {
    /// Begins now.
    pub(crate) fn new(now: u64) -> Recall {
        Recall {
            begun_ns: now,
            next: PageNumber::new(0),
        }
    }

    /// Asks for some more pages; whether it has ended, with all pages back or no room left.
    pub(crate) fn go_on(&mut self, m: &mut Memory, reclaim: &mut Reclaim) -> bool {
        if !self.can_go_on(m) {
            return false;
        }
        let room = Recall::room(m);
        if room < FEW {
            // A larger budget that was asked for just before is taken at the next sample.
            return m.residency.sampled_ns() > self.begun_ns;
        }
        let mut pages = Vec::new();
        let next = m.pages.find(
            self.next,
            ENTRIES,
            room.min(BATCH),
            &mut pages,
            |page, entry| {
                let is_remote = entry.state == State::Remote && entry.slot.is_some();
                is_remote.then_some(page)
            },
        );
        ahead::fetch_pages(m, reclaim, &pages, None);
        match next {
            Some(next) => self.next = next,
            None => return true,
        }
        false
    }

    /// Whether it can go on at once.
    pub(crate) fn has_work(&self, m: &Memory) -> bool {
        self.can_go_on(m) && Recall::room(m) >= FEW
    }

    /// Pages that may come back.
    fn room(m: &Memory) -> usize {
        m.residency.marks().evict.saturating_sub(m.resident())
    }

    /// Whether no thread waits, and the last pages that were asked for are there.
    fn can_go_on(&self, m: &Memory) -> bool {
        m.faults.is_empty()
            && !m.is_forking()
            && m.backing.net.outstanding(Lane::Demand) == 0
            && m.backing.net.any_up()
    }
}
