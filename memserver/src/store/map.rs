//! Memory of a file, or of nobody but this process.

use rustix::fs::{fstat, ftruncate};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// A range of addresses with memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, which hands out raw pointers only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that the kernel populates when it is written.
    pub(crate) fn private(len: usize) -> io::Result<Mapping> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping changes no other memory.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags)? };
        Mapping::advised(base.cast(), len)
    }

    /// The memory of a file, which gets this length at least.
    pub(crate) fn of_file(file: &OwnedFd, len: usize) -> io::Result<Mapping> {
        // Another process may use what is beyond.
        if u64::try_from(fstat(file)?.st_size).is_ok_and(|now| now < len as u64) {
            ftruncate(file, len as u64)?;
        }
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping changes no other memory.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, 0)? };
        Mapping::advised(base.cast(), len)
    }

    fn advised(base: *mut u8, len: usize) -> io::Result<Mapping> {
        // A huge page would be populated as a whole by the first page written, and
        // would not go back to the kernel with a page discarded. A kernel without
        // huge pages refuses the advice, which is as good. Neither a crash dump nor
        // a child of this process has any business with the pages of others.
        for advice in [
            Advice::LinuxNoHugepage,
            Advice::LinuxDontDump,
            Advice::LinuxDontFork,
        ] {
            // SAFETY: the mapping was just made, and its contents stay as they are.
            let _ = unsafe { rustix::mm::madvise(base.cast(), len, advice) };
        }
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// The address of a byte, or of the end.
    ///
    /// # Panics
    /// When it lies beyond.
    pub(crate) fn at(&self, byte: usize) -> *mut u8 {
        assert!(byte <= self.len);
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.base.as_ptr().add(byte) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own. It cannot fail for one that is there.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
