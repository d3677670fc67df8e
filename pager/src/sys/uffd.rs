//! `userfaultfd(2)`: the file descriptor and its ioctls.

mod abi;
mod message;
mod open;
mod sure;

pub use message::{Msg, RawMsg};
pub use open::OpenError;

use super::fd::Fd;
use abi::*;
use core::mem::size_of;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater};

/// Optional features of the kernel, as UFFDIO_API reports them.
pub mod feature {
    /// Write-protect faults are reported.
    pub const WP: u64 = 1 << 0;
    /// Forks are reported. This requires CAP_SYS_PTRACE.
    pub const EVENT_FORK: u64 = 1 << 1;
    /// `mremap` is reported.
    pub const EVENT_REMAP: u64 = 1 << 2;
    /// `madvise(MADV_DONTNEED)` and `MADV_FREE` are reported.
    pub const EVENT_REMOVE: u64 = 1 << 3;
    /// `munmap` is reported.
    pub const EVENT_UNMAP: u64 = 1 << 6;
    /// Faults tell which thread waits.
    pub const THREAD_ID: u64 = 1 << 8;
    /// Faults tell the exact address that was touched, not only its page.
    pub const EXACT_ADDRESS: u64 = 1 << 11;
    /// UFFDIO_POISON exists.
    pub const POISON: u64 = 1 << 14;
    /// UFFDIO_MOVE exists.
    pub const MOVE: u64 = 1 << 16;
}

/// Faults on absent pages are reported.
pub const REGISTER_MISSING: u64 = 1 << 0;
/// Faults on write-protected pages are reported.
pub const REGISTER_WP: u64 = 1 << 1;

/// The result of a MOVE or COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes done, from the start.
    pub done: usize,
    /// The error that stopped it before the end.
    pub stopped: Option<Errno>,
}

