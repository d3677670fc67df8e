//! Packed copies of evicted pages, in a part of the local budget.
//!
//! Every page here is on a server, too, and its entry says by which digest to know it:
//! nothing of this has to be right. What was overwritten, given up or is older than the
//! page is found out when it is looked for, and the page is asked of its server.
//!
//! Copies lie in *segments*, in the order in which they came; where there is no room
//! left the oldest segment is used anew. Copies of pages that leave again while they
//! are still there count as new: those in the oldest segments are taken over to the
//! newest.

mod record;

use crate::digest::Digester;
use crate::sys::area::Area;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use record::{HEADER, Record};
use tmem_wire::{PAGE_SIZE, PageBytes, packed};

/// Pages of a segment.
pub(crate) const SEGMENT: usize = 64;
const BYTES: usize = SEGMENT * PAGE_SIZE;
/// Copies begin at multiples of so many bytes.
const UNIT: usize = 16;
/// A copy that takes more than this is not worth its place.
const WORTH: usize = PAGE_SIZE * 3 / 4;
/// Of the segments, a share of one in so many is old.
const OLD: usize = 4;

/// Where a copy begins, in units, from 1 on.
pub(crate) type Place = NonZeroU32;

/// The copies.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Where the area is to lie.
    space: &'static Space,
    area: Option<Area>,
    /// Segments in use, by when they were begun; the last is being filled.
    order: VecDeque<u32>,
    /// Those that were used once and are not any more, and the first that never was.
    spare: Vec<u32>,
    fresh: u32,
    /// When each was begun, by a count of those.
    begun: Vec<u32>,
    begins: u32,
    /// Where the next copy goes in the last one.
    at: usize,
    /// Segments that there may be.
    most: usize,
}

impl Cache {
    /// A cache that may have up to `bytes` in `space`, and has nothing yet, not even
    /// address space: where the kernel counts that against what there is, most programs
    /// need none.
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

    /// Where it lies.
    pub(crate) fn region(&self) -> Option<Region> {
        self.area.as_ref().map(Area::region)
    }

    /// Pages of memory that it has.
    pub(crate) fn pages(&self) -> usize {
        self.order.len() * SEGMENT
    }

    /// The most that it can ever have.
    pub(crate) fn largest(&self) -> usize {
        self.begun.len() * SEGMENT
    }

    /// Pages of memory that it may have from here on. What is too much is given up at
    /// once, the oldest first.
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

    /// Pages of memory that it may have.
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

    /// Room for a copy: where it is to begin, from the beginning of the area.
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
        // All of it, so that it is known how much there is.
        self.area
            .as_mut()?
            .populate(segment as usize * BYTES, BYTES);
        Some(segment)
    }

    fn wrote(&mut self, start: usize, len: usize) -> Option<Place> {
        self.at += (HEADER + len).next_multiple_of(UNIT);
        Place::new((start / UNIT) as u32 + 1)
    }

    /// Keeps a copy of a page, by its number and digest; `when` is now. `None` when it is
    /// not worth it, or there is no room.
    pub(crate) fn put(
        &mut self,
        page: u64,
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

    /// The copy of a page at a place where it was put, if it is still there.
    fn find(&self, at: Option<Place>, page: u64, digest: u64) -> Option<(usize, Record)> {
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

    /// Whether there is a copy of a page at a place where it was put.
    pub(crate) fn has(&self, at: Option<Place>, page: u64, digest: u64) -> bool {
        self.find(at, page, digest).is_some()
    }

    /// The page leaves again, `when` is now: where its copy is, if there is still one.
    pub(crate) fn renew(
        &mut self,
        at: Option<Place>,
        page: u64,
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
        // Its own segment may be the one that is used anew.
        let mut copy = [0; HEADER + WORTH];
        let copy = copy.get_mut(..len)?;
        copy.copy_from_slice(self.area.as_ref()?.bytes(start, len));
        let to = self.room()?;
        let room = self.area.as_mut()?.bytes_mut(to, len);
        room.copy_from_slice(copy);
        record.write(room);
        self.wrote(to, record.len)
    }

    /// Unpacks the copy of a page, if there is one; when it came, or its page left last, as
    /// [`Cache::put`] was told. `digester` made the digest. If there is none, `to` may hold
    /// anything.
    pub(crate) fn unpack(
        &self,
        at: Option<Place>,
        page: u64,
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
mod tests;
