//! The page table: what the engine knows of each page.
//!
//! The table has regions of 4 GiB, of which a program has few, chunks of 2 MiB within them,
//! blocks of 128 KiB within these, and entries within these. They are allocated when their
//! first page is used, so that scattered memory costs little. A lookup takes three steps
//! once its region is found.

use crate::cache::Place;
use crate::frame_number::FrameNumber;
use crate::slots::Slot;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_policy::PageNumber;
use tmem_policy::eviction::GENERATION_MASK;

/// Pages of a chunk.
pub(crate) const CHUNK: u64 = 512;

/// Where a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not held by the engine: in the program, or never touched.
    #[default]
    Local,
    /// In a frame of the pool.
    Pooled(FrameNumber),
    /// On a server only.
    Remote,
    /// Being read from a server into a frame.
    ReadIn(FrameNumber),
    /// Lost: its server is gone, and no other copy exists.
    Lost,
}

/// A page table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where the page is.
    pub(crate) state: State,
    /// The slot of the contents that `hash` is the digest of.
    pub(crate) slot: Option<Slot>,
    /// The [`crate::digest`] of the contents that were evicted last.
    pub(crate) hash: u64,
    /// In the eviction queue.
    pub(crate) queued: bool,
    /// Used again soon after an eviction.
    pub(crate) referenced: bool,
    /// A thread waits for the page.
    pub(crate) has_waiters: bool,
    /// Read ahead, and not used yet.
    pub(crate) ahead: bool,
    /// The slot may not have these contents yet: their write is pending, or was under way
    /// when the page returned.
    pub(crate) dirty: bool,
    /// When the page was last evicted, on the refault clock.
    pub(crate) epoch: u8,
    /// Generation of its place in the eviction queue, if it is queued.
    pub(crate) generation: u8,
    /// Where its compressed copy was put, which may be overwritten by now.
    pub(crate) copy: Option<Place>,
}

/// An entry in its stored form: 24 bytes for each page of 4096.
#[derive(Clone, Copy, Default)]
#[repr(C, packed(4))]
struct Packed {
    hash: u64,
    /// The slot in the low 40 bits, then flags, state, generation and epoch.
    bits: u64,
    frame: u32,
    copy: u32,
}

const _: () = assert!(size_of::<Packed>() == 24);
const SLOT: u64 = (1 << Slot::BITS) - 1;
const HAS_SLOT: u64 = 1 << 40;
const QUEUED: u64 = 1 << 41;
const REFERENCED: u64 = 1 << 42;
const HAS_WAITERS: u64 = 1 << 43;
const AHEAD: u64 = 1 << 44;
const STATE: u32 = 45;
const DIRTY: u64 = 1 << 48;
const GENERATION: u32 = 49;
const EPOCH: u32 = 56;

impl Packed {
    fn pack(page: &Page) -> Packed {
        let (state, frame) = match page.state {
            State::Local => (0, 0),
            State::Pooled(frame) => (1, frame.bits()),
            State::Remote => (2, 0),
            State::ReadIn(frame) => (3, frame.bits()),
            State::Lost => (4, 0),
        };
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let bits = page.slot.map_or(0, |s| s.bits() | HAS_SLOT)
            | flag(page.queued, QUEUED)
            | flag(page.referenced, REFERENCED)
            | flag(page.has_waiters, HAS_WAITERS)
            | flag(page.ahead, AHEAD)
            | flag(page.dirty, DIRTY)
            | (state << STATE)
            | (u64::from(page.generation & GENERATION_MASK) << GENERATION)
            | (u64::from(page.epoch) << EPOCH);
        Packed {
            hash: page.hash,
            bits,
            frame,
            copy: page.copy.map_or(0, Place::get),
        }
    }

    #[inline(always)]
    fn unpack(self) -> Page {
        let (bits, frame) = (self.bits, self.frame);
        Page {
            state: match bits >> STATE & 7 {
                0 => State::Local,
                1 => State::Pooled(FrameNumber::from_bits(frame)),
                2 => State::Remote,
                3 => State::ReadIn(FrameNumber::from_bits(frame)),
                _ => State::Lost,
            },
            slot: (bits & HAS_SLOT != 0).then(|| Slot::from_bits(bits & SLOT)),
            hash: self.hash,
            queued: bits & QUEUED != 0,
            referenced: bits & REFERENCED != 0,
            has_waiters: bits & HAS_WAITERS != 0,
            ahead: bits & AHEAD != 0,
            dirty: bits & DIRTY != 0,
            epoch: (bits >> EPOCH) as u8,
            generation: (bits >> GENERATION) as u8 & GENERATION_MASK,
            copy: Place::new(self.copy),
        }
    }
}

