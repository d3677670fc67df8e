//! Memory of the program that is named in its calls, and may not be there: the kernel would
//! refuse the call (`EFAULT`), and this library must not end the program.

use crate::raw::raw_syscall;
use libc::{c_int, iovec};

const PAGE: usize = 4096;
/// The most parts of a call (`UIO_MAXIOV`).
const MOST_PARTS: usize = 1024;

/// Has memory there that is to be read.
///
/// # Errors
/// `EFAULT` where it cannot be read.
pub(super) fn populate_read(at: usize, len: usize) -> Result<(), c_int> {
    populate(at, len, libc::MADV_POPULATE_READ)
}

/// Has memory there that is to be written to.
///
/// # Errors
/// `EFAULT` where it cannot be written to.
pub(super) fn populate_write(at: usize, len: usize) -> Result<(), c_int> {
    populate(at, len, libc::MADV_POPULATE_WRITE)
}

fn populate(at: usize, len: usize, how: c_int) -> Result<(), c_int> {
    if len == 0 {
        return Ok(());
    }
    let start = at / PAGE * PAGE;
    let end = at
        .checked_add(len)
        .and_then(|end| end.checked_next_multiple_of(PAGE));
    let end = end.ok_or(libc::EFAULT)?;
    match advise(start, end - start, how) {
        0 => Ok(()),
        // Before Linux 5.14 nobody can tell.
        refused if refused == -libc::EINVAL as isize && !can_populate() => Ok(()),
        _ => Err(libc::EFAULT),
    }
}

/// Whether the kernel knows this advice: it takes it for no memory at all.
fn can_populate() -> bool {
    advise(0, 0, libc::MADV_POPULATE_READ) == 0
}

fn advise(start: usize, len: usize, how: c_int) -> isize {
    let args = [start, len, how as usize, 0, 0, 0];
    // SAFETY: as if the program read, or wrote, what is there; nothing changes.
    unsafe { raw_syscall(libc::SYS_madvise, args) }
}

/// The parts of a call like `readv(2)`.
///
/// # Errors
/// `EINVAL` where there are too many, and `EFAULT` where the list cannot be read.
///
/// # Safety
/// No other thread unmaps the list meanwhile.
pub(super) unsafe fn parts<'a>(at: *const iovec, count: usize) -> Result<&'a [iovec], c_int> {
    if count > MOST_PARTS {
        return Err(libc::EINVAL);
    }
    populate_read(at as usize, count * size_of::<iovec>())?;
    match count {
        0 => Ok(&[]),
        // SAFETY: by the caller; it could be read just now. The kernel takes the same.
        _ => Ok(unsafe { std::slice::from_raw_parts(at, count) }),
    }
}
