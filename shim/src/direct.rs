//! Direct input (`O_DIRECT`) on kernels that cannot move pages; see
//! `tmem_pager::engine::apart`. Elsewhere these calls are passed on.

use crate::large::next;
use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use std::sync::atomic::AtomicUsize;
use tmem_pager::engine::apart::{Direct, is_needed};

/// Bytes that are read at a time: while they are, nothing is evicted.
const PIECE: usize = 1 << 20;

type Read = unsafe extern "C" fn(c_int, *mut c_void, size_t) -> ssize_t;
type Pread = unsafe extern "C" fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;
type Readv = unsafe extern "C" fn(c_int, *const iovec, c_int) -> ssize_t;
type Preadv = unsafe extern "C" fn(c_int, *const iovec, c_int, off_t) -> ssize_t;

static READ: AtomicUsize = AtomicUsize::new(0);
static PREAD: AtomicUsize = AtomicUsize::new(0);
static READV: AtomicUsize = AtomicUsize::new(0);
static PREADV: AtomicUsize = AtomicUsize::new(0);

/// Whether a descriptor is read by a device into the caller's memory.
fn is_direct(fd: c_int) -> bool {
    if !is_needed() {
        return false;
    }
    // SAFETY: takes numbers only; errno is put back for the caller.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::fcntl(fd, libc::F_GETFL);
        *libc::__errno_location() = errno;
        flags >= 0 && flags & libc::O_DIRECT != 0
    }
}

/// Reads piece by piece, so that memory can be evicted in between.
fn pieces(len: usize, read: impl Fn(usize, usize) -> ssize_t) -> ssize_t {
    let mut done = 0;
    loop {
        let want = (len - done).min(PIECE);
        let direct = Direct::begin();
        let got = read(done, want);
        drop(direct);
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

unsafe extern "C" fn raw_read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_read, fd, to, len) as ssize_t }
}

unsafe extern "C" fn raw_pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_pread64, fd, to, len, at) as ssize_t }
}

unsafe extern "C" fn raw_readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_readv, fd, to, n) as ssize_t }
}

unsafe extern "C" fn raw_preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_preadv, fd, to, n, at, 0) as ssize_t }
}

/// `read(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    let real = next(&READ, c"read", raw_read as *const () as usize);
    // SAFETY: it is read.
    let real = unsafe { std::mem::transmute::<usize, Read>(real) };
    if !is_direct(fd) {
        // SAFETY: by the caller.
        return unsafe { real(fd, to, len) };
    }
    // SAFETY: by the caller; each piece lies within what was given.
    pieces(len, |at, n| unsafe { real(fd, to.byte_add(at), n) })
}

/// `pread(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    let real = next(&PREAD, c"pread", raw_pread as *const () as usize);
    // SAFETY: it is pread.
    let real = unsafe { std::mem::transmute::<usize, Pread>(real) };
    if !is_direct(fd) {
        // SAFETY: by the caller.
        return unsafe { real(fd, to, len, at) };
    }
    pieces(len, |done, n| {
        let at = at.saturating_add(done as off_t);
        // SAFETY: by the caller; each piece lies within what was given.
        unsafe { real(fd, to.byte_add(done), n, at) }
    })
}

/// `pread64(2)`, which is the same on machines of 64 bits.
#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { pread(fd, to, len, at) }
}

/// `readv(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t {
    let real = next(&READV, c"readv", raw_readv as *const () as usize);
    // SAFETY: it is readv.
    let real = unsafe { std::mem::transmute::<usize, Readv>(real) };
    let _direct = is_direct(fd).then(Direct::begin);
    // SAFETY: by the caller.
    unsafe { real(fd, to, n) }
}

/// `preadv(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    let real = next(&PREADV, c"preadv", raw_preadv as *const () as usize);
    // SAFETY: it is preadv.
    let real = unsafe { std::mem::transmute::<usize, Preadv>(real) };
    let _direct = is_direct(fd).then(Direct::begin);
    // SAFETY: by the caller.
    unsafe { real(fd, to, n, at) }
}

/// `preadv64(2)`, which is the same on machines of 64 bits.
#[unsafe(no_mangle)]
unsafe extern "C" fn preadv64(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { preadv(fd, to, n, at) }
}