impl Transfer {
    fn of(result: Result<(), Errno>, len: usize, done: i64) -> Transfer {
        match result {
            Ok(()) => Transfer {
                done: len,
                stopped: None,
            },
            // After an error at the very start the field holds the negative error code.
            Err(e) => Transfer {
                done: usize::try_from(done).unwrap_or(0),
                stopped: Some(e),
            },
        }
    }
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Uffd {
    fd: Fd,
    /// Features that the kernel has granted.
    pub features: u64,
}

impl Uffd {
    /// Registers the range: faults in it are reported from now on.
    ///
    /// # Errors
    /// Those of the kernel. `BUSY` when another userfaultfd has part of it, `INVAL` when it
    /// is not completely mapped, or of a kind that cannot be registered.
    pub fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        let mut arg = RegisterArg {
            range: Range {
                start: start as u64,
                len: len as u64,
            },
            mode,
            ioctls: 0,
        };
        // SAFETY: the argument has the layout of `struct uffdio_register`.
        unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_REGISTER }, _>::new(&mut arg)) }
    }

    /// Unregisters the range. Threads that wait there retry their access.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn unregister(&self, start: usize, len: usize) -> Result<(), Errno> {
        let mut arg = Range {
            start: start as u64,
            len: len as u64,
        };
        // SAFETY: the argument has the layout of `struct uffdio_range`.
        unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_UNREGISTER }, _>::new(&mut arg)) }
    }

    /// Wakes the threads that wait in the range. They retry their access.
    pub fn wake(&self, start: usize, len: usize) {
        let mut arg = Range {
            start: start as u64,
            len: len as u64,
        };
        // SAFETY: the argument has the layout of `struct uffdio_range`.
        let woken = unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_WAKE }, _>::new(&mut arg)) };
        // It fails only for invalid ranges.
        debug_assert!(woken.is_ok());
    }

    /// Moves pages from `src` to `dst`, which must be registered here. Called by `sure`
    /// only, which knows how far the answer can be trusted. With `holes`, absent source
    /// pages are skipped, otherwise they are an error. With `wake`, threads that wait for
    /// the destination are woken.
    fn move_pages(&self, dst: usize, src: usize, len: usize, holes: bool, wake: bool) -> Transfer {
        let holes = if holes { MOVE_ALLOW_SRC_HOLES } else { 0 };
        let mode = holes | if wake { 0 } else { MOVE_DONTWAKE };
        self.transfer::<{ IOC_MOVE }>(dst, src, len, mode)
    }

    /// Copies pages from `src` to the absent pages at `dst`.
    pub fn copy_pages(&self, dst: usize, src: usize, len: usize, wake: bool) -> Transfer {
        self.transfer::<{ IOC_COPY }>(dst, src, len, if wake { 0 } else { COPY_DONTWAKE })
    }

    /// Tells whether a range lies in one registered mapping. `nowhere` is an address that
    /// cannot be read.
    ///
    /// # Errors
    /// `EAGAIN` when an event has to be read first.
    pub fn holds(&self, start: usize, len: usize, nowhere: usize) -> Result<bool, Errno> {
        // The kernel checks source and destination alike, so the source, too, must end
        // within the address space.
        const END: usize = 0x7fff_ffff_f000;
        let most = END.saturating_sub(nowhere).max(tmem_wire::PAGE_SIZE);
        let mut at = start;
        while at < start + len {
            let part = most.min(start + len - at);
            // The kernel checks the mapping before it reads the source. If there is a huge
            // page, it does not get that far.
            match self.copy_pages(at, nowhere, part, false).stopped {
                Some(Errno::FAULT | Errno::EXIST) => at += part,
                Some(Errno::AGAIN) => return Err(Errno::AGAIN),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn transfer<const CODE: Opcode>(
        &self,
        dst: usize,
        src: usize,
        len: usize,
        mode: u64,
    ) -> Transfer {
        let mut arg = TransferArg {
            dst: dst as u64,
            src: src as u64,
            len: len as u64,
            mode,
            done: 0,
        };
        // SAFETY: the argument has the layout of `struct uffdio_copy` and `struct
        // uffdio_move`. Both only fill absent pages of registered ranges, or take pages out
        // of ranges whose owner faults when it touches them.
        let r = unsafe { ioctl::ioctl(&self.fd, Updater::<CODE, _>::new(&mut arg)) };
        Transfer::of(r, len, arg.done)
    }

    /// Maps the kernel's page of zeros at the absent pages of the range. This costs no
    /// memory until they are written.
    pub fn zero_pages(&self, start: usize, len: usize, wake: bool) -> Transfer {
        let mut arg = ZeropageArg {
            range: Range {
                start: start as u64,
                len: len as u64,
            },
            mode: if wake { 0 } else { ZEROPAGE_DONTWAKE },
            done: 0,
        };
        // SAFETY: the argument has the layout of `struct uffdio_zeropage`. Only absent
        // pages of registered ranges are filled.
        let r = unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_ZEROPAGE }, _>::new(&mut arg)) };
        Transfer::of(r, len, arg.done)
    }

    /// Write-protects the present pages of the range.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` while an event is outstanding.
    pub fn protect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.write_protect(start, len, WP_PROTECT)
    }

    /// Removes the write protection, and wakes the threads that wait.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` while an event is outstanding.
    pub fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.write_protect(start, len, 0)
    }

    fn write_protect(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        debug_assert!(mode & WP_DONTWAKE == 0);
        let mut arg = WriteProtectArg {
            range: Range {
                start: start as u64,
                len: len as u64,
            },
            mode,
        };
        // SAFETY: the argument has the layout of `struct uffdio_writeprotect`.
        unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_WRITEPROTECT }, _>::new(&mut arg)) }
    }

    /// Poisons the absent page: touching it raises SIGBUS.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` while an event is outstanding.
    pub fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        let mut arg = PoisonArg {
            range: Range {
                start: start as u64,
                len: len as u64,
            },
            mode: 0,
            updated: 0,
        };
        // SAFETY: the argument has the layout of `struct uffdio_poison`.
        unsafe { ioctl::ioctl(&self.fd, Updater::<{ IOC_POISON }, _>::new(&mut arg)) }
    }

    /// Reads as many messages as there are and fit. Faults may overtake events.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` when there is none.
    pub fn read(&self, msgs: &mut [RawMsg]) -> Result<usize, Errno> {
        // SAFETY: RawMsg consists of integers without padding, so any bytes are valid.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(msgs.as_mut_ptr().cast::<u8>(), size_of_val(msgs))
        };
        Ok(rustix::io::read(&self.fd, bytes)? / size_of::<RawMsg>())
    }

    /// Returns the file descriptor's number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
