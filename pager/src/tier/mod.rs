//! The local tier: evicted pages in this machine's memory, compressed, and beyond a limit in
//! a file.
//!
//! It is used like a memory server that cannot fail: it grants slabs, and has what was
//! written to their pages. A forked child has a copy of everything, since the kernel copies
//! the memory, and reads the same files.
//!
//! Everything here is done at once by the caller's thread. What the engine asks is put in
//! order by [`crate::net`].

mod entry;
mod index;
mod log;
mod segments;
mod spill;
#[cfg(test)]
mod tests;

pub(crate) use index::SLAB_PAGES;

use crate::sys::errno::Words;
use crate::sys::fd::Fd;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use alloc::boxed::Box;
use alloc::vec::Vec;
use entry::Entry;
use index::Index;
use log::Log;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use segments::Segments;
use spill::Spill;
use thiserror::Error;
use tmem_wire::{PAGE_SIZE, PageBytes, packed};

/// A page that does not get smaller than this stays as it is: to decompress it costs more
/// than the memory is worth.
const WORTH: usize = PAGE_SIZE / 8 * 7;
/// After so many pages in a row that were not worth it, one of `TRIED` is compressed.
const IN_VAIN: u32 = 32;
const TRIED: u32 = 16;
/// What a page takes before any is known, in bytes.
const EXPECTED: u64 = PAGE_SIZE as u64 / 2;

/// There is no room in the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the local tier is full")]
pub(crate) struct Full;

/// Why a page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReadError {
    /// Nothing was written there.
    #[error("the local tier does not have it")]
    Absent,
    /// What is there is not what was written.
    #[error("the local tier has something else there")]
    Spoilt,
    /// The spill file cannot be read.
    #[error("the spill file cannot be read: {}", Words(*.0))]
    File(Errno),
}

/// The tier of one process.
#[derive(Debug)]
pub(crate) struct Tier {
    index: Index,
    log: Log,
    /// Where pages are compressed.
    packed: Box<[u8; packed::ROOM]>,
    /// Pages in a row that were not compressed.
    in_vain: u32,
    /// Bytes that pages take, as they are written.
    written: Average,
}

/// A moving average of the bytes that a page takes.
#[derive(Clone, Copy, Debug)]
struct Average(u64);

impl Average {
    /// Parts of a byte.
    const PARTS: u64 = 256;

    fn add(&mut self, bytes: usize) {
        self.0 = self.0 - self.0 / 64 + bytes as u64 * Self::PARTS / 64;
    }

    fn bytes(self) -> u64 {
        (self.0 / Self::PARTS).max(1)
    }
}

impl Tier {
    /// A tier that has up to `limit` bytes of memory in `space`, and more in files in
    /// `folder` if there is one.
    ///
    /// # Errors
    /// Those of the kernel, when there is no memory.
    pub(crate) fn new(
        space: &'static Space,
        limit: usize,
        folder: Option<Fd>,
    ) -> Result<Tier, Errno> {
        let spill = folder.map(|folder| Spill::new(folder, space)).transpose()?;
        Ok(Tier::of(
            Index::default(),
            Log::new(Segments::new(space), spill, limit),
        ))
    }

    fn of(index: Index, log: Log) -> Tier {
        Tier {
            index,
            log,
            packed: Box::new([0; packed::ROOM]),
            in_vain: 0,
            written: Average(EXPECTED * Average::PARTS),
        }
    }

    /// Returns the tier of a forked child, from its copy of the parent's. `descriptors` are
    /// those that the parent's [`Tier::descriptors`] gave.
    ///
    /// # Safety
    /// Nobody in this process uses the parent's any more.
    ///
    /// # Errors
    /// When a file is missing, or there is no memory.
    pub(crate) unsafe fn inherited(
        &self,
        space: &'static Space,
        descriptors: Vec<Fd>,
    ) -> Result<Tier, Errno> {
        let spill = self.log.spill();
        let spill = spill
            .map(|spill| spill.inherited(descriptors, space))
            .transpose()?;
        // SAFETY: by the caller.
        let log = unsafe { self.log.inherited(spill) };
        Ok(Tier {
            written: self.written,
            ..Tier::of(self.index.clone(), log)
        })
    }

