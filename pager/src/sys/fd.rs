//! The engine's own file descriptors.
//!
//! The standard library's owner of a file descriptor closes it through the C library, which
//! uses thread-local storage that the engine's threads do not have. This one makes a system
//! call.

use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A file descriptor, which is closed when dropped.
#[derive(Debug)]
pub struct Fd(RawFd);

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Fd {
        Fd(fd.into_raw_fd())
    }
}

impl FromRawFd for Fd {
    unsafe fn from_raw_fd(fd: RawFd) -> Fd {
        Fd(fd)
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Fd {
    /// Moves to a higher number, if possible. A program that lowers its limit of open files
    /// lowers the engine's, too. The low numbers are then left for files that are opened
    /// later.
    #[must_use]
    pub fn moved_up(self) -> Fd {
        const ABOVE: RawFd = 64;
        match rustix::io::fcntl_dupfd_cloexec(&self, ABOVE) {
            Ok(fd) => fd.into(),
            Err(_) => self,
        }
    }

    /// Returns its number.
    pub fn raw(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: `self` owns it, and is dropped now.
        unsafe { rustix::io::close(self.0) };
    }
}
