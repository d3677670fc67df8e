//! Whether this user may use userfaultfd for faults inside system calls.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `_IO(0xAA, 0)` of `linux/userfaultfd.h`.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xAA00;

/// Tries the device, then the system call, as the pager does.
pub(crate) fn usable() -> bool {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    if let Ok(device) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
    {
        // SAFETY: the request takes its flags by value.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
        if close(fd) {
            return true;
        }
    }
    // SAFETY: the call takes its flags by value.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    close(fd as libc::c_int)
}

/// Closes what a call returned; whether it was a descriptor.
fn close(fd: libc::c_int) -> bool {
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}
