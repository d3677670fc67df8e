//! The slabs of the tier: where each of their pages lies.

use super::entry::Entry;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Pages of a slab.
pub(crate) const SLAB_PAGES: u32 = 1024;

type Table = [Entry; SLAB_PAGES as usize];

/// One table for each slab that was granted.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    slabs: Vec<Option<Box<Table>>>,
    vacant: Vec<u32>,
    granted: u64,
    used: u64,
}

impl Index {
    /// Adds a slab without any page. Returns its number.
    pub(super) fn grant(&mut self) -> u32 {
        let table = Box::new([Entry::default(); SLAB_PAGES as usize]);
        self.granted += 1;
        if let Some(slab) = self.vacant.pop() {
            self.slabs[slab as usize] = Some(table);
            return slab;
        }
        self.slabs.push(Some(table));
        self.slabs.len() as u32 - 1
    }

    /// Removes a slab. Returns the pages that it still had.
    pub(super) fn release(&mut self, slab: u32) -> Vec<Entry> {
        let table = self.slabs.get_mut(slab as usize).and_then(Option::take);
        let Some(table) = table else {
            return Vec::new();
        };
        self.vacant.push(slab);
        self.granted -= 1;
        let there: Vec<Entry> = table.into_iter().filter(|e| e.is_there()).collect();
        self.used -= there.len() as u64;
        there
    }

    /// Tells whether there is such a page, whatever it has.
    pub(super) fn has(&self, slab: u32, page: u32) -> bool {
        page < SLAB_PAGES && self.slabs.get(slab as usize).is_some_and(Option::is_some)
    }

    /// Returns where a page lies, if anywhere.
    pub(super) fn get(&self, slab: u32, page: u32) -> Option<Entry> {
        let table = self.slabs.get(slab as usize)?.as_deref()?;
        let entry = *table.get(page as usize)?;
        entry.is_there().then_some(entry)
    }

    /// Changes where a page lies. Returns where it lay before.
    pub(super) fn set(&mut self, slab: u32, page: u32, entry: Entry) -> Option<Entry> {
        let table = self.slabs.get_mut(slab as usize)?.as_deref_mut()?;
        let old = core::mem::replace(table.get_mut(page as usize)?, entry);
        self.used = self.used + u64::from(entry.is_there()) - u64::from(old.is_there());
        Some(old).filter(|old| old.is_there())
    }

    /// Returns the pages that lie somewhere.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns the pages of all slabs.
    pub(super) fn granted(&self) -> u64 {
        self.granted * u64::from(SLAB_PAGES)
    }
}
