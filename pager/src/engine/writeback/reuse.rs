//! Takes slots back from pages that are in the program, once servers have no more to give.
//!
//! A page that was fetched keeps its slot: as long as it is not changed it can leave again
//! without being written. That is a saving while servers have room. Where they have none,
//! such a slot is worth more to a page that has none and has to leave: without it that page
//! would stay in the program beyond the budget.
//!
//! Nothing is lost by it. The page is in the program, and what is there counts: no read of
//! the slot is under way, and without a slot the page is written when it leaves. A write to
//! the slot may be under way still; it takes effect before what is written there later, see
//! [`crate::net::Servers::discard`]. Slots that a child may read are left alone.

use crate::engine::memory::Memory;
use crate::slots::Slot;
use alloc::vec::Vec;

/// Entries of the page table looked at in one go, about a millisecond's worth.
const ENTRIES: usize = 1 << 16;

/// Takes up to `want` slots back from pages that are in the program; how many.
pub(crate) fn take_slots_back(m: &mut Memory, want: usize) -> usize {
    // A child is told of them.
    if m.has_asked_for_children() || m.backing.grants.reuse.is_exhausted() {
        return 0;
    }
    let mut found: Vec<(u64, Slot)> = Vec::new();
    let from = m.backing.grants.reuse.cursor();
    let slots = &m.backing.slots;
    let next = m.pages.find_copied(
        from,
        ENTRIES,
        want,
        |slot| !slots.is_frozen(slot),
        &mut found,
    );
    m.backing.grants.reuse.looked(!found.is_empty(), next);
    for (page, _) in &found {
        m.pages.update(*page, |p| p.slot = None);
    }
    let mut slots: Vec<Slot> = found.iter().map(|(_, slot)| *slot).collect();
    slots.sort_unstable();
    for run in slots.chunk_by(|a, b| a.is_before(*b)) {
        m.backing.free_slots(run[0], run.len() as u32);
    }
    slots.len()
}
