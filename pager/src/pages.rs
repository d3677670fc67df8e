//! The page table: what the engine knows of each page.
//!
//! The table has regions of 4 GiB, of which a program has few. A region has chunks of 2
//! MiB, a chunk has blocks of 128 KiB, and a block has entries. Each is allocated when its
//! first page is used, so that scattered memory costs little. Once the region is found, a
//! lookup takes three steps.

mod entry;

pub(crate) use entry::{Page, State};

use crate::slots::Slot;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use entry::StoredPage;
use tmem_policy::PageNumber;

/// Pages of a chunk.
pub(crate) const CHUNK: u64 = 512;

/// Pages of a block.
const BLOCK_PAGES: u64 = 32;

/// Chunks of a region.
const REGION_CHUNKS: u64 = 2048;

type Block = [StoredPage; BLOCK_PAGES as usize];
type Chunk = [Option<Box<Block>>; (CHUNK / BLOCK_PAGES) as usize];
type Region = [Option<Box<Chunk>>];

/// The page table.
#[derive(Default)]
pub(crate) struct Pages {
    regions: BTreeMap<u64, Box<Region>>,
}

/// Returns the place of a page in its block.
fn place(page: PageNumber) -> usize {
    (page.get() % BLOCK_PAGES) as usize
}

impl Pages {
    fn block(&self, page: PageNumber) -> Option<&Block> {
        let page = page.get();
        let region = self.regions.get(&(page / CHUNK / REGION_CHUNKS))?;
        let chunk = region[(page / CHUNK % REGION_CHUNKS) as usize].as_deref()?;
        chunk[(page % CHUNK / BLOCK_PAGES) as usize].as_deref()
    }

    fn block_mut(&mut self, page: PageNumber) -> &mut Block {
        let page = page.get();
        let empty = || (0..REGION_CHUNKS).map(|_| None).collect();
        let region = self.regions.entry(page / CHUNK / REGION_CHUNKS);
        let region = region.or_insert_with(empty);
        let chunk = region[(page / CHUNK % REGION_CHUNKS) as usize].get_or_insert_default();
        chunk[(page % CHUNK / BLOCK_PAGES) as usize]
            .get_or_insert_with(|| Box::new([StoredPage::default(); BLOCK_PAGES as usize]))
    }

    /// Returns the entry of a page. A page without an entry has the default one.
    ///
    /// Inlined, so that only the fields that the caller uses are decoded.
    #[inline(always)]
    pub(crate) fn get(&self, page: PageNumber) -> Page {
        let block = self.block(page);
        block.map_or_else(Page::default, |b| b[place(page)].page())
    }

    /// Tells whether a page is not in the program, and can be restored.
    pub(crate) fn is_elsewhere(&self, page: PageNumber) -> bool {
        matches!(self.get(page).state, State::Remote | State::Pooled(_))
    }

    /// Replaces the entry of a page.
    pub(crate) fn set(&mut self, page: PageNumber, entry: &Page) {
        self.block_mut(page)[place(page)] = StoredPage::new(entry);
    }

    /// Changes the entry of a page.
    pub(crate) fn update(&mut self, page: PageNumber, change: impl FnOnce(&mut Page)) {
        let stored = &mut self.block_mut(page)[place(page)];
        let mut entry = stored.page();
        change(&mut entry);
        *stored = StoredPage::new(&entry);
    }

    /// Visits, in order, every entry of a page that is elsewhere or has a slot. Writes
    /// nothing, so that memory shared with a forked process stays shared.
    pub(crate) fn each(&self, mut visit: impl FnMut(PageNumber, &Page)) {
        for (&number, region) in &self.regions {
            for (number, chunk) in (number * REGION_CHUNKS..).zip(region.iter()) {
                let blocks = chunk.iter().flat_map(|chunk| chunk.iter());
                for (at, block) in (number * CHUNK..).step_by(BLOCK_PAGES as usize).zip(blocks) {
                    for (page, stored) in (at..).zip(block.iter().flat_map(|b| b.iter())) {
                        let entry = stored.page();
                        if entry.state != State::Local || entry.slot.is_some() {
                            visit(PageNumber::new(page), &entry);
                        }
                    }
                }
            }
        }
    }

    /// Finds up to `most` pages that are in the program and have a slot that is `wanted`.
    /// Starts at the page `from`, and reads about `entries` entries. Returns the page to
    /// continue at, or `None` at the end of the table.
    pub(crate) fn find_copied(
        &self,
        from: PageNumber,
        entries: usize,
        most: usize,
        wanted: impl Fn(Slot) -> bool,
        out: &mut Vec<(PageNumber, Slot)>,
    ) -> Option<PageNumber> {
        self.find(from, entries, most, out, |page, entry| {
            let slot = entry.slot.filter(|_| entry.state == State::Local)?;
            wanted(slot).then_some((page, slot))
        })
    }

