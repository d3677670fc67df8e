//! Memory of the engine's own, and questions about memory.

use super::space::{SPACE, Space};
use core::ptr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// The kernel locks what is mapped.
static NEW_IS_LOCKED: AtomicBool = AtomicBool::new(false);

/// The program has all memory locked that comes to be (`MCL_FUTURE`), or it is a process
/// that was just forked, for which that does not hold. What can be accessed has memory at
/// once then, all of it, which can neither be given back nor exchanged; so what the engine
/// maps is unlocked before it can be.
pub fn new_is_locked(is: bool) {
    NEW_IS_LOCKED.store(is, Release);
}

/// An anonymous mapping, lazily populated and, with few exceptions, never
/// unmapped: the engine lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl Region {
    /// Maps `len` bytes that a forked child does not see.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(len: usize) -> Result<Region, Errno> {
        Region::inherited(len)?.of_the_engine_alone()
    }

    /// The same, in address space that was set aside, and nowhere else.
    ///
    /// # Errors
    /// The kernel's; `NOMEM` when nothing is left of the space.
    pub(super) fn within(space: &Space, len: usize) -> Result<Region, Errno> {
        let at = space.take(len).ok_or(Errno::NOMEM)?;
        let region = Region::map(Some(at), len, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        region.of_the_engine_alone()
    }

    fn of_the_engine_alone(self) -> Result<Region, Errno> {
        let region = self;
        region.advise(Advice::LinuxDontFork)?;
        // A pool of huge pages would defeat exchanging single pages.
        // Kernels without transparent huge pages refuse, and need not be asked.
        let _ = region.advise(Advice::LinuxNoHugepage);
        Ok(region)
    }

    /// Maps `len` bytes that a forked child inherits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn inherited(len: usize) -> Result<Region, Errno> {
        Region::map(
            SPACE.take(len),
            len,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }

    /// The same, at an address of the kernel's choice: not for what is mapped while
    /// the program runs, see [`super::space`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn anywhere(len: usize) -> Result<Region, Errno> {
        Region::map(None, len, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    /// As [`Region::new`], executable as well: the kernel moves pages between mappings
    /// of the same protection only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn executable(len: usize) -> Result<Region, Errno> {
        let region = Region::new(len)?;
        let all = MprotectFlags::READ | MprotectFlags::WRITE | MprotectFlags::EXEC;
        // SAFETY: the mapping was made just now and nobody uses it yet.
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
        // SAFETY: a new mapping where nothing is that anybody uses.
        let start = unsafe { rustix::mm::mmap_anonymous(at as *mut _, len, prot, flags | fixed)? };
        let region = Region {
            start: start as usize,
            len,
        };
        if locked {
            // SAFETY: the mapping was made just now and nobody uses it yet.
            unsafe {
                rustix::mm::munlock(start, len)?;
                rustix::mm::mprotect(start, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            }
        }
        super::space::leave_out_of_cores(region.start, len);
        Ok(region)
    }

    /// Maps `len` bytes that a forked child has in common with its parent.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shared(len: usize) -> Result<Region, Errno> {
        let len = len.next_multiple_of(PAGE_SIZE);
        Region::map(SPACE.take(len), len, MapFlags::SHARED)
    }

    /// Gives the mapping up; nobody uses it any more.
    pub fn unmap(self) {
        if SPACE.give_back(self.start, self.len) {
            return;
        }
        // SAFETY: a mapping of our own, and by the caller its last use. It
        // fails for none that is mapped.
        let _ = unsafe { rustix::mm::munmap(self.start as *mut _, self.len) };
    }

    /// Maps a page where nothing can be read or written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn nowhere() -> Result<Region, Errno> {
        Region::stack(PAGE_SIZE)
    }

    /// A stack: the lowest page is made inaccessible, so that overflow ends
    /// the process and not its data.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stack(len: usize) -> Result<Region, Errno> {
        let region = Region::inherited(len)?;
        // SAFETY: the mapping was made just now and nobody uses it yet.
        unsafe {
            rustix::mm::mprotect(region.start as *mut _, PAGE_SIZE, MprotectFlags::empty())?;
        }
        Ok(region)
    }

    /// End of the region.
    pub fn end(&self) -> usize {
        self.start + self.len
    }

    /// Whether `addr` lies within.
    pub fn contains(&self, addr: usize) -> bool {
        (self.start..self.end()).contains(&addr)
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: advice on a mapping of our own; see the callers for its effect.
        unsafe { rustix::mm::madvise(self.start as *mut _, self.len, advice) }
    }

    /// Gives the pages of `len` bytes at `start` back to the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn discard(&self, start: usize, len: usize) -> Result<(), Errno> {
        debug_assert!(self.contains(start) && start + len <= self.end());
        // SAFETY: within our own region, whose contents nobody wants any more.
        unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxDontNeed) }
    }
}

