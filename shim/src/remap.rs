//! `mremap` of memory that is adopted in part.
//!
//! It takes memory of one mapping only. Two mappings that lie together are one
//! for the kernel, unless only one of them is registered with a userfaultfd: a
//! program that has them moved together is refused where it would not be
//! without tmem. So what is refused for that reason is tried again once all
//! memory is adopted.

use crate::large::next;
use libc::{c_int, c_void, size_t};
use std::sync::atomic::AtomicUsize;

type Mremap =
    unsafe extern "C" fn(*mut c_void, size_t, size_t, c_int, *mut c_void) -> *mut c_void;

static MREMAP: AtomicUsize = AtomicUsize::new(0);

/// `mremap(2)`; a caller without a fifth argument leaves anything there, which
/// the kernel does not look at.
#[unsafe(no_mangle)]
unsafe extern "C" fn mremap(
    old: *mut c_void,
    old_len: size_t,
    len: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    let real = next(&MREMAP, c"mremap", raw_mremap as *const () as usize);
    // SAFETY: it is mremap, whose further argument is passed on like the others.
    let real = unsafe { std::mem::transmute::<usize, Mremap>(real) };
    // SAFETY: by the caller.
    let got = unsafe { real(old, old_len, len, flags, new) };
    // SAFETY: errno is the calling thread's.
    let refused = got == libc::MAP_FAILED && unsafe { *libc::__errno_location() } == libc::EFAULT;
    if refused && tmem_pager::engine::adopt_all() {
        // SAFETY: by the caller; nothing was done the first time.
        return unsafe { real(old, old_len, len, flags, new) };
    }
    got
}

unsafe extern "C" fn raw_mremap(
    old: *mut c_void,
    old_len: size_t,
    len: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_mremap, old, old_len, len, flags, new) as *mut c_void }
}
