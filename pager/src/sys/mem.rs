//! The engine's own memory, and operations on memory.

use super::confined;
use super::space::{SPACE, Space};
use super::syscall::syscall_of_one;
use core::ptr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// The kernel locks new mappings in memory.
static NEW_IS_LOCKED: AtomicBool = AtomicBool::new(false);

/// Notes whether the kernel locks new mappings (`MCL_FUTURE`, which a forked child does not
/// inherit). Such a mapping has all of its memory at once, which cannot be given back or
/// exchanged. So the engine unlocks its new mappings before they become accessible.
pub fn new_is_locked(is: bool) {
    NEW_IS_LOCKED.store(is, Release);
}

/// An anonymous mapping. Memory is allocated when it is touched. With few exceptions it is
/// never unmapped, since the engine lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Region {
    /// Maps `len` bytes that a forked child does not get.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn new(len: usize) -> Result<Region, Errno> {
        Region::inherited(len)?.of_the_engine_alone()
    }

    /// Maps `len` bytes that a forked child does not get, in reserved address space and
    /// nowhere else.
    ///
    /// # Errors
    /// Those of the kernel. `NOMEM` when the space is used up.
    pub(super) fn within(space: &Space, len: usize) -> Result<Region, Errno> {
        let at = space.take(len).ok_or(Errno::NOMEM)?;
        let region = Region::map(Some(at), len, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        region.of_the_engine_alone()
    }

    /// Maps `len` bytes that a forked child inherits, in reserved address space and nowhere
    /// else.
    ///
    /// # Errors
    /// Those of the kernel. `NOMEM` when the space is used up.
    pub(super) fn for_children_too(space: &Space, len: usize) -> Result<Region, Errno> {
        let at = space.take(len).ok_or(Errno::NOMEM)?;
        let region = Region::map(Some(at), len, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        // What is in use is counted in small pages. Kernels without transparent huge pages
        // refuse this, and do not need it.
        let _ = region.advise(Advice::LinuxNoHugepage);
        Ok(region)
    }

    fn of_the_engine_alone(self) -> Result<Region, Errno> {
        let region = self;
        region.advise(Advice::LinuxDontFork)?;
        // Single pages of a huge page cannot be exchanged. Kernels without transparent huge
        // pages refuse this, and do not need it.
        let _ = region.advise(Advice::LinuxNoHugepage);
        Ok(region)
    }

    /// Maps `len` bytes that a forked child inherits.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn inherited(len: usize) -> Result<Region, Errno> {
        Region::map(
            SPACE.take(len),
            len,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }

    /// Maps `len` bytes that a forked child inherits, at any address. Not for mappings that
    /// are made while the program runs: see [`super::space`].
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn anywhere(len: usize) -> Result<Region, Errno> {
        Region::map(None, len, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    /// Maps executable memory, otherwise as [`Region::new`]: the kernel moves pages only
    /// between mappings of the same protection.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn executable(len: usize) -> Result<Region, Errno> {
        let region = Region::new(len)?;
        let all = MprotectFlags::READ | MprotectFlags::WRITE | MprotectFlags::EXEC;
        // SAFETY: the mapping was made just now, and nobody uses it yet.
        let protected = unsafe { rustix::mm::mprotect(region.start as *mut _, len, all) };
        match protected {
            Ok(()) => Ok(region),
            Err(error) => {
                region.unmap();
                Err(error)
            }
        }
    }

    fn map(at: Option<usize>, len: usize, flags: MapFlags) -> Result<Region, Errno> {
        let (at, fixed) = match at {
            Some(at) => (at, MapFlags::FIXED),
            None => (0, MapFlags::empty()),
        };
        let locked = NEW_IS_LOCKED.load(Acquire);
        let prot = match locked {
            true => ProtFlags::empty(),
            false => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping where nothing is in use.
        let start = unsafe { rustix::mm::mmap_anonymous(at as *mut _, len, prot, flags | fixed)? };
        let region = Region {
            start: start as usize,
            len,
        };
        if locked {
            // SAFETY: the mapping was made just now, and nobody uses it yet.
            unsafe {
                rustix::mm::munlock(start, len)?;
                rustix::mm::mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            }
        }
        super::space::leave_out_of_cores(region.start, len);
        Ok(region)
    }

    /// Maps `len` bytes that a forked child shares with its parent.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn shared(len: usize) -> Result<Region, Errno> {
        let len = len.next_multiple_of(PAGE_SIZE);
        Region::map(SPACE.take(len), len, MapFlags::SHARED)
    }

    /// Unmaps the region. Nobody uses it any more.
    pub fn unmap(self) {
        if SPACE.give_back(self.start, self.len) {
            return;
        }
        // SAFETY: our own mapping, which the caller does not use any more. Unmapping fails
        // for no region that is mapped.
        let _ = unsafe { rustix::mm::munmap(self.start as *mut _, self.len) };
    }

    /// Maps a page that cannot be read or written.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn nowhere() -> Result<Region, Errno> {
        Region::stack(PAGE_SIZE)
    }

    /// Maps a stack. Its lowest page is inaccessible, so that an overflow ends the process
    /// instead of corrupting data.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn stack(len: usize) -> Result<Region, Errno> {
        let region = Region::inherited(len)?;
        // SAFETY: the mapping was made just now, and nobody uses it yet.
        unsafe {
            rustix::mm::mprotect(region.start as *mut _, PAGE_SIZE, MprotectFlags::empty())?;
        }
        Ok(region)
    }

    /// Returns the end of the region.
    pub fn end(&self) -> usize {
        self.start + self.len
    }

    /// Tells whether `addr` lies in the region.
    pub fn contains(&self, addr: usize) -> bool {
        (self.start..self.end()).contains(&addr)
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: advice on our own mapping. The callers say what it does.
        unsafe { rustix::mm::madvise(self.start as *mut _, self.len, advice) }
    }

    /// Gives the pages of `len` bytes at `start` back to the kernel.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn discard(&self, start: usize, len: usize) -> Result<(), Errno> {
        debug_assert!(self.contains(start) && start + len <= self.end());
        // SAFETY: within our own region, whose contents are not needed any more.
        unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxDontNeed) }
    }
}

