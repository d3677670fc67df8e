//! Buffers that a program registers with io_uring.
//!
//! Before Linux 6.5 the kernel brings no page for that which somebody else has to
//! bring: with a buffer that is elsewhere, or was never touched, the call fails
//! (`EFAULT`). Then the buffers are brought first, and it is made again. Programs
//! make it by `syscall`, or have liburing make it.

use super::user_memory::{populate_read, populate_write};
use crate::link::linker::find_late;
use libc::{c_int, c_uint, c_void, iovec};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use tmem_pager::engine::exclusion::are_reported;

/// `IORING_REGISTER_BUFFERS`, and the same with tags and for some of them.
const BUFFERS: usize = 0;
const BUFFERS2: usize = 15;
const BUFFERS_UPDATE: usize = 16;
/// Pages that were brought may leave again before the call. None do any more once the
/// engine has seen that the program has a ring.
const ATTEMPTS: usize = 64;

/// Makes a call of `io_uring_register(2)`, which gives the kernel's answer.
///
/// # Safety
/// The arguments are that call's.
pub(crate) unsafe fn registering(
    opcode: usize,
    arg: usize,
    count: usize,
    call: impl Fn() -> isize,
) -> isize {
    let list = || {
        let within = |words: usize| can_be_read(arg, words * size_of::<usize>());
        // SAFETY: it was looked whether it can be read.
        let word = |at: usize| unsafe { (arg as *const usize).add(at).read_unaligned() };
        match opcode {
            BUFFERS => Some((arg, count)),
            // `struct io_uring_rsrc_register`: how many, nothing, where they are listed.
            BUFFERS2 if within(3) => Some((word(2), word(0) as u32 as usize)),
            // `struct io_uring_rsrc_update2`: from which on, where, tags, how many.
            BUFFERS_UPDATE if within(4) => Some((word(1), word(3) as u32 as usize)),
            _ => None,
        }
    };
    let mut result = call();
    for _ in 0..ATTEMPTS {
        if result != -libc::EFAULT as isize || !are_reported() {
            break;
        }
        let list = list().filter(|(at, n)| can_be_read(*at, n.saturating_mul(size_of::<iovec>())));
        // SAFETY: it can be read.
        let brought = |(at, n)| unsafe { bring(at as *const iovec, n) };
        if !list.is_some_and(brought) {
            break;
        }
        result = call();
    }
    result
}

/// Whether memory can be read: what was refused may not be where the program says.
fn can_be_read(at: usize, len: usize) -> bool {
    populate_read(at, len).is_ok()
}

/// Brings the pages of these buffers into memory; whether all of them could be brought.
///
/// # Safety
/// The list of `count` buffers can be read.
unsafe fn bring(buffers: *const iovec, count: usize) -> bool {
    (0..count).all(|i| {
        // SAFETY: by the caller.
        let buffer = unsafe { buffers.add(i).read_unaligned() };
        let at = buffer.iov_base as usize;
        at == 0 || populate_write(at, buffer.iov_len).is_ok()
    })
}

/// liburing's function of that name, which may have been loaded late and for a part of the
/// program only.
fn of_liburing(place: &AtomicUsize, name: &'static [u8]) -> Option<usize> {
    let found = match place.load(Relaxed) {
        0 => find_late(name)?,
        found => found,
    };
    place.store(found, Relaxed);
    Some(found)
}

type Register = unsafe extern "C" fn(*mut c_void, *const iovec, c_uint) -> c_int;
type RegisterTags = unsafe extern "C" fn(*mut c_void, *const iovec, *const u64, c_uint) -> c_int;

/// liburing's, which gives the kernel's answer.
///
/// # Safety
/// As for liburing's.
#[unsafe(no_mangle)]
unsafe extern "C" fn io_uring_register_buffers(
    ring: *mut c_void,
    buffers: *const iovec,
    count: c_uint,
) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let Some(real) = of_liburing(&REAL, b"io_uring_register_buffers") else {
        return -libc::ENOSYS;
    };
    // SAFETY: liburing's function of that name, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, Register>(real);
        let call = || real(ring, buffers, count) as isize;
        registering(BUFFERS, buffers as usize, count as usize, call) as c_int
    }
}

/// liburing's, which gives the kernel's answer.
///
/// # Safety
/// As for liburing's.
#[unsafe(no_mangle)]
unsafe extern "C" fn io_uring_register_buffers_tags(
    ring: *mut c_void,
    buffers: *const iovec,
    tags: *const u64,
    count: c_uint,
) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let Some(real) = of_liburing(&REAL, b"io_uring_register_buffers_tags") else {
        return -libc::ENOSYS;
    };
    // SAFETY: liburing's function of that name, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, RegisterTags>(real);
        let call = || real(ring, buffers, tags, count) as isize;
        registering(BUFFERS, buffers as usize, count as usize, call) as c_int
    }
}
