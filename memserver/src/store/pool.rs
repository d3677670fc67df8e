//! Page memory taken from the kernel, in slabs that are numbered.

use super::bitmap::Bitmap;
use super::files::Files;
use super::files::record::Record;
use super::map::Mapping;
use rustix::mm::Advice;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tmem_wire::{PAGE_SIZE, PageBytes, Status};

/// Bytes of a hold on a slab beside its bits.
const HOLD: u64 = 160;

/// What all slabs of a server are taken from: one range of addresses, so that
/// the number of slabs is not bound by the kernel's limit on mappings.
#[derive(Debug)]
pub(crate) struct Pool {
    map: Mapping,
    /// Where the memory is, if it is to outlive this process.
    files: Option<Arc<Files>>,
    slab_pages: u32,
    slabs: u64,
    free: Mutex<Free>,
    stored: AtomicU64,
    /// The whole mapping goes soon: nothing of it needs to be given back before.
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Free {
    /// The slab of this number and those after it were never granted.
    fresh: u64,
    /// Slabs given back.
    back: Vec<u64>,
}

impl Pool {
    /// A pool of `slabs` slabs of `slab_pages` pages. Its memory is populated
    /// as it is written. Those that files hold are taken.
    pub(crate) fn new(
        slabs: u64,
        slab_pages: u32,
        files: Option<Arc<Files>>,
    ) -> io::Result<Arc<Pool>> {
        let len = pool_len(slabs, slab_pages).ok_or(io::ErrorKind::OutOfMemory)?;
        let (map, free) = match &files {
            None => (Mapping::private(len)?, Free::default()),
            Some(files) => {
                let map = Mapping::of_file(&files.pages, len)?;
                (map, Free::beside(&files.held()))
            }
        };
        Ok(Arc::new(Pool {
            map,
            files,
            slab_pages,
            slabs,
            free: Mutex::new(free),
            stored: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }))
    }

    /// Its files, if its memory is to outlive this process.
    pub(crate) fn files(&self) -> Option<&Arc<Files>> {
        self.files.as_ref()
    }

    /// Notes a change of sessions, where that is to outlive this process.
    ///
    /// # Errors
    /// [`Status::Full`] when there is no room for the note: the change must not happen.
    pub(super) fn note(&self, record: impl FnOnce() -> Record) -> Result<(), Status> {
        self.files
            .as_ref()
            .map_or(Ok(()), |files| files.note(&record()))
    }

    /// Bits for the pages of a slab, all clear; none when there is no room for them.
    pub(super) fn bitmap(&self) -> Option<Bitmap> {
        match &self.files {
            None => Some(Bitmap::new(self.slab_pages)),
            Some(files) => Some(Bitmap::in_file(self.slab_pages, files.bits.take()?)),
        }
    }

    /// Leaves the memory of slabs that end from now on to the end of the pool.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Bytes that one session's hold on a slab takes beside the slab: its bits, its entry in
    /// the session's table, and what allocating them costs.
    pub(crate) fn bytes_of_hold(&self) -> u64 {
        bytes_of_hold(self.slab_pages)
    }

    /// Pages of each slab.
    pub(crate) fn slab_pages(&self) -> u32 {
        self.slab_pages
    }

    /// Pages in all.
    pub(crate) fn capacity_pages(&self) -> u64 {
        self.slabs * u64::from(self.slab_pages)
    }

    /// Pages granted as slabs.
    pub(crate) fn granted_pages(&self) -> u64 {
        let free = self.free();
        (free.fresh - free.back.len() as u64) * u64::from(self.slab_pages)
    }