/// `madvise(MADV_DONTNEED)` on memory of the program, whose contents the
/// caller has saved.
///
/// # Errors
/// The kernel's.
pub fn zap(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the contents were copied away and the range is registered, so
    // that whoever touches it gets them back.
    unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxDontNeed) }
}

/// Gives the memory of whole pages within `len` bytes from `start` on back to the kernel;
/// they read as zeros then.
///
/// # Safety
/// They are private memory, and nobody wants what is in them.
pub unsafe fn give_back(start: usize, len: usize) {
    let first = start.next_multiple_of(PAGE_SIZE);
    let end = (start + len) / PAGE_SIZE * PAGE_SIZE;
    if first < end {
        // Locked memory stays, which is as well.
        // SAFETY: by the caller.
        let _ = unsafe { rustix::mm::madvise(first as *mut _, end - first, Advice::LinuxDontNeed) };
    }
}

/// Whether forked processes get a copy of memory of the program.
///
/// # Errors
/// The kernel's: `NOMEM` where some of the range is not mapped; what is was
/// seen to.
pub fn copied_by_forks(start: usize, len: usize, copied: bool) -> Result<(), Errno> {
    let advice = match copied {
        true => Advice::LinuxDoFork,
        false => Advice::LinuxDontFork,
    };
    // SAFETY: nothing changes for this process.
    unsafe { rustix::mm::madvise(start as *mut _, len, advice) }
}

/// `madvise(MADV_POPULATE_WRITE)` on memory of the program or of the engine: as if
/// each page was written to, and nothing is changed.
///
/// # Errors
/// The kernel's: `INVAL` before Linux 5.14.
pub fn unshare(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: no contents change.
    unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxPopulateWrite) }
}

/// A page of the engine's own memory as bytes.
///
/// # Safety
/// `at` is a page of the frame pool that the kernel does not write to now.
pub unsafe fn page<'a>(at: usize) -> &'a [u8; PAGE_SIZE] {
    // SAFETY: by the caller; any bytes are valid.
    unsafe { &*(at as *const [u8; PAGE_SIZE]) }
}

/// The same, to be changed.
///
/// # Safety
/// As [`page`], and nobody else reads or writes it now.
pub unsafe fn page_mut<'a>(at: usize) -> &'a mut [u8; PAGE_SIZE] {
    // SAFETY: by the caller; any bytes are valid.
    unsafe { &mut *(at as *mut [u8; PAGE_SIZE]) }
}

/// Bytes that a cache holds together.
pub const LINE: usize = 64;

/// Has the processor bring the line at an address into its cache, without waiting for
/// it. Nothing comes of an address where nothing is mapped.
pub fn prefetch_line(at: usize) {
    use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: no access, which could fail.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at as *const i8) };
}

/// The same for a page.
pub fn prefetch(at: usize) {
    (at..at + PAGE_SIZE).step_by(LINE).for_each(prefetch_line);
}

/// Fills a page of the frame pool with zeros.
///
/// # Safety
/// `at` is a page of the frame pool that nobody else reads or writes now.
pub unsafe fn zero_page(at: usize) {
    // SAFETY: by the caller.
    unsafe { ptr::write_bytes(at as *mut u8, 0, PAGE_SIZE) };
}

/// Copies `len` bytes, whole pages, from `src` to `dst`.
///
/// # Safety
/// Both are memory of the engine's own that does not overlap, and nobody else reads or
/// writes it now.
pub unsafe fn copy_pages(dst: usize, src: usize, len: usize) {
    // SAFETY: by the caller.
    unsafe { ptr::copy_nonoverlapping(src as *const u8, dst as *mut u8, len) };
}

/// Whether a page is all zeros.
pub fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    // By 128-byte blocks, so that the usual page is told by its first.
    page.as_chunks::<128>()
        .0
        .iter()
        .all(|block| block.iter().fold(0, |acc, b| acc | b) == 0)
}

/// A system call of three arguments that has no wrapper in rustix.
///
/// # Safety
/// As the system call demands.
pub(super) unsafe fn syscall3(nr: usize, a: usize, b: usize, c: usize) -> isize {
    let r: isize;
    // SAFETY: the x86-64 convention of Linux; the kernel clobbers rcx and r11.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr as isize => r, in("rdi") a, in("rsi") b,
            in("rdx") c, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    r
}
