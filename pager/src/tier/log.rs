//! Records of pages in segments, which are filled one after the other.
//!
//! A page that is written again gets a new record, and the old one is dead. Segments are
//! *cleaned*: what lives in one is copied to the newest, and its memory is free again. The
//! one with the least to copy comes first. When memory has reached its limit, the oldest
//! segments go to the spill file as they are. (Such logs are those of Rosenblum and
//! Ousterhout, "The design and implementation of a log-structured file system", ACM TOCS
//! 1992, in memory those of Rumble, Kejriwal and Ousterhout, "Log-structured memory for
//! DRAM-based storage", FAST 2014.)

use super::entry::{Entry, UNIT};
use super::index::Index;
use super::segments::Segments;
use super::spill::{Place as FilePlace, Spill};
use super::{Full, ReadError};
use crate::sys::mem::Region;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use tmem_wire::PAGE_SIZE;

/// Bytes of a segment.
pub(super) const SEGMENT: usize = 256 << 10;
/// Bytes of a record's header.
const HEADER: usize = 8;

/// Of memory in use, at least this much is to be alive, in sixteenths: more takes more
/// copying, less more memory.
const ALIVE: u64 = 12;
/// The most that is alive in a segment worth cleaning when memory has reached its limit, in
/// sixteenths: else the oldest segment goes to the spill file, or memory is full.
const WORTH_CLEANING: u64 = 12;
/// Without a spill file, nothing but cleaning makes room.
const WORTH_WITHOUT_SPILL: u64 = 15;
/// With fewer segments nothing is cleaned before the limit is reached.
const FEW: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The number is not in use.
    Nowhere,
    Memory(u32),
    File(FilePlace),
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    place: Place,
    /// The order in which segments were begun.
    begun: u64,
    /// Bytes of records that are alive, and of all.
    live: u32,
    end: u32,
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    memory: Segments,
    spill: Option<Spill>,
    segments: Vec<Segment>,
    vacant: Vec<u32>,
    begins: u64,
    /// The segment that is being filled.
    head: Option<u32>,
    /// The other segments in memory, oldest first.
    sealed: BTreeMap<u64, u32>,
    /// Bytes of records in memory that are alive.
    live: u64,
    /// The most segments that are to be in memory.
    limit: usize,
    /// For a page that is copied.
    copy: Vec<u8>,
}

/// Bytes that a record with so many bytes of a page takes.
fn size(len: usize) -> usize {
    (HEADER + len).next_multiple_of(UNIT)
}

impl Log {
    pub(super) fn new(memory: Segments, spill: Option<Spill>, limit: usize) -> Log {
        Log {
            memory,
            spill,
            segments: Vec::new(),
            vacant: Vec::new(),
            begins: 0,
            head: None,
            sealed: BTreeMap::new(),
            live: 0,
            limit: (limit / SEGMENT).max(1),
            copy: alloc::vec![0; PAGE_SIZE],
        }
    }

    /// Returns the same log in a forked child.
    ///
    /// # Safety
    /// The other value is not used in this process any more.
    pub(super) unsafe fn inherited(&self, spill: Option<Spill>) -> Log {
        Log {
            // SAFETY: by the caller.
            memory: unsafe { self.memory.inherited() },
            spill,
            segments: self.segments.clone(),
            vacant: self.vacant.clone(),
            begins: self.begins,
            head: self.head,
            sealed: self.sealed.clone(),
            live: self.live,
            limit: self.limit,
            copy: alloc::vec![0; PAGE_SIZE],
        }
    }

    pub(super) fn spill(&self) -> Option<&Spill> {
        self.spill.as_ref()
    }