    /// Collects what `wanted` returns for up to `most` entries, from the page `from` on. Looks
    /// at about `entries` entries. Returns where to go on; `None` after the last page.
    pub(crate) fn find<T>(
        &self,
        from: PageNumber,
        entries: usize,
        most: usize,
        out: &mut Vec<T>,
        wanted: impl Fn(PageNumber, &Page) -> Option<T>,
    ) -> Option<PageNumber> {
        let from = from.get();
        let mut left = entries.div_ceil(BLOCK_PAGES as usize);
        let chunks = self
            .regions
            .range(from / CHUNK / REGION_CHUNKS..)
            .flat_map(|(number, region)| (number * REGION_CHUNKS..).zip(region.iter()));
        for (number, chunk) in chunks.filter(|(number, _)| *number >= from / CHUNK) {
            let Some(chunk) = chunk else { continue };
            let blocks = (number * CHUNK..)
                .step_by(BLOCK_PAGES as usize)
                .zip(chunk.iter());
            for (at, block) in blocks.filter(|(at, _)| at + BLOCK_PAGES > from) {
                if left == 0 || out.len() >= most {
                    return Some(PageNumber::new(at.max(from)));
                }
                left -= 1;
                let stored = (at..).zip(block.iter().flat_map(|b| b.iter()));
                for (page, stored) in stored.filter(|(page, _)| *page >= from) {
                    if out.len() >= most {
                        return Some(PageNumber::new(page));
                    }
                    out.extend(wanted(PageNumber::new(page), &stored.page()));
                }
            }
        }
        None
    }

    /// Visits every entry that is not the default one, and stores the result.
    pub(crate) fn for_all(&mut self, mut visit: impl FnMut(PageNumber, &mut Page)) {
        self.blocks(0..u64::MAX, |at, block| {
            for (page, stored) in (at..).zip(block.iter_mut().flat_map(|b| &mut **b)) {
                let mut entry = stored.page();
                if entry != Page::default() {
                    visit(PageNumber::new(page), &mut entry);
                    *stored = StoredPage::new(&entry);
                }
            }
        });
    }

    /// Visits the entries of a range, in order.
    pub(crate) fn each_of(
        &mut self,
        pages: &Range<PageNumber>,
        mut visit: impl FnMut(PageNumber, &Page),
    ) {
        let range = pages.start.get()..pages.end.get();
        self.blocks(range.clone(), |at, block| {
            let entries = (at..).zip(block.iter().flat_map(|b| b.iter()));
            for (page, stored) in entries.filter(|(page, _)| range.contains(page)) {
                visit(PageNumber::new(page), &stored.page());
            }
        });
    }

    /// Removes the entries of a range, and appends those that are not the
    /// default one to `out`.
    pub(crate) fn take_range(
        &mut self,
        pages: &Range<PageNumber>,
        out: &mut Vec<(PageNumber, Page)>,
    ) {
        let range = pages.start.get()..pages.end.get();
        self.blocks(range.clone(), |at, block| {
            for (page, stored) in (at..).zip(block.iter_mut().flat_map(|b| &mut **b)) {
                if !range.contains(&page) {
                    continue;
                }
                let entry = core::mem::take(stored).page();
                if entry != Page::default() {
                    out.push((PageNumber::new(page), entry));
                }
            }
            // A block that lies wholly within the range is empty now.
            if range.start <= at && at + BLOCK_PAGES <= range.end {
                *block = None;
            }
        });
    }

    /// Visits the blocks with pages of a range in order, each with its first page.
    /// Frees chunks that have no blocks left.
    fn blocks(&mut self, pages: Range<u64>, mut visit: impl FnMut(u64, &mut Option<Box<Block>>)) {
        let Range { start, end } = pages;
        if start >= end {
            return;
        }
        let (first, last) = (start / CHUNK, (end - 1) / CHUNK);
        for (&number, region) in self
            .regions
            .range_mut(first / REGION_CHUNKS..=last / REGION_CHUNKS)
        {
            let base = number * REGION_CHUNKS;
            let from = first.saturating_sub(base) as usize;
            let to = (last - base).min(REGION_CHUNKS - 1) as usize;
            for (number, place) in (base..).zip(region.iter_mut()).take(to + 1).skip(from) {
                let Some(chunk) = place else { continue };
                let mut empty = true;
                for (at, block) in (number * CHUNK..)
                    .step_by(BLOCK_PAGES as usize)
                    .zip(&mut **chunk)
                {
                    if block.is_some() && at < end && at + BLOCK_PAGES > start {
                        visit(at, block);
                    }
                    empty &= block.is_none();
                }
                if empty {
                    *place = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
