//! The program's own memory as a file: `/proc/self/mem`, by which programs that generate code
//! write to pages that they may only read.
//!
//! The kernel refuses what is elsewhere there; see `tmem_pager::engine::populate`. Once the
//! program has opened a file of that name, reads and writes look at their descriptor: what
//! kind of file it is, and not its number, which `dup`, `close`, a fork or another process
//! may have given another meaning. Memory of another process is not told from the program's
//! own before the kernel refuses it: then the program's page of the same address, if there is
//! one, is brought, and the other's (`debugger`).

use super::next::{Function, NEXT};
use super::{ACTIVE, debugger, interpose, noted, user_memory};
use crate::errno;
use crate::heap::undisturbed;
use crate::raw::raw_syscall;
use core::ffi::CStr;
use libc::{c_char, c_int, c_void, iovec, off_t, size_t, ssize_t};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use tmem_pager::engine::{Access, populate};
use tmem_pager::sys::confined;

const PAGE: usize = 4096;
/// How often a page is brought that has left again before it could be used.
const ATTEMPTS: usize = 1 << 10;
/// The most bytes of a call (`MAX_RW_COUNT`).
const MOST_BYTES: usize = 0x7fff_f000;

/// A file was opened that may be the program's memory.
pub(super) static OPENED: AtomicBool = AtomicBool::new(false);

interpose! {
    /// `open(2)`.
    open => Open, noted_open, ACTIVE, debugger::DEBUGS;
    /// `open64(2)`, which is the same on machines of 64 bits.
    open64 => Open64, noted_open64, ACTIVE, debugger::DEBUGS;
    /// `openat(2)`.
    openat => Openat, noted_openat, ACTIVE, debugger::DEBUGS;
    /// `openat64(2)`, which is the same on machines of 64 bits.
    openat64 => Openat64, noted_openat64, ACTIVE, debugger::DEBUGS;
    /// `open(2)` as it is compiled where its flags are not known.
    __open_2 => OpenChk, noted_open_chk, ACTIVE, debugger::DEBUGS;
    /// `open64(2)` likewise.
    __open64_2 => Open64Chk, noted_open64_chk, ACTIVE, debugger::DEBUGS;
    /// `openat(2)` likewise.
    __openat_2 => OpenatChk, noted_openat_chk, ACTIVE, debugger::DEBUGS;
    /// `openat64(2)` likewise.
    __openat64_2 => Openat64Chk, noted_openat64_chk, ACTIVE, debugger::DEBUGS;
    /// `fopen(3)`, whose descriptor `fileno` tells.
    fopen => Fopen, noted_fopen, ACTIVE, debugger::DEBUGS;
    /// `fopen64(3)`, which is the same on machines of 64 bits.
    fopen64 => Fopen64, noted_fopen64, ACTIVE, debugger::DEBUGS;
}

noted! {
    noted_open => Open, opens;
    noted_open64 => Open64, opens;
    noted_openat => Openat, opens_at;
    noted_openat64 => Openat64, opens_at;
    noted_open_chk => OpenChk, opens;
    noted_open64_chk => Open64Chk, opens;
    noted_openat_chk => OpenatChk, opens_at;
    noted_openat64_chk => Openat64Chk, opens_at;
    noted_fopen => Fopen, opens;
    noted_fopen64 => Fopen64, opens;
}

unsafe extern "C" fn opens_at(_: c_int, path: *const c_char) {
    // SAFETY: by the caller.
    unsafe { opens(path) };
}

/// Notes that a file is opened that may be the program's memory.
///
/// # Safety
/// The path is a C string, or null.
pub(super) unsafe extern "C" fn opens(path: *const c_char) {
    if path.is_null() {
        return;
    }
    // SAFETY: by the caller.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path.rsplit(|b| *b == b'/').next() == Some(b"mem") {
        OPENED.store(true, Relaxed);
    }
}

/// Whether a descriptor is the memory of a process: a file of `/proc` that its owner alone may
/// read and write. A program that has set a filter of system calls is not to make others than
/// it does by itself, so nothing is for it.
pub(super) fn is_own(fd: c_int) -> bool {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    if !OPENED.load(Relaxed) || confined::is_confined() {
        return false;
    }
    // SAFETY: zeros are a value of both, which the kernel fills in.
    unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        let args = [fd as usize, (&raw mut stat) as usize, 0, 0, 0, 0];
        let known = raw_syscall(libc::SYS_fstat, args) == 0;
        if !known || stat.st_mode != libc::S_IFREG | 0o600 || stat.st_size != 0 {
            return false;
        }
        let mut system: libc::statfs = core::mem::zeroed();
        let args = [fd as usize, (&raw mut system) as usize, 0, 0, 0, 0];
        raw_syscall(libc::SYS_fstatfs, args) == 0 && system.f_type == PROC_SUPER_MAGIC
    }
}

/// Reads from `at` on, or from where the descriptor stands.
///
/// # Safety
/// As `pread(2)`.
pub(super) unsafe fn read(fd: c_int, to: *mut c_void, len: size_t, at: Option<off_t>) -> ssize_t {
    let parts = [iovec {
        iov_base: to,
        iov_len: len,
    }];
    // SAFETY: by the caller.
    answered(unsafe { transfer(fd, &parts, at, false) })
}