/// Zaps memory of the program (`MADV_DONTNEED`) whose contents the caller has saved.
///
/// # Errors
/// Those of the kernel.
pub fn zap(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the contents were saved, and the range is registered, so that any thread that
    // touches it gets them back.
    unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxDontNeed) }
}

/// Gives the memory of the whole pages within `len` bytes from `start` on back to the
/// kernel. They read as zeros afterwards.
///
/// # Safety
/// The memory is private, and its contents are not needed any more.
pub unsafe fn give_back(start: usize, len: usize) {
    let first = start.next_multiple_of(PAGE_SIZE);
    let end = (start + len) / PAGE_SIZE * PAGE_SIZE;
    if first < end {
        // Locked memory stays, which does no harm. SAFETY: the caller's promise is the
        // same.
        let _ = unsafe { rustix::mm::madvise(first as *mut _, end - first, Advice::LinuxDontNeed) };
    }
}

/// Says whether forked processes get a copy of memory of the program.
///
/// # Errors
/// Those of the kernel. `NOMEM` if part of the range is not mapped; the rest was done.
pub fn copied_by_forks(start: usize, len: usize, copied: bool) -> Result<(), Errno> {
    let advice = match copied {
        true => Advice::LinuxDoFork,
        false => Advice::LinuxDontFork,
    };
    // SAFETY: nothing changes for this process.
    unsafe { rustix::mm::madvise(start as *mut _, len, advice) }
}

/// Unshares memory of the program or of the engine (`MADV_POPULATE_WRITE`), as writing to
/// each page would, without changing it.
///
/// # Errors
/// Those of the kernel. `INVAL` before Linux 5.14.
pub fn unshare(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: no contents change.
    unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxPopulateWrite) }
}

/// Tells whether the kernel merges equal pages of all memory of the program (KSM), as it does
/// from Linux 6.4 on if it is asked to. Under a seccomp filter of the program's own it is not
/// asked.
pub fn merges_all() -> bool {
    const PRCTL: usize = 157;
    const PR_GET_MEMORY_MERGE: usize = 68;
    // SAFETY: prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) touches no memory.
    !confined::is_confined() && unsafe { syscall_of_one(PRCTL, PR_GET_MEMORY_MERGE) == 1 }
}

/// Returns a page of the engine's own memory as bytes.
///
/// # Safety
/// `at` is a page of the frame pool that the kernel does not write to now.
pub unsafe fn page<'a>(at: usize) -> &'a [u8; PAGE_SIZE] {
    // SAFETY: the caller's promise; any bytes are valid.
    unsafe { &*(at as *const [u8; PAGE_SIZE]) }
}

/// Returns a page of the engine's own memory as bytes, to be changed.
///
/// # Safety
/// As for [`page`], and nobody else reads or writes it now.
pub unsafe fn page_mut<'a>(at: usize) -> &'a mut [u8; PAGE_SIZE] {
    // SAFETY: the caller's promise; any bytes are valid.
    unsafe { &mut *(at as *mut [u8; PAGE_SIZE]) }
}

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Prefetches the cache line at an address, without waiting for it. An address that is not
/// mapped does no harm.
pub fn prefetch_line(at: usize) {
    use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch is not an access that could fail.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at as *const i8) };
}

/// Prefetches a page.
pub fn prefetch(at: usize) {
    (at..at + PAGE_SIZE).step_by(LINE).for_each(prefetch_line);
}

/// Fills a page of the frame pool with zeros.
///
/// # Safety
/// `at` is a page of the frame pool that nobody else reads or writes now.
pub unsafe fn zero_page(at: usize) {
    // SAFETY: the caller's promise is the same.
    unsafe { ptr::write_bytes(at as *mut u8, 0, PAGE_SIZE) };
}

/// Copies `len` bytes, whole pages, from `src` to `dst`.
///
/// # Safety
/// Both are the engine's own memory, do not overlap, and nobody else reads or writes them
/// now.
pub unsafe fn copy_pages(dst: usize, src: usize, len: usize) {
    // SAFETY: the caller's promise is the same.
    unsafe { ptr::copy_nonoverlapping(src as *const u8, dst as *mut u8, len) };
}

/// Tells whether a page is all zeros.
pub fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    // Checked in blocks of 128 bytes, so that the first block decides for most pages.
    page.as_chunks::<128>()
        .0
        .iter()
        .all(|block| block.iter().fold(0, |acc, b| acc | b) == 0)
}
