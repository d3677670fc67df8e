//! Slabs: page memory taken from the kernel and given back to it.

use crate::bitmap::{Bitmap, Run, runs};
use crate::keys::Keys;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tmem_wire::{PAGE_SIZE, PageBytes, Status};

/// Bytes of a hold on a slab beside its bits.
const HOLD: u64 = 160;

/// What all slabs of a server are taken from: one range of addresses, so that
/// the number of slabs is not bound by the kernel's limit on mappings.
#[derive(Debug)]
pub(crate) struct Pool {
    base: NonNull<u8>,
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

// SAFETY: the mapping belongs to this value alone, and is reached through the
// kernel or through raw copies, never through references.
unsafe impl Send for Pool {}
// SAFETY: as above; the other fields are `Sync`.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool of `slabs` slabs of `slab_pages` pages. Its memory is populated
    /// as it is written.
    pub(crate) fn new(slabs: u64, slab_pages: u32) -> io::Result<Arc<Pool>> {
        let base = map(pool_len(slabs, slab_pages).ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(Arc::new(Pool {
            base,
            slab_pages,
            slabs,
            free: Mutex::default(),
            stored: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }))
    }

    /// Leaves the memory of slabs that end from now on to the end of the pool.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Bytes that one session's hold on a slab takes beside the slab: its bits, its entry in
    /// the session's table, and what allocating them costs.
    pub(crate) fn bytes_of_hold(&self) -> u64 {
        u64::from(self.slab_pages.div_ceil(64)) * 8 + HOLD
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

    /// A slab without contents; none when the pool is used up.
    pub(crate) fn grant(self: &Arc<Pool>) -> Option<Slab> {
        let mut free = self.free();
        let number = if let Some(number) = free.back.pop() {
            number
        } else if free.fresh < self.slabs {
            free.fresh += 1;
            free.fresh - 1
        } else {
            return None;
        };
        drop(free);
        let memory = Memory {
            number,
            owners: Mutex::new(Owners {
                count: 1,
                held: None,
                pins: 0,
                writers: 0,
            }),
            pool: self.clone(),
        };
        Some(Slab {
            memory: Arc::new(memory),
            present: Bitmap::new(self.slab_pages),
            keys: Keys::default(),
        })
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let len = pool_len(self.slabs, self.slab_pages).unwrap_or(0);
        // SAFETY: the mapping is this value's own, and no slab is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), len) };
    }
}

/// The pages of one slab, which several sessions may own.
#[derive(Debug)]
struct Memory {
    number: u64,
    owners: Mutex<Owners>,
    pool: Arc<Pool>,
}

/// Who has a slab. What no owner has stored is zeros, or partly received.
#[derive(Debug)]
struct Owners {
    /// How many there are.
    count: usize,
    /// Where there are several: how many of them have stored each page. Its memory is given
    /// back when none has it. Nothing is stored meanwhile.
    held: Option<Box<[u32]>>,
    /// Devices that may reach the memory, which then stays where it is.
    pins: usize,
    /// Those of them that may write it.
    writers: usize,
}

impl Memory {
    fn owners(&self) -> MutexGuard<'_, Owners> {
        // Nothing panics while it is held, and any state of it is valid.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `page` is, which must be one of the slab's or the end.
    fn at(&self, page: u32) -> *mut u8 {
        let pages = self.pool.slab_pages;
        assert!(page <= pages);
        let before = self.number as usize * pages as usize + page as usize;
        // SAFETY: within the mapping, of which this slab is a part.
        unsafe { self.pool.base.as_ptr().add(before * PAGE_SIZE) }
    }

    /// Gives pages back, or empties them where a device goes on with them.
    fn empty(&self, pins: usize, start: u32, end: u32) {
        if pins == 0 {
            self.give_back(start, end);
            return;
        }
        let len = (end - start) as usize * PAGE_SIZE;
        // SAFETY: the range lies within the slab, and nobody has references
        // to it.
        unsafe { self.at(start).write_bytes(0, len) };
    }

    /// One of several owners has the pages no longer; how many nobody has any more.
    fn let_go(&self, owners: &mut Owners, start: u32, end: u32) -> u32 {
        let pins = owners.pins;
        let Some(held) = &mut owners.held else {
            return 0;
        };
        held[start as usize..end as usize]
            .iter_mut()
            .for_each(|n| *n -= 1);
        let mut gone = 0;
        for run in runs(start, end, |page| held[page as usize] > 0) {
            if !run.set {
                self.empty(pins, run.start, run.end);
                gone += run.end - run.start;
            }
        }
        gone
    }

    /// The caller knows that no device has the slab.
    fn give_back(&self, start: u32, end: u32) {
        let len = (end - start) as usize * PAGE_SIZE;
        // SAFETY: the range lies within the slab. What cannot be given back is
        // still not read by anybody: no owner has it.
        unsafe { libc::madvise(self.at(start).cast(), len, libc::MADV_DONTNEED) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.pool.is_closing() {
            return;
        }
        self.give_back(0, self.pool.slab_pages);
        // Only now: what is granted is never more than the capacity.
        self.pool.free().back.push(self.number);
    }
}

/// Keeps a slab's memory where it is, as long as a device may reach it.
#[derive(Debug)]
pub(crate) struct Pin {
    memory: Arc<Memory>,
    write: bool,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut owners = self.memory.owners();
        owners.pins -= 1;
        owners.writers -= usize::from(self.write);
    }
}

/// One session's ownership of a slab. Dropping it gives the slab back, as far
/// as no other session owns it.
#[derive(Debug)]
pub(crate) struct Slab {
    memory: Arc<Memory>,
    /// What this owner has stored.
    present: Bitmap,
    keys: Keys,
}

impl Slab {
    /// Another ownership of the same pages, which then cannot be written until
    /// one of the two is gone.
    pub(crate) fn share(&self) -> Slab {
        let mut owners = self.memory.owners();
        let present = self.present.copy();
        let pages = self.memory.pool.slab_pages;
        let own = |page| u32::from(self.present.get(page));
        let held = owners
            .held
            .get_or_insert_with(|| (0..pages).map(own).collect());
        for run in present.all_set() {
            held[run.start as usize..run.end as usize]
                .iter_mut()
                .for_each(|n| *n += 1);
        }
        owners.count += 1;
        Slab {
            memory: self.memory.clone(),
            present,
            keys: Keys::default(),
        }
    }

    /// Whether somebody else owns it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.memory.owners().count > 1
    }

    /// The keys to it.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Keeps its memory where it is; for writing, only when nobody else has
    /// it.
    pub(crate) fn pin(&self, write: bool) -> Result<Pin, Status> {
        let mut owners = self.memory.owners();
        if write && owners.count > 1 {
            return Err(Status::Shared);
        }
        owners.pins += 1;
        owners.writers += usize::from(write);
        Ok(Pin {
            memory: self.memory.clone(),
            write,
        })
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.memory.pool.slab_pages as usize * PAGE_SIZE
    }

    /// The memory of `page`, which must be one of the slab's.
    pub(crate) fn page(&self, page: u32) -> *mut u8 {
        self.memory.at(page)
    }

    /// Copies what `page`, which must be one of the slab's, holds now. Where it is written
    /// meanwhile, that is any mixture.
    pub(crate) fn copy(&self, page: u32, to: &mut PageBytes) {
        // SAFETY: the page lies within the slab, which is held.
        unsafe { std::ptr::copy_nonoverlapping(self.page(page), to.as_mut_ptr(), PAGE_SIZE) };
    }

    /// The runs of pages that this owner has stored, and has not.
    pub(crate) fn runs(&self, start: u32, end: u32) -> impl Iterator<Item = Run> {
        self.present.runs(start, end)
    }

    /// The pages hold what their owner sent.
    pub(crate) fn written(&self, start: u32, end: u32) {
        let new = self.present.set(start, end);
        if new > 0 {
            let stored = &self.memory.pool.stored;
            stored.fetch_add(u64::from(new), Ordering::Relaxed);
        }
    }

    /// Any page may hold what its owner has sent.
    pub(crate) fn all_written(&self) {
        self.written(0, self.memory.pool.slab_pages);
    }

    /// This owner wants the pages no longer.
    pub(crate) fn discard(&self, start: u32, end: u32) {
        let mut owners = self.memory.owners();
        let mut gone = 0;
        if owners.count == 1 {
            // A device that may write does not say when it does.
            if owners.writers == 0 {
                gone = self.present.clear(start, end);
            }
            self.memory.empty(owners.pins, start, end);
        } else {
            let mine: Vec<Run> = self.runs(start, end).filter(|r| r.set).collect();
            for run in mine {
                self.present.clear(run.start, run.end);
                gone += self.memory.let_go(&mut owners, run.start, run.end);
            }
        }
        let stored = &self.memory.pool.stored;
        stored.fetch_sub(u64::from(gone), Ordering::Relaxed);
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // No device may reach what the next owner is given.
        self.keys.end();
        if self.memory.pool.is_closing() {
            return;
        }
        let mut owners = self.memory.owners();
        let mut gone = 0;
        if owners.count == 1 {
            // The memory goes with its last owner.
            gone = self.present.count();
        } else {
            for run in self.present.all_set() {
                gone += self.memory.let_go(&mut owners, run.start, run.end);
            }
        }
        owners.count -= 1;
        if owners.count == 1 {
            // It may store again, which is not counted.
            owners.held = None;
        }
        let stored = &self.memory.pool.stored;
        stored.fetch_sub(u64::from(gone), Ordering::Relaxed);
    }
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

/// Zeroed memory that the kernel populates when it is written.
fn map(len: usize) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping changes no other memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // A huge page would be populated as a whole by the first page written, and
    // would not go back to the kernel with a page discarded. A kernel without
    // huge pages refuses the advice, which is as good. Neither a crash dump nor
    // a child of this process has any business with the pages of others.
    for advice in [
        libc::MADV_NOHUGEPAGE,
        libc::MADV_DONTDUMP,
        libc::MADV_DONTFORK,
    ] {
        // SAFETY: the mapping was just made.
        unsafe { libc::madvise(base, len, advice) };
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
