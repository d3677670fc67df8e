//! `userfaultfd(2)`: the file descriptor, its ioctls and its messages.

mod abi;
mod sure;

use super::fd::Fd;
use super::roots::Root;
use abi::*;
use core::mem::size_of;
use rustix::fd::{AsFd, BorrowedFd, FromRawFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater};
use rustix::mm::UserfaultfdFlags;

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

/// Why no userfaultfd could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Neither the device nor the system call is permitted.
    NoPermission,
    /// The kernel has no userfaultfd, or too old a one.
    Unsupported,
    /// Something else failed.
    Other(Errno),
}

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

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Msg {
    /// A thread waits for a page.
    Fault {
        /// The address of the access, or of its page if the kernel tells no more.
        addr: usize,
        /// The access is a write.
        write: bool,
        /// The page is present, but write-protected.
        protected: bool,
        /// The thread, or 0 if the kernel does not tell.
        tid: u32,
    },
    /// `mremap` moved `len` bytes.
    Remap {
        /// Old address.
        from: usize,
        /// New address.
        to: usize,
        /// Bytes.
        len: usize,
    },
    /// The program gives up the contents of the range. The kernel zaps it after this
    /// message was read.
    Remove {
        /// First address.
        start: usize,
        /// The end.
        end: usize,
    },
    /// The range was unmapped.
    Unmap {
        /// First address.
        start: usize,
        /// The end.
        end: usize,
    },
    /// The process was forked. The file descriptor came with the message, and has to be
    /// closed.
    Fork {
        /// A userfaultfd of the child's memory.
        fd: i32,
    },
    /// A message of another kind.
    Unknown(u8),
}

/// A message as the kernel writes it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct RawMsg {
    event: u8,
    pad: [u8; 7],
    arg: [u64; 3],
}

impl RawMsg {
    /// Encodes a message for a test, as the kernel would.
    #[cfg(test)]
    pub(crate) fn encode(msg: &Msg) -> RawMsg {
        let (event, arg) = match *msg {
            Msg::Fault {
                addr,
                write,
                protected,
                tid,
            } => {
                let flags = u64::from(write) | u64::from(protected) << 1;
                (0x12, [flags, addr as u64, u64::from(tid)])
            }
            Msg::Remap { from, to, len } => (0x14, [from as u64, to as u64, len as u64]),
            Msg::Remove { start, end } => (0x15, [start as u64, end as u64, 0]),
            Msg::Unmap { start, end } => (0x16, [start as u64, end as u64, 0]),
            Msg::Fork { fd } => (0x13, [fd as u64, 0, 0]),
            Msg::Unknown(event) => (event, [0; 3]),
        };
        RawMsg {
            event,
            arg,
            ..RawMsg::default()
        }
    }

    /// Decodes the message.
    pub fn decode(&self) -> Msg {
        let [a, b, c] = self.arg;
        match self.event {
            0x12 => Msg::Fault {
                addr: b as usize,
                write: a & 1 != 0,
                protected: a & 2 != 0,
                tid: c as u32,
            },
            0x13 => Msg::Fork { fd: a as i32 },
            0x14 => Msg::Remap {
                from: a as usize,
                to: b as usize,
                len: c as usize,
            },
            0x15 => Msg::Remove {
                start: a as usize,
                end: b as usize,
            },
            0x16 => Msg::Unmap {
                start: a as usize,
                end: b as usize,
            },
            other => Msg::Unknown(other),
        }
    }
}

impl Uffd {
    /// Opens a userfaultfd that also serves faults inside system calls, by the device or
    /// else by the system call. Never accepts one that serves only faults in user mode.
    ///
    /// Requests those of `features` that the kernel has. The caller checks
    /// [`Uffd::features`].
    ///
    /// # Errors
    /// An [`OpenError`].
    pub fn open(features: u64) -> Result<Uffd, OpenError> {
        let have = Uffd::handshake(&Uffd::descriptor()?, 0)?;
        // UFFDIO_API can be called only once per file descriptor.
        let fd = Uffd::descriptor()?;
        Uffd::handshake(&fd, features & have)?;
        Ok(Uffd {
            fd: fd.moved_up(),
            features: features & have,
        })
    }

    fn descriptor() -> Result<Fd, OpenError> {
        match Uffd::device() {
            Ok(fd) => return Ok(fd),
            Err(_) => { /* no device or no access: the system call may do */ }
        }
        // SAFETY: creating a file descriptor touches no memory.
        let made = unsafe {
            rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK)
        };
        made.map(Fd::from).map_err(|e| match e {
            Errno::PERM | Errno::ACCESS => OpenError::NoPermission,
            Errno::NOSYS => OpenError::Unsupported,
            e => OpenError::Other(e),
        })
    }

    fn device() -> Result<Fd, Errno> {
        let opened;
        let device = match Root::Device.get() {
            Some(device) => device,
            None => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                let device = rustix::fs::open(c"/dev/userfaultfd", flags, Mode::empty())?;
                opened = Fd::from(device);
                opened.as_fd()
            }
        };
        let flags = (OFlags::CLOEXEC | OFlags::NONBLOCK).bits() as usize;
        // SAFETY: USERFAULTFD_IOC_NEW takes flags by value and returns a file descriptor.
        unsafe { ioctl::ioctl(device, NewFd(flags)) }
    }

    fn handshake(fd: &Fd, features: u64) -> Result<u64, OpenError> {
        let mut arg = ApiArg {
            api: API_VERSION,
            features,
            ioctls: 0,
        };
        // SAFETY: the argument has the layout of `struct uffdio_api`.
        match unsafe { ioctl::ioctl(fd, Updater::<{ IOC_API }, _>::new(&mut arg)) } {
            Ok(()) => Ok(arg.features),
            Err(Errno::INVAL) => Err(OpenError::Unsupported),
            Err(e) => Err(OpenError::Other(e)),
        }
    }

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
}

impl Uffd {
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

/// `ioctl(/dev/userfaultfd, USERFAULTFD_IOC_NEW, flags)`.
struct NewFd(usize);

// SAFETY: the request takes its argument by value and returns a new file descriptor.
unsafe impl ioctl::Ioctl for NewFd {
    type Output = Fd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        IOC_NEW
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        core::ptr::without_provenance_mut(self.0)
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<Fd> {
        // SAFETY: the kernel just returned this file descriptor.
        Ok(unsafe { Fd::from_raw_fd(out) })
    }
}
