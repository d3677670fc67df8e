//! The spill file: segments of the log that memory has no room for.
//!
//! The file has no name, so it ends with the processes that have it open. A segment is
//! written as a whole, past the page cache where the file system can do that. Its place in
//! the file is used again once nothing in it is alive.
//!
//! A forked child has the same file open. While it may, both read what is there, and
//! neither writes over it: each writes to a further file of its own.

use super::ReadError;
use super::log::SEGMENT;
use crate::sys::area::Area;
use crate::sys::fd::Fd;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use crate::sys::{files, thread};
use alloc::vec::Vec;
use core::ops::Range;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Bytes that are read at once while pages are read in order.
const IN_ORDER: usize = 64 << 10;

/// Where a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: u16,
    /// Counted in segments.
    number: u32,
}

#[derive(Debug)]
struct File {
    fd: Fd,
    /// Places that were used before and are free, and the first that was never used.
    free: Vec<u32>,
    fresh: u32,
    /// A process that was forked may read it.
    is_shared: bool,
    /// Places that are free once it is not shared.
    later: Vec<u32>,
}

/// The spill files of a process.
#[derive(Debug)]
pub(super) struct Spill {
    folder: Fd,
    files: Vec<File>,
    /// Why the last write failed. Nothing is written until the next attempt is allowed.
    failed: Option<Errno>,
    /// Parts of one segment, at their offsets.
    buffer: Area,
    has: Option<(Place, Range<usize>)>,
}

impl Spill {
    /// Spills to a file in `folder`.
    ///
    /// # Errors
    /// Those of the kernel, when there is no memory.
    pub(super) fn new(folder: Fd, space: &'static Space) -> Result<Spill, Errno> {
        Ok(Spill {
            folder,
            files: Vec::new(),
            failed: None,
            buffer: Area::within(space, SEGMENT)?,
            has: None,
        })
    }

    /// Returns the address space of its buffer.
    pub(super) fn region(&self) -> Region {
        self.buffer.region()
    }

    /// Tells whether the last write went well.
    pub(super) fn takes_more(&self) -> bool {
        self.failed.is_none()
    }

    /// Returns why the last write failed, and allows another attempt.
    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.failed.take()
    }

    /// Returns the bytes of segments in files.
    pub(super) fn bytes(&self) -> u64 {
        let used = |f: &File| u64::from(f.fresh) - f.free.len() as u64;
        self.files.iter().map(used).sum::<u64>() * SEGMENT as u64
    }

    /// Returns the descriptors that a forked child needs: the folder, then the files.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let files = self.files.iter().map(|f| f.fd.as_fd());
        core::iter::once(self.folder.as_fd()).chain(files)
    }

    /// A child that is forked now reads these files.
    pub(super) fn share(&mut self) {
        self.files.iter_mut().for_each(|f| f.is_shared = true);
    }

    /// No other process reads the files that this one has made.
    pub(super) fn is_alone(&mut self) {
        for file in self.files.iter_mut().filter(|f| f.is_shared) {
            file.is_shared = false;
            file.free.append(&mut file.later);
        }
    }

    /// Returns the same files in a forked child, by its own descriptors.
    ///
    /// # Errors
    /// Those of the kernel, when there is no memory; `BADF` when a descriptor is missing.
    pub(super) fn inherited(
        &self,
        descriptors: Vec<Fd>,
        space: &'static Space,
    ) -> Result<Spill, Errno> {
        let mut descriptors = descriptors.into_iter();
        let folder = descriptors.next().ok_or(Errno::BADF)?;
        let mut spill = Spill::new(folder, space)?;
        for file in &self.files {
            spill.files.push(File {
                fd: descriptors.next().ok_or(Errno::BADF)?,
                free: Vec::new(),
                fresh: file.fresh,
                is_shared: true,
                later: Vec::new(),
            });
        }
        Ok(spill)
    }

    /// Writes a segment. Returns where, or `None` if that failed.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Option<Place> {
        let place = self.vacant_place()?;
        let file = &mut self.files[usize::from(place.file)];
        match write_all(file.fd.as_fd(), bytes, start(place)) {
            Ok(()) => Some(place),
            Err(error) => {
                file.free.push(place.number);
                self.failed = Some(error);
                None
            }
        }
    }

    fn vacant_place(&mut self) -> Option<Place> {
        let own = self.files.iter().rposition(|f| !f.is_shared);
        let at = match own {
            Some(at) => at,
            None => {
                let opened = files::temporary(self.folder.as_fd(), thread::id());
                let fd = opened.inspect_err(|e| self.failed = Some(*e)).ok()?;
                self.files.push(File {
                    fd,
                    free: Vec::new(),
                    fresh: 0,
                    is_shared: false,
                    later: Vec::new(),
                });
                self.files.len() - 1
            }
        };
        let file = &mut self.files[at];
        let number = file.free.pop().unwrap_or_else(|| {
            file.fresh += 1;
            file.fresh - 1
        });
        Some(Place {
            file: u16::try_from(at).ok()?,
            number,
        })
    }

    /// Frees a place.
    pub(super) fn free(&mut self, place: Place) {
        self.has.take_if(|(has, _)| *has == place);
        let file = &mut self.files[usize::from(place.file)];
        match file.is_shared {
            true => file.later.push(place.number),
            false => file.free.push(place.number),
        }
    }

    /// Reads `len` bytes of a segment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(
        &mut self,
        place: Place,
        offset: usize,
        len: usize,
    ) -> Result<&[u8], ReadError> {
        let end = offset + len;
        let range = match &self.has {
            Some((has, range)) if *has == place && range.contains(&offset) => {
                if end <= range.end {
                    return Ok(self.buffer.bytes(offset, len));
                }
                let ahead = (offset + IN_ORDER).next_multiple_of(PAGE_SIZE);
                offset / PAGE_SIZE * PAGE_SIZE..ahead.min(SEGMENT)
            }
            Some((has, range)) if *has == place && range.end / PAGE_SIZE == offset / PAGE_SIZE => {
                let ahead = (offset + IN_ORDER).next_multiple_of(PAGE_SIZE);
                offset / PAGE_SIZE * PAGE_SIZE..ahead.min(SEGMENT)
            }
            _ => offset / PAGE_SIZE * PAGE_SIZE..end.next_multiple_of(PAGE_SIZE),
        };
        self.has = None;
        let file = self.files.get(usize::from(place.file));
        let file = file.ok_or(ReadError::Spoilt)?;
        let to = self.buffer.bytes_mut(range.start, range.len());
        read_all(file.fd.as_fd(), to, start(place) + range.start as u64)?;
        self.has = Some((place, range));
        Ok(self.buffer.bytes(offset, len))
    }
}

/// Where a place begins in its file, in bytes.
fn start(place: Place) -> u64 {
    u64::from(place.number) * SEGMENT as u64
}

fn write_all(fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(fd, &bytes[done..], at + done as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(fd: BorrowedFd<'_>, to: &mut [u8], at: u64) -> Result<(), ReadError> {
    let mut done = 0;
    while done < to.len() {
        match rustix::io::pread(fd, &mut to[done..], at + done as u64) {
            Ok(0) => return Err(ReadError::Spoilt),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(ReadError::File(error)),
        }
    }
    Ok(())
}