/// Pages of a block.
const BLOCK_PAGES: u64 = 32;

/// Chunks of a region.
const REGION_CHUNKS: u64 = 2048;

type Block = [Packed; BLOCK_PAGES as usize];
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
            .get_or_insert_with(|| Box::new([Packed::default(); BLOCK_PAGES as usize]))
    }

    /// Returns the entry of a page. A page without an entry has the default one.
    ///
    /// Inlined, so that only the fields that the caller uses are decoded.
    #[inline(always)]
    pub(crate) fn get(&self, page: PageNumber) -> Page {
        let block = self.block(page);
        block.map_or_else(Page::default, |b| b[place(page)].unpack())
    }

    /// Tells whether a page is not in the program, and can be restored.
    pub(crate) fn is_elsewhere(&self, page: PageNumber) -> bool {
        matches!(self.get(page).state, State::Remote | State::Pooled(_))
    }

    /// Replaces the entry of a page.
    pub(crate) fn set(&mut self, page: PageNumber, entry: &Page) {
        self.block_mut(page)[place(page)] = Packed::pack(entry);
    }

    /// Changes the entry of a page.
    pub(crate) fn update(&mut self, page: PageNumber, change: impl FnOnce(&mut Page)) {
        let packed = &mut self.block_mut(page)[place(page)];
        let mut entry = packed.unpack();
        change(&mut entry);
        *packed = Packed::pack(&entry);
    }

    /// Visits, in order, every entry of a page that is elsewhere or has a slot. Writes
    /// nothing, so that memory shared with a forked process stays shared.
    pub(crate) fn each(&self, mut visit: impl FnMut(PageNumber, &Page)) {
        for (&number, region) in &self.regions {
            for (number, chunk) in (number * REGION_CHUNKS..).zip(region.iter()) {
                let blocks = chunk.iter().flat_map(|chunk| chunk.iter());
                for (at, block) in (number * CHUNK..).step_by(BLOCK_PAGES as usize).zip(blocks) {
                    for (page, packed) in (at..).zip(block.iter().flat_map(|b| b.iter())) {
                        let entry = packed.unpack();
                        if entry.state != State::Local || entry.slot.is_some() {
                            visit(PageNumber::new(page), &entry);
                        }
                    }
                }
            }
        }
    }

    /// Finds up to `most` pages that are in the program and have a slot that is `wanted`.
    /// Starts at the page `from`, and looks at about `entries` entries. Returns where to go
    /// on, or `None` at the end of the table.
    pub(crate) fn find_copied(
        &self,
        from: PageNumber,
        entries: usize,
        most: usize,
        wanted: impl Fn(Slot) -> bool,
        out: &mut Vec<(PageNumber, Slot)>,
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
                let packed = (at..).zip(block.iter().flat_map(|b| b.iter()));
                for (page, packed) in packed.filter(|(page, _)| *page >= from) {
                    if out.len() >= most {
                        return Some(PageNumber::new(page));
                    }
                    let entry = packed.unpack();
                    let slot = entry.slot.filter(|_| entry.state == State::Local);
                    out.extend(
                        slot.filter(|slot| wanted(*slot))
                            .map(|slot| (PageNumber::new(page), slot)),
                    );
                }
            }
        }
        None
    }

    /// Visits every entry that is not the default one, and stores the result.
    pub(crate) fn for_all(&mut self, mut visit: impl FnMut(PageNumber, &mut Page)) {
        self.blocks(0..u64::MAX, |at, block| {
            for (page, packed) in (at..).zip(block.iter_mut().flat_map(|b| &mut **b)) {
                let mut entry = packed.unpack();
                if entry != Page::default() {
                    visit(PageNumber::new(page), &mut entry);
                    *packed = Packed::pack(&entry);
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
            for (page, packed) in entries.filter(|(page, _)| range.contains(page)) {
                visit(PageNumber::new(page), &packed.unpack());
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
            for (page, packed) in (at..).zip(block.iter_mut().flat_map(|b| &mut **b)) {
                if !range.contains(&page) {
                    continue;
                }
                let entry = core::mem::take(packed).unpack();
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = FrameNumber> {
        (1..u32::MAX).prop_map(FrameNumber::from_bits)
    }

    fn page() -> impl Strategy<Value = Page> {
        let state = prop_oneof![
            Just(State::Local),
            frame().prop_map(State::Pooled),
            Just(State::Remote),
            frame().prop_map(State::ReadIn),
            Just(State::Lost),
        ];
        let slot = prop::option::of(any::<u64>().prop_map(Slot::from_bits));
        (state, slot, any::<(u64, [bool; 5], u8, u8, u32)>()).prop_map(
            |(state, slot, (hash, b, epoch, generation, copy))| Page {
                state,
                slot,
                hash,
                queued: b[0],
                referenced: b[1],
                has_waiters: b[2],
                ahead: b[3],
                dirty: b[4],
                epoch,
                generation: generation & GENERATION_MASK,
                copy: Place::new(copy),
            },
        )
    }

    #[test]
    fn pages_in_the_program_that_have_a_wanted_slot_are_found_in_turn() {
        let mut pages = Pages::default();
        let slot = |n: u64| Some(Slot::from_bits(n));
        let numbers: Vec<u64> = (0..200).map(|n| n * 37 + (n % 3) * CHUNK * 5000).collect();
        for &n in &numbers {
            let state = match n % 4 {
                0 => State::Remote,
                1 => State::Pooled(FrameNumber::new(7)),
                _ => State::Local,
            };
            let slot = slot(n).filter(|_| !n.is_multiple_of(5));
            pages.set(
                PageNumber::new(n),
                &Page {
                    state,
                    slot,
                    ..Page::default()
                },
            );
        }
        let wanted = |slot: Slot| !slot.bits().is_multiple_of(7);
        let is_due = |n: &u64| n % 4 > 1 && !n.is_multiple_of(5) && !n.is_multiple_of(7);
        let mut expected: Vec<_> = numbers.iter().copied().filter(is_due).collect();
        expected.sort_unstable();
        for (entries, most) in [(1, 1), (100, 3), (1 << 20, 1 << 20)] {
            let (mut found, mut from, mut looks) = (Vec::new(), Some(PageNumber::new(0)), 0);
            while let Some(at) = from {
                let mut some = Vec::new();
                from = pages.find_copied(at, entries, most, wanted, &mut some);
                assert!(some.len() <= most);
                assert!(some.iter().all(|(page, at)| slot(page.get()) == Some(*at)));
                found.extend(some.into_iter().map(|(page, _)| page.get()));
                looks += 1;
            }
            assert_eq!(found, expected);
            assert!(looks > 1 || most > 1000);
        }
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_it_was_stored(page in page(), at in 0u64..1 << 36) {
            let mut pages = Pages::default();
            let at = PageNumber::new(at);
            pages.set(at, &page);
            prop_assert_eq!(pages.get(at), page);
            prop_assert_eq!(pages.get(at + 1), Page::default());
        }

        #[test]
        fn taking_a_range_takes_its_entries_and_no_others(
            set in proptest::collection::btree_set(0u64..3000, 0..60), a in 0u64..3000, b in 0u64..3000,
        ) {
            let (a, b) = (a.min(b), a.max(b));
            let mut pages = Pages::default();
            for &p in &set {
                pages.update(PageNumber::new(p), |e| e.state = State::Remote);
            }
            let mut out = Vec::new();
            pages.take_range(&(PageNumber::new(a)..PageNumber::new(b)), &mut out);
            let taken: Vec<u64> = out.iter().map(|(p, _)| p.get()).collect();
            let expected: Vec<u64> = set.range(a..b).copied().collect();
            prop_assert_eq!(&taken, &expected);
            let mut left = Vec::new();
            pages.each(|p, e| left.push((p.get(), e.state)));
            let expected: Vec<_> = set.iter().filter(|p| !(a..b).contains(*p)).map(|p| (*p, State::Remote)).collect();
            prop_assert_eq!(left, expected);
            for p in 0..3000 {
                let there = set.contains(&p) && !(a..b).contains(&p);
                prop_assert_eq!(pages.get(PageNumber::new(p)).state == State::Remote, there);
            }
        }
    }
}
