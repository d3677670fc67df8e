//! Calls that lend pages of the program to a pipe or a socket; see
//! `tmem_pager::engine::lending`, which is told of each before it is made.

use super::next::{Function, NEXT, next};
use super::{interpose, noted};
use core::ffi::CStr;
use libc::{c_char, c_int, c_long, c_uint, c_void, iovec, size_t, socklen_t, ssize_t};
use tmem_pager::engine::lending;

type Vmsplice = unsafe extern "C" fn(c_int, *const iovec, size_t, c_uint) -> ssize_t;
type Setsockopt = unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;

interpose! {
    /// `vmsplice(2)`.
    vmsplice => Vmsplice, own_vmsplice;
    /// `setsockopt(2)`.
    setsockopt => Setsockopt, own_setsockopt;
}

interpose! {
    /// `dlopen(3)`.
    dlopen => Dlopen, noted_dlopen;
    /// `dlmopen(3)`.
    dlmopen => Dlmopen, noted_dlmopen;
    /// `dlsym(3)`.
    dlsym => Dlsym, noted_dlsym;
    /// `dlvsym(3)`.
    dlvsym => Dlvsym, noted_dlvsym;
}

noted! {
    noted_dlopen => Dlopen, loads;
    noted_dlmopen => Dlmopen, loads;
    noted_dlsym => Dlsym, asks_for;
    noted_dlvsym => Dlvsym, asks_for;
}

extern "C" fn loads() {
    lending::loads();
}

/// Who has the address of such a function of the C library's calls it past this one.
unsafe extern "C" fn asks_for(_: *const c_void, name: *const c_char) {
    if name.is_null() {
        return;
    }
    // SAFETY: by the caller of `dlsym`.
    let name = unsafe { CStr::from_ptr(name) };
    if [c"vmsplice", c"setsockopt", c"syscall"].contains(&name) {
        lending::begin();
    }
}

/// Tells the engine where a system call can lend pages, or makes something that can.
pub(crate) fn before(number: c_long, b: usize, c: usize) {
    let lends = match number {
        // A ring reads its requests from memory: what they ask for cannot be seen.
        libc::SYS_vmsplice | libc::SYS_io_uring_setup => true,
        libc::SYS_setsockopt => is_zero_copy(b as c_int, c as c_int),
        _ => false,
    };
    if lends {
        lending::begin();
    }
}

/// Without this option a socket copies what it sends, whatever `MSG_ZEROCOPY` asks for.
fn is_zero_copy(level: c_int, option: c_int) -> bool {
    (level, option) == (libc::SOL_SOCKET, libc::SO_ZEROCOPY)
}

unsafe extern "C" fn own_vmsplice(
    pipe: c_int,
    parts: *const iovec,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    lending::begin();
    // SAFETY: it is vmsplice, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, Vmsplice>(next(Function::Vmsplice));
        real(pipe, parts, count, flags)
    }
}

unsafe extern "C" fn own_setsockopt(
    socket: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if is_zero_copy(level, option) {
        lending::begin();
    }
    // SAFETY: it is setsockopt, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, Setsockopt>(next(Function::Setsockopt));
        real(socket, level, option, value, len)
    }
}