    /// Returns the descriptors that a forked child needs.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.log.spill().into_iter().flat_map(Spill::descriptors)
    }

    /// Returns its address space.
    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> {
        self.log.regions()
    }

    /// A child that is forked now reads the same files.
    pub(crate) fn share(&mut self) {
        self.log.spill_mut().into_iter().for_each(Spill::share);
    }

    /// No forked child reads the files any more.
    pub(crate) fn is_alone(&mut self) {
        self.log.spill_mut().into_iter().for_each(Spill::is_alone);
    }

    /// Sets how many bytes of memory there may be.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        self.log.set_limit(bytes);
    }

    /// Returns the bytes of memory in use.
    pub(crate) fn memory(&self) -> usize {
        self.log.memory()
    }

    /// Returns the bytes in spill files.
    pub(crate) fn spilled(&self) -> u64 {
        self.log.spill().map_or(0, Spill::bytes)
    }

    /// Returns why pages could not be written to the spill file, if that is news, and allows
    /// another attempt.
    pub(crate) fn take_spill_error(&mut self) -> Option<Errno> {
        self.log.spill_mut().and_then(Spill::take_error)
    }

    /// Returns how many pages can still be granted, as far as can be told.
    pub(crate) fn free_pages(&self) -> u64 {
        let pages = self.log.room() / self.written.bytes();
        let unused = self.index.granted() - self.index.used();
        pages.saturating_sub(unused).min(1 << 40)
    }

    /// Grants a slab.
    ///
    /// # Errors
    /// [`Full`] when its pages would probably not find room.
    pub(crate) fn grant(&mut self) -> Result<u32, Full> {
        match self.free_pages() >= u64::from(SLAB_PAGES) {
            true => Ok(self.index.grant()),
            false => Err(Full),
        }
    }

    /// Takes a slab back, with everything that it has.
    pub(crate) fn release(&mut self, slab: u32) {
        for entry in self.index.release(slab) {
            self.log.forget(entry);
        }
    }

    /// Forgets what a page has.
    pub(crate) fn discard(&mut self, slab: u32, page: u32) {
        if let Some(entry) = self.index.set(slab, page, Entry::default()) {
            self.log.forget(entry);
        }
    }

    /// Writes a page.
    ///
    /// # Errors
    /// [`Full`]. The page has then what it had before.
    pub(crate) fn write(&mut self, slab: u32, page: u32, bytes: &PageBytes) -> Result<(), Full> {
        if !self.index.has(slab, page) {
            return Err(Full);
        }
        let len = self.compress(bytes);
        let record = match len {
            Some(len) => &self.packed[..len],
            None => &bytes[..],
        };
        let entry = self.log.add(&mut self.index, (slab, page), record)?;
        self.written.add(record.len());
        if let Some(old) = self.index.set(slab, page, entry) {
            self.log.forget(old);
        }
        Ok(())
    }

    /// Compresses a page, unless those before it were not worth it. Returns the bytes that it
    /// takes then.
    fn compress(&mut self, bytes: &PageBytes) -> Option<usize> {
        let skips = self.in_vain >= IN_VAIN && !self.in_vain.is_multiple_of(TRIED);
        let len = match skips {
            true => None,
            false => packed::pack_page(bytes, &mut self.packed[..]).filter(|len| *len <= WORTH),
        };
        self.in_vain = match len {
            Some(_) => 0,
            None => self.in_vain.checked_add(1).unwrap_or(IN_VAIN),
        };
        len
    }

    /// Reads a page.
    ///
    /// # Errors
    /// When it cannot be read. `to` may then hold anything.
    pub(crate) fn read(
        &mut self,
        slab: u32,
        page: u32,
        to: &mut PageBytes,
    ) -> Result<(), ReadError> {
        let entry = self.index.get(slab, page).ok_or(ReadError::Absent)?;
        let is_whole = self.log.read((slab, page), entry, |bytes| {
            if bytes.len() == PAGE_SIZE {
                to.copy_from_slice(bytes);
                return true;
            }
            packed::unpack_page(bytes, to)
        })?;
        match is_whole {
            true => Ok(()),
            false => Err(ReadError::Spoilt),
        }
    }
}
