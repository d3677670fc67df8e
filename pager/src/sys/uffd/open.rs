//! Opens a userfaultfd, by the device or the system call.

use super::Uffd;
use super::abi::{API_VERSION, ApiArg, IOC_API, IOC_NEW};
use crate::sys::fd::Fd;
use crate::sys::roots::Root;
use rustix::fd::{AsFd, FromRawFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater};
use rustix::mm::UserfaultfdFlags;

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
