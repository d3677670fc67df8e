//! Direct input (`O_DIRECT`, and some file systems) on kernels that cannot move pages; see
//! `tmem_pager::engine::exclusion`.

use super::next::{Function, next};
use crate::raw::raw_syscall;
use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use tmem_pager::engine::exclusion::DirectIo;

/// Bytes that are read at a time. Nothing is evicted meanwhile.
const PIECE: usize = 1 << 20;

type Read = unsafe extern "C" fn(c_int, *mut c_void, size_t) -> ssize_t;
type Pread = unsafe extern "C" fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;
type Readv = unsafe extern "C" fn(c_int, *const iovec, c_int) -> ssize_t;
type Preadv = unsafe extern "C" fn(c_int, *const iovec, c_int, off_t) -> ssize_t;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Whether a descriptor is read by a device into the caller's memory.
pub(super) fn is_direct(fd: c_int) -> bool {
    let args = [fd as usize, libc::F_GETFL as usize, 0, 0, 0, 0];
    // SAFETY: takes numbers only.
    let flags = unsafe { raw_syscall(libc::SYS_fcntl, args) };
    flags >= 0 && (flags as c_int & libc::O_DIRECT != 0 || super::uncached::is_uncached(fd))
}

/// Reads, and meanwhile nothing is zapped and the thread is not cancelled.
fn undisturbed(read: impl FnOnce() -> ssize_t) -> ssize_t {
    /// `PTHREAD_CANCEL_DISABLE`.
    const DISABLE: c_int = 1;
    let mut state = 0;
    // SAFETY: room for the answer.
    unsafe { pthread_setcancelstate(DISABLE, &raw mut state) };
    let direct = DirectIo::begin();
    let got = read();
    drop(direct);
    // SAFETY: what it was; nothing is asked for. A cancellation waits for the next call.
    unsafe { pthread_setcancelstate(state, std::ptr::null_mut()) };
    got
}

/// Reads piece by piece, so that memory can be evicted in between.
fn pieces(len: usize, read: impl Fn(usize, usize) -> ssize_t) -> ssize_t {
    let mut done = 0;
    loop {
        let want = (len - done).min(PIECE);
        let got = undisturbed(|| read(done, want));
        if got < 0 {
            // What was read before is there, and is told first.
            return if done > 0 { done as ssize_t } else { got };
        }
        done += got as usize;
        if (got as usize) < want || done == len {
            return done as ssize_t;
        }
    }
}

/// `read(2)` of such a file.
///
/// # Safety
/// As for the C library's.
pub(super) unsafe fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: it is read.
    let real = unsafe { std::mem::transmute::<usize, Read>(next(Function::Read)) };
    // SAFETY: by the caller; each piece lies within what was given.
    pieces(len, |at, n| unsafe { real(fd, to.byte_add(at), n) })
}

/// `pread(2)` of such a file.
///
/// # Safety
/// As for the C library's.
pub(super) unsafe fn pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: it is pread.
    let real = unsafe { std::mem::transmute::<usize, Pread>(next(Function::Pread)) };
    pieces(len, |done, n| {
        let at = at.saturating_add(done as off_t);
        // SAFETY: by the caller; each piece lies within what was given.
        unsafe { real(fd, to.byte_add(done), n, at) }
    })
}

/// `readv(2)` of such a file.
///
/// # Safety
/// As for the C library's.
pub(super) unsafe fn readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: it is readv.
    let real = unsafe { std::mem::transmute::<usize, Readv>(next(Function::Readv)) };
    // SAFETY: by the caller.
    undisturbed(|| unsafe { real(fd, to, n) })
}

/// `preadv(2)` of such a file.
///
/// # Safety
/// As for the C library's.
pub(super) unsafe fn preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: it is preadv.
    let real = unsafe { std::mem::transmute::<usize, Preadv>(next(Function::Preadv)) };
    // SAFETY: by the caller.
    undisturbed(|| unsafe { real(fd, to, n, at) })
}
