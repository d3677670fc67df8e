//! Descriptors of the engine's own.
//!
//! The standard library's owner of a descriptor closes it through the C
//! library, which looks into thread-local storage that the engine's threads do
//! not have. This one closes it by a system call.

use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A descriptor, closed when dropped.
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
        // SAFETY: it is open for as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Fd {
    /// The same with a higher number, if such are to be had. A program that lowers
    /// its limit of open files leaves the engine, whose limit it is as well, what low
    /// numbers there are: those are for what is opened later.
    #[must_use]
    pub fn moved_up(self) -> Fd {
        const ABOVE: RawFd = 64;
        match rustix::io::fcntl_dupfd_cloexec(&self, ABOVE) {
            Ok(fd) => fd.into(),
            Err(_) => self,
        }
    }

    /// Its number.
    pub fn raw(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: it is owned by `self`, and this is its end.
        unsafe { rustix::io::close(self.0) };
    }
}
