//! Takes slots back from pages that are in the program, when servers are full.
//!
//! A page that was read in keeps its slot. While it is unchanged it can leave again without
//! a write, which saves time. When servers are full, the slot is worth more to a page that
//! has none: that page would otherwise stay in the program, above the budget.
//!
//! This loses nothing. The contents in the program are what counts: no read of the slot is
//! under way, and without a slot the page is written when it leaves. A write to the slot
//! may still be under way, but takes effect before any later write there (see
//! [`crate::net::Servers::discard`]). Slots that a child may read are left alone.

use crate::engine::memory::Memory;
use crate::slots::Slot;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// Entries of the page table to look at in one step, which takes about a millisecond.
const ENTRIES: usize = 1 << 16;

/// Takes up to `want` slots back. Returns how many.
pub(crate) fn take_slots_back(m: &mut Memory, want: usize) -> usize {
    // These slots are in the child's fork manifest.
    if m.has_asked_for_children() || m.backing.grants.reuse.is_exhausted() {
        return 0;
    }
    let mut found: Vec<(PageNumber, Slot)> = Vec::new();
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