/// Writes from `at` on, or from where the descriptor stands.
///
/// # Safety
/// As `pwrite(2)`.
pub(super) unsafe fn write(
    fd: c_int,
    from: *const c_void,
    len: size_t,
    at: Option<off_t>,
) -> ssize_t {
    let parts = [iovec {
        iov_base: from.cast_mut(),
        iov_len: len,
    }];
    // SAFETY: by the caller.
    answered(unsafe { transfer(fd, &parts, at, true) })
}

/// [`read`] to several places.
///
/// # Safety
/// As `preadv(2)`.
pub(super) unsafe fn readv(
    fd: c_int,
    to: *const iovec,
    count: c_int,
    at: Option<off_t>,
) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { transfer_all(fd, to, count, at, false) }
}

/// [`write`] from several places.
///
/// # Safety
/// As `pwritev(2)`.
pub(super) unsafe fn writev(
    fd: c_int,
    from: *const iovec,
    count: c_int,
    at: Option<off_t>,
) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { transfer_all(fd, from, count, at, true) }
}

/// # Safety
/// As `preadv(2)` and `pwritev(2)`.
unsafe fn transfer_all(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    at: Option<off_t>,
    writes: bool,
) -> ssize_t {
    // A negative number is one of too many.
    // SAFETY: by the caller.
    let parts = match unsafe { user_memory::parts(parts, count as usize) } {
        Ok(parts) => parts,
        Err(error) => return answered(-error as isize),
    };
    // SAFETY: by the caller.
    answered(unsafe { transfer(fd, parts, at, writes) })
}

/// The C library's way to tell of the kernel's answer.
fn answered(result: isize) -> ssize_t {
    if result < 0 {
        errno::set(-result as c_int);
        return -1;
    }
    result
}

/// Reads or writes page by page; gives how many bytes, or the kernel's error where it is none.
///
/// # Safety
/// As `preadv(2)` and `pwritev(2)`.
unsafe fn transfer(fd: c_int, parts: &[iovec], at: Option<off_t>, writes: bool) -> isize {
    let total = parts.iter().try_fold(0usize, |sum, part| {
        let sum = sum.checked_add(part.iov_len);
        sum.filter(|sum| *sum <= isize::MAX as usize)
    });
    if total.is_none() {
        return -libc::EINVAL as isize;
    }
    let start = match at {
        Some(at) if at < 0 => return -libc::EINVAL as isize,
        Some(at) => at as isize,
        None => seek(fd, 0, libc::SEEK_CUR),
    };
    if start < 0 {
        return start;
    }
    let (mut done, mut error) = (0, 0);
    undisturbed(|| {
        let mut page = vec![0u8; PAGE];
        'all: for part in parts {
            let mut within = 0;
            while within < part.iov_len && done < MOST_BYTES {
                let place = start as usize + done;
                let len = (PAGE - place % PAGE)
                    .min(part.iov_len - within)
                    .min(MOST_BYTES - done);
                let user = part.iov_base as usize + within;
                // SAFETY: by the caller.
                match unsafe { transfer_page(fd, &mut page[..len], place, user, writes) } {
                    n @ 1.. => {
                        done += n as usize;
                        within += n as usize;
                        if (n as usize) < len {
                            break 'all;
                        }
                    }
                    stopped => {
                        error = stopped;
                        break 'all;
                    }
                }
            }
        }
    });
    if at.is_none() && done > 0 {
        seek(fd, (start as usize + done) as off_t, libc::SEEK_SET);
    }
    if done == 0 { error } else { done as isize }
}

/// Reads or writes the memory at `place` as far as `buffer` goes, from or to `user`.
///
/// # Safety
/// As `pread(2)` and `pwrite(2)`.
unsafe fn transfer_page(
    fd: c_int,
    buffer: &mut [u8],
    place: usize,
    user: usize,
    writes: bool,
) -> isize {
    let usable = match writes {
        true => user_memory::populate_read(user, buffer.len()),
        false => user_memory::populate_write(user, buffer.len()),
    };
    if let Err(error) = usable {
        return -error as isize;
    }
    if writes {
        // SAFETY: by the caller; it could be read just now.
        unsafe {
            core::ptr::copy_nonoverlapping(user as *const u8, buffer.as_mut_ptr(), buffer.len());
        };
    }
    let access = Access {
        fd,
        writes,
        buffer: buffer.as_mut_ptr() as usize,
        len: buffer.len(),
        at: place,
    };
    let mut result = 0;
    for _ in 0..ATTEMPTS {
        // SAFETY: the buffer is of that length; by the caller.
        result = unsafe { access.call() };
        if result != -libc::EIO as isize || !is_brought(fd, place) {
            break;
        }
    }
    if !writes && result > 0 {
        // SAFETY: by the caller; it could be written just now.
        unsafe {
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), user as *mut u8, result as usize);
        };
    }
    result
}

/// Has the page at `at` brought, of this program or of the other that `fd` is the memory of.
fn is_brought(fd: c_int, at: usize) -> bool {
    match debugger::other(fd) {
        Some(tid) => debugger::bring(tid, at),
        None => populate(at),
    }
}

fn seek(fd: c_int, to: off_t, from: c_int) -> isize {
    // SAFETY: takes numbers only.
    unsafe {
        raw_syscall(
            libc::SYS_lseek,
            [fd as usize, to as usize, from as usize, 0, 0, 0],
        )
    }
}
