//! An entry of the page table, and its stored form.

use crate::cache::Place;
use crate::frame_number::FrameNumber;
use crate::slots::Slot;
use tmem_policy::eviction::GENERATION_MASK;

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
pub(super) struct StoredPage {
    hash: u64,
    /// The slot in the low 40 bits, then flags, state, generation and epoch.
    bits: u64,
    frame: u32,
    copy: u32,
}

const _: () = assert!(size_of::<StoredPage>() == 24);
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

impl StoredPage {
    pub(super) fn new(page: &Page) -> StoredPage {
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
        StoredPage {
            hash: page.hash,
            bits,
            frame,
            copy: page.copy.map_or(0, Place::get),
        }
    }

    #[inline(always)]
    pub(super) fn page(self) -> Page {
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
