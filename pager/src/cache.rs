//! The compressed cache's memory: compressed copies of evicted pages.
//!
//! Every page here is also on a server, and its page table entry has the digest of its
//! contents. So nothing in the cache has to be right: a copy that was overwritten, dropped,
//! or is older than the page is recognized when it is looked up, and the page is read from
//! its server.
//!
//! Copies lie in *segments*, in the order in which they were added. When there is no room,
//! the oldest segment is reused. A copy counts as new again when its page is evicted again:
//! if it lies in one of the oldest segments, it is copied to the newest.

mod record;

use crate::digest::Digester;
use crate::sys::area::Area;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use record::{HEADER, Record};
use tmem_policy::PageNumber;
use tmem_wire::{PAGE_SIZE, PageBytes, packed};

/// Pages of a segment.
pub(crate) const SEGMENT: usize = 64;
const BYTES: usize = SEGMENT * PAGE_SIZE;
/// Alignment of copies, in bytes.
const UNIT: usize = 16;
/// The largest copy that is worth its memory, in bytes.
const WORTH: usize = PAGE_SIZE * 3 / 4;
/// The oldest 1/`OLD` of the segments count as old.
const OLD: usize = 4;

/// Where a copy begins, in units, counted from 1.
pub(crate) type Place = NonZeroU32;

/// The compressed copies.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Address space for the area.
    space: &'static Space,
    area: Option<Area>,
    /// Segments in use, oldest first. The last one is being filled.
    order: VecDeque<u32>,
    /// Segments that were used before and are free, and the first one that was never used.
    spare: Vec<u32>,
    fresh: u32,
    /// For each segment the value of `begins` when it was begun.
    begun: Vec<u32>,
    begins: u32,
    /// Offset of the next copy in the last segment.
    at: usize,
    /// The most segments that may be in use.
    most: usize,
}

impl Cache {
    /// Creates an empty cache of up to `bytes` in `space`. It has no address space yet:
    /// most programs need no cache, and the kernel may count reserved address space against
    /// a limit.
    pub(crate) fn new(space: &'static Space, bytes: usize) -> Cache {
        let segments = (bytes / BYTES).min((u32::MAX as usize - 1) / (BYTES / UNIT));
        Cache {
            space,
            area: None,
            order: VecDeque::new(),
            spare: Vec::new(),
            fresh: 0,
            begun: alloc::vec![0; segments],
            begins: 0,
            at: BYTES,
            most: 0,
        }
    }

    /// Returns the memory of the cache.
    pub(crate) fn region(&self) -> Option<Region> {
        self.area.as_ref().map(Area::region)
    }

    /// Returns the pages of memory in use.
    pub(crate) fn pages(&self) -> usize {
        self.order.len() * SEGMENT
    }

    /// Returns the most pages of memory that can ever be in use.
    pub(crate) fn largest(&self) -> usize {
        self.begun.len() * SEGMENT
    }

    /// Sets the pages of memory that may be in use. Drops the oldest segments at once if
    /// there are more.
    pub(crate) fn set_pages(&mut self, pages: usize) {
        if pages >= SEGMENT && self.area.is_none() {
            self.area = Area::within(self.space, self.begun.len() * BYTES).ok();
        }
        if self.area.is_none() {
            return;
        }
        self.most = (pages / SEGMENT).min(self.begun.len());
        while self.order.len() > self.most {
            self.drop_oldest();
        }
    }

    /// Returns the pages of memory that may be in use.
    pub(crate) fn may_have(&self) -> usize {
        self.most * SEGMENT
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        if self.order.is_empty() {
            self.at = BYTES;
        }
        if let Some(area) = &mut self.area {
            area.give_back(oldest as usize * BYTES, BYTES);
        }
        self.spare.push(oldest);
    }

    /// Makes room for a copy. Returns its offset in the area.
    fn room(&mut self) -> Option<usize> {
        if self.most == 0 {
            return None;
        }
        if self.at + HEADER + packed::ROOM > BYTES {
            let segment = self.next_segment()?;
            self.begins = self.begins.wrapping_add(1);
            self.begun[segment as usize] = self.begins;
            self.order.push_back(segment);
            self.at = 0;
        }
        let last = *self.order.back()?;
        Some(last as usize * BYTES + self.at)
    }

