//! Files of the engine.

use super::fd::Fd;
use alloc::ffi::CString;
use alloc::format;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// Opens a new file without a name in `folder`, which others cannot open. It bypasses the page
/// cache if the file system can. `number` is one that no other thread uses, for file systems
/// that can make no file without a name.
///
/// # Errors
/// Those of the kernel.
pub fn temporary(folder: BorrowedFd<'_>, number: u32) -> Result<Fd, Errno> {
    match opened(folder, OFlags::DIRECT, number) {
        Err(Errno::INVAL) => opened(folder, OFlags::empty(), number),
        result => result,
    }
}

fn opened(folder: BorrowedFd<'_>, flags: OFlags, number: u32) -> Result<Fd, Errno> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(folder, c".", flags | OFlags::TMPFILE | OFlags::EXCL, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        result => return result.map(|fd| Fd::from(fd).moved_up()),
    }
    let name = CString::new(format!(".tmem-spill-{number}")).map_err(|_| Errno::INVAL)?;
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = openat(folder, &name, flags, mode)?;
    unlinkat(folder, &name, AtFlags::empty())?;
    Ok(Fd::from(fd).moved_up())
}