    /// Pages whose contents are held.
    pub(crate) fn stored_pages(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Takes the number of a slab that nobody has; none when the pool is used up.
    pub(super) fn take(&self) -> Option<u64> {
        let slab = u64::from(self.slab_pages) * PAGE_SIZE as u64;
        if self
            .files
            .as_ref()
            .is_some_and(|files| !files.has_room(slab))
        {
            return None;
        }
        let mut free = self.free();
        if let Some(number) = free.back.pop() {
            return Some(number);
        }
        let is_left = free.fresh < self.slabs;
        free.fresh += u64::from(is_left);
        is_left.then(|| free.fresh - 1)
    }

    /// Takes back the slab of a number, whose memory was given back.
    pub(super) fn put_back(&self, number: u64) {
        self.free().back.push(number);
    }

    /// Where a page of a slab is, or the slab's end.
    pub(super) fn at(&self, number: u64, page: u32) -> *mut u8 {
        assert!(number < self.slabs && page <= self.slab_pages);
        self.map.at(self.offset(number, page))
    }

    fn offset(&self, number: u64, page: u32) -> usize {
        (number as usize * self.slab_pages as usize + page as usize) * PAGE_SIZE
    }

    /// Makes sure that pages can be written.
    ///
    /// # Errors
    /// [`Status::Full`] when there is no memory for them.
    pub(super) fn reserve(&self, number: u64, start: u32, end: u32) -> Result<(), Status> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        let at = self.offset(number, start);
        files.reserve(at as u64, (self.offset(number, end) - at) as u64)
    }

    /// Gives the memory of pages back, to which no device has access; they are zeros then.
    pub(super) fn give_back(&self, number: u64, start: u32, end: u32) {
        let at = self.offset(number, start);
        let len = self.offset(number, end) - at;
        match &self.files {
            Some(files) => files.punch(at as u64, len as u64),
            None => {
                let start = self.at(number, start);
                // SAFETY: the range lies within the mapping. What cannot be given back is
                // still not read by anybody: no owner has it.
                let _ = unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxDontNeed) };
            }
        }
    }

    /// Copies what a page holds now.
    pub(super) fn copy(&self, number: u64, page: u32, to: &mut PageBytes) {
        let from = self.at(number, page);
        match &self.files {
            // A page that is given back meanwhile, and has no memory, must not be touched where
            // there is none left.
            Some(files) => {
                let at = self.offset(number, page) as u64;
                let read =
                    rustix::io::retry_on_intr(|| rustix::io::pread(&files.pages, &mut to[..], at));
                if !matches!(read, Ok(PAGE_SIZE)) {
                    to.fill(0);
                }
            }
            // SAFETY: the page lies within the mapping.
            None => unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), PAGE_SIZE) },
        }
    }

    /// Begins to change the files, which are no other process's any more. What a server that was
    /// killed was about to give back is given back.
    pub(crate) fn settle(&self) {
        let Some(files) = &self.files else {
            return;
        };
        files.settle();
        let slab = u64::from(self.slab_pages) * PAGE_SIZE as u64;
        let end = files.pages_len().div_ceil(slab);
        let mut next = 0;
        for held in files.held().into_iter().map(u64::from).chain([end]) {
            if held > next {
                files.punch(next * slab, (held - next) * slab);
            }
            next = held + 1;
        }
    }

    /// Counts pages whose contents are held.
    pub(super) fn add_stored(&self, pages: u32) {
        self.stored.fetch_add(u64::from(pages), Ordering::Relaxed);
    }

    /// Counts pages whose contents are held no more.
    pub(super) fn sub_stored(&self, pages: u32) {
        self.stored.fetch_sub(u64::from(pages), Ordering::Relaxed);
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// All slabs but those that are held.
    fn beside(held: &BTreeSet<u32>) -> Free {
        let fresh = held.last().map_or(0, |last| u64::from(*last) + 1);
        let free = |slab: &u64| u32::try_from(*slab).is_ok_and(|slab| !held.contains(&slab));
        Free {
            fresh,
            back: (0..fresh).filter(free).collect(),
        }
    }
}

/// Bytes of a hold on a slab of so many pages.
pub(crate) fn bytes_of_hold(slab_pages: u32) -> u64 {
    u64::from(slab_pages.div_ceil(64)) * 8 + HOLD
}

/// Bytes of so many slabs; `None` when that is no length at all.
fn pool_len(slabs: u64, slab_pages: u32) -> Option<usize> {
    let pages = usize::try_from(slabs)
        .ok()?
        .checked_mul(slab_pages as usize)?;
    pages
        .checked_mul(PAGE_SIZE)
        .filter(|len| isize::try_from(*len).is_ok())
}