    fn next_segment(&mut self) -> Option<u32> {
        if self.order.len() >= self.most {
            return self.order.pop_front();
        }
        let segment = self.spare.pop().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        // The whole segment is populated, so that the memory in use is known.
        self.area
            .as_mut()?
            .populate(segment as usize * BYTES, BYTES);
        Some(segment)
    }

    fn wrote(&mut self, start: usize, len: usize) -> Option<Place> {
        self.at += (HEADER + len).next_multiple_of(UNIT);
        Place::new((start / UNIT) as u32 + 1)
    }

    /// Adds a copy of a page, under its number and digest. `when` is the current time of
    /// the caller's clock. Returns `None` if the copy is too large or there is no room.
    pub(crate) fn put(
        &mut self,
        page: PageNumber,
        digest: u64,
        when: u32,
        bytes: &PageBytes,
    ) -> Option<(Place, usize)> {
        let start = self.room()?;
        let room = self.area.as_mut()?.bytes_mut(start, HEADER + packed::ROOM);
        let (header, rest) = room.split_at_mut(HEADER);
        let len = packed::pack_page(bytes, rest).filter(|len| *len <= WORTH)?;
        Record {
            page,
            digest,
            when,
            len,
        }
        .write(header);
        Some((self.wrote(start, len)?, len))
    }

    /// Finds the copy of a page at the place where it was put, if it is still there.
    fn find(&self, at: Option<Place>, page: PageNumber, digest: u64) -> Option<(usize, Record)> {
        let start = (at?.get() as usize - 1) * UNIT;
        let end = (start / BYTES + 1) * BYTES;
        let area = self.area.as_ref()?;
        if end > self.fresh as usize * BYTES || start + HEADER > end {
            return None;
        }
        let record = Record::read(area.bytes(start, HEADER))?;
        let is_it = record.page == page && record.digest == digest;
        (is_it && start + HEADER + record.len <= end).then_some((start, record))
    }

    /// Tells whether the copy of a page is still at the place where it was put.
    pub(crate) fn has(&self, at: Option<Place>, page: PageNumber, digest: u64) -> bool {
        self.find(at, page, digest).is_some()
    }

    /// Notes that a page is evicted again. Returns where its copy is, if it is still there.
    pub(crate) fn renew(
        &mut self,
        at: Option<Place>,
        page: PageNumber,
        digest: u64,
        when: u32,
    ) -> Option<Place> {
        let (start, record) = self.find(at, page, digest)?;
        let record = Record { when, ..record };
        let len = HEADER + record.len;
        let age = self.begins.wrapping_sub(self.begun[start / BYTES]) as usize;
        if age < self.most - self.most / OLD {
            record.write(self.area.as_mut()?.bytes_mut(start, HEADER));
            return at;
        }
        // The segment of the copy may be the one that is reused.
        let mut copy = [0; HEADER + WORTH];
        let copy = copy.get_mut(..len)?;
        copy.copy_from_slice(self.area.as_ref()?.bytes(start, len));
        let to = self.room()?;
        let room = self.area.as_mut()?.bytes_mut(to, len);
        room.copy_from_slice(copy);
        record.write(room);
        self.wrote(to, record.len)
    }

    /// Restores a page from its copy to `to`. Returns the time given to [`Cache::put`] or
    /// [`Cache::renew`]. `digester` is the one that made the digest. Without a copy returns
    /// `None`, and `to` may hold anything.
    pub(crate) fn unpack(
        &self,
        at: Option<Place>,
        page: PageNumber,
        digest: u64,
        digester: &Digester,
        to: &mut PageBytes,
    ) -> Option<u32> {
        let (start, record) = self.find(at, page, digest)?;
        let bytes = self.area.as_ref()?.bytes(start + HEADER, record.len);
        let is_whole = packed::unpack_page(bytes, to) && digester.digest(to, None) == digest;
        is_whole.then_some(record.when)
    }
}

#[cfg(test)]
pub(crate) mod tests;