    pub(super) fn spill_mut(&mut self) -> Option<&mut Spill> {
        self.spill.as_mut()
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = Region> {
        let buffer = self.spill.as_ref().map(Spill::region);
        self.memory.regions().chain(buffer)
    }

    /// Sets how many bytes of memory there may be.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit = (bytes / SEGMENT).max(1);
    }

    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.in_memory() * SEGMENT
    }

    /// Returns how many more bytes of records can be alive before it is full.
    pub(super) fn room(&self) -> u64 {
        if self.spill.as_ref().is_some_and(Spill::takes_more) {
            return u64::MAX;
        }
        let most = (self.limit * SEGMENT) as u64 / 16 * ALIVE;
        most.saturating_sub(self.live)
    }

    fn in_memory(&self) -> usize {
        self.sealed.len() + usize::from(self.head.is_some())
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn add(
        &mut self,
        index: &mut Index,
        (slab, page): (u32, u32),
        bytes: &[u8],
    ) -> Result<Entry, Full> {
        if !self.fits(bytes.len()) {
            self.seal();
            self.make_room(index)?;
        }
        self.append((slab, page), bytes)
    }

    fn fits(&self, len: usize) -> bool {
        let head = self.head.map(|head| self.segments[head as usize]);
        head.is_some_and(|head| head.end as usize + size(len) <= SEGMENT)
    }

    /// Ends the segment that is being filled.
    fn seal(&mut self) {
        let Some(head) = self.head.take() else {
            return;
        };
        let Segment { begun, live, .. } = self.segments[head as usize];
        self.sealed.insert(begun, head);
        if live == 0 {
            self.free(head);
        }
    }

    /// Adds a record to the last segment, or begins one, whatever the limit.
    fn append(&mut self, (slab, page): (u32, u32), bytes: &[u8]) -> Result<Entry, Full> {
        if !self.fits(bytes.len()) {
            self.seal();
            self.begin()?;
        }
        let head = self.head.ok_or(Full)?;
        let segment = &mut self.segments[head as usize];
        let Place::Memory(number) = segment.place else {
            return Err(Full);
        };
        let offset = segment.end as usize;
        let takes = size(bytes.len()) as u32;
        segment.end += takes;
        segment.live += takes;
        self.live += u64::from(takes);
        let record = self.memory.bytes_mut(number, offset, HEADER + bytes.len());
        let (header, rest) = record.split_at_mut(HEADER);
        header.copy_from_slice(&header_of(slab, page, bytes.len()));
        rest.copy_from_slice(bytes);
        Ok(Entry::new(head, offset, bytes.len()))
    }

    fn begin(&mut self) -> Result<(), Full> {
        let number = self.memory.take().ok_or(Full)?;
        self.begins += 1;
        let segment = Segment {
            place: Place::Memory(number),
            begun: self.begins,
            live: 0,
            end: 0,
        };
        self.head = Some(match self.vacant.pop() {
            Some(at) => {
                self.segments[at as usize] = segment;
                at
            }
            None => {
                self.segments.push(segment);
                self.segments.len() as u32 - 1
            }
        });
        Ok(())
    }

    /// Makes room for one more segment.
    fn make_room(&mut self, index: &mut Index) -> Result<(), Full> {
        let in_use = self.memory() as u64;
        if self.in_memory() >= FEW && self.live < in_use / 16 * ALIVE {
            self.clean_the_best(index, 16)?;
        }
        while self.in_memory() >= self.limit {
            let has_spill = self.spill.as_ref().is_some_and(Spill::takes_more);
            let worth = match has_spill {
                true => WORTH_CLEANING,
                false => WORTH_WITHOUT_SPILL,
            };
            if !self.clean_the_best(index, worth)? && !self.spill_the_oldest() {
                // What was granted and not written yet may take more than was expected.
                let most = self.limit + self.limit / 16 + 1;
                return (self.in_memory() < most).then_some(()).ok_or(Full);
            }
        }
        Ok(())
    }

    /// Cleans the segment with the least to copy, unless more than this is alive, in
    /// sixteenths. Returns whether there was one.
    fn clean_the_best(&mut self, index: &mut Index, worth: u64) -> Result<bool, Full> {
        let live = |id: &u32| self.segments[*id as usize].live;
        let best = self.sealed.values().copied().min_by_key(live);
        let most = (SEGMENT / 16) as u64 * worth;
        let Some(best) = best.filter(|id| u64::from(live(id)) < most) else {
            return Ok(false);
        };
        self.clean(index, best)?;
        Ok(true)
    }

    /// Copies what lives in a segment in memory to the newest one, and frees the segment.
    fn clean(&mut self, index: &mut Index, id: u32) -> Result<(), Full> {
        let Segment { place, end, .. } = self.segments[id as usize];
        let Place::Memory(number) = place else {
            return Ok(());
        };
        let mut copy = core::mem::take(&mut self.copy);
        let mut at = 0;
        let mut result = Ok(());
        // It is freed with its last record.
        while result.is_ok() && self.segments[id as usize].place == place && at < end as usize {
            let header = self.memory.bytes(number, at, HEADER);
            let (slab, page, len) = parse(header);
            let entry = Entry::new(id, at, len);
            if index.get(slab, page) == Some(entry) {
                let bytes = self.memory.bytes(number, at + HEADER, len);
                copy[..len].copy_from_slice(bytes);
                result = self.append((slab, page), &copy[..len]).map(|new| {
                    index.set(slab, page, new);
                    self.forget(entry);
                });
            }
            at += size(len);
        }
        self.copy = copy;
        result
    }

    /// Writes the oldest segment to the spill file. Returns whether that freed memory.
    fn spill_the_oldest(&mut self) -> bool {
        let (Some((&begun, &id)), Some(spill)) = (self.sealed.first_key_value(), &mut self.spill)
        else {
            return false;
        };
        let segment = &mut self.segments[id as usize];
        let Place::Memory(number) = segment.place else {
            return false;
        };
        let Some(place) = spill.write(self.memory.bytes(number, 0, SEGMENT)) else {
            return false;
        };
        segment.place = Place::File(place);
        self.live -= u64::from(segment.live);
        self.sealed.remove(&begun);
        self.memory.give_back(number);
        true
    }

    /// The record of an entry is dead.
    pub(super) fn forget(&mut self, entry: Entry) {
        let takes = size(entry.len()) as u32;
        let id = entry.segment();
        let segment = &mut self.segments[id as usize];
        segment.live -= takes;
        if let Place::Memory(_) = segment.place {
            self.live -= u64::from(takes);
        }
        if segment.live == 0 && self.head != Some(id) {
            self.free(id);
        }
    }

    /// Frees a segment in which nothing lives.
    fn free(&mut self, id: u32) {
        let segment = &mut self.segments[id as usize];
        match core::mem::replace(&mut segment.place, Place::Nowhere) {
            Place::Nowhere => return,
            Place::Memory(number) => {
                self.sealed.remove(&segment.begun);
                self.memory.give_back(number);
            }
            Place::File(place) => {
                if let Some(spill) = &mut self.spill {
                    spill.free(place);
                }
            }
        }
        self.vacant.push(id);
    }

    #[cfg(test)]
    pub(super) fn is_in_file(&self, entry: Entry) -> bool {
        matches!(
            self.segments[entry.segment() as usize].place,
            Place::File(_)
        )
    }

    /// Has `with` look at the bytes of a page's record.
    ///
    /// # Errors
    /// When it cannot be read, or is not that of the page.
    pub(super) fn read<R>(
        &mut self,
        (slab, page): (u32, u32),
        entry: Entry,
        with: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError> {
        let segment = self.segments.get(entry.segment() as usize);
        let len = HEADER + entry.len();
        let record = match segment.map_or(Place::Nowhere, |s| s.place) {
            Place::Nowhere => return Err(ReadError::Spoilt),
            Place::Memory(number) => self.memory.bytes(number, entry.offset(), len),
            Place::File(place) => {
                let spill = self.spill.as_mut().ok_or(ReadError::Spoilt)?;
                spill.read(place, entry.offset(), len)?
            }
        };
        let (header, bytes) = record.split_at(HEADER);
        match parse(header) == (slab, page, entry.len()) {
            true => Ok(with(bytes)),
            false => Err(ReadError::Spoilt),
        }
    }
}

fn header_of(slab: u32, page: u32, len: usize) -> [u8; HEADER] {
    let [s0, s1, s2, s3] = slab.to_ne_bytes();
    let [p0, p1] = (page as u16).to_ne_bytes();
    let [l0, l1] = (len as u16).to_ne_bytes();
    [s0, s1, s2, s3, p0, p1, l0, l1]
}

/// Returns the slab, the page and the length that a header names. The header has [`HEADER`]
/// bytes.
fn parse(header: &[u8]) -> (u32, u32, usize) {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let slab = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    (slab, u32::from(word(4)), usize::from(word(6)))
}
