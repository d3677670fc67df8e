//! Whether this user may use userfaultfd for faults inside system calls.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `_IO(0xAA, 0)` of `linux/userfaultfd.h`.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xAA00;

const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

/// Tries the device, then the system call, as the pager does.
pub(crate) fn usable() -> bool {
    by_device().is_ok() || by_call().is_ok()
}

/// Tries the device.
pub(crate) fn by_device() -> io::Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")?;
    // SAFETY: the request takes its flags by value.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, FLAGS) };
    close(fd)
}

/// Tries the system call.
pub(crate) fn by_call() -> io::Result<()> {
    // SAFETY: the call takes its flags by value.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
    close(fd as libc::c_int)
}

/// Closes what a call returned, if that is a descriptor.
fn close(fd: libc::c_int) -> io::Result<()> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
