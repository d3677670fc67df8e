//! Calls that lend pages of the program to a pipe or a socket; see
//! `tmem_pager::engine::lending`, which is told of each before it is made.

use super::next::{Function, NEXT, next};
use super::{interpose, noted, user_memory};
use libc::{c_int, c_long, c_void, iovec, size_t, socklen_t};
use tmem_pager::engine::lending;
use tmem_pager::sys::confined;

type Setsockopt = unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;

interpose! {
    /// `vmsplice(2)`.
    vmsplice => Vmsplice, noted_vmsplice;
    /// `setsockopt(2)`.
    setsockopt => Setsockopt, own_setsockopt;
}

noted! {
    noted_vmsplice => Vmsplice, splices;
}

unsafe extern "C" fn splices(_: c_int, parts: *const iovec, count: size_t) {
    lending::begin();
    // SAFETY: by the caller of `vmsplice`.
    unsafe { keep_in_place(parts, count) };
}

/// Tells the engine where a system call can lend pages, or makes something that can.
///
/// # Safety
/// The arguments are that call's.
pub(crate) unsafe fn before(number: c_long, b: usize, c: usize) {
    match number {
        // SAFETY: by the caller.
        libc::SYS_vmsplice => unsafe { splices(0, b as *const iovec, c) },
        // A ring reads its requests from memory: what they ask for cannot be seen.
        libc::SYS_io_uring_setup => lending::begin(),
        libc::SYS_setsockopt if is_zero_copy(b as c_int, c as c_int) => lending::begin(),
        _ => {}
    }
}

/// Has pages stay where they are that a pipe is to show: it shows what the program writes to
/// them later.
///
/// # Safety
/// No other thread unmaps the list meanwhile.
unsafe fn keep_in_place(parts: *const iovec, count: usize) {
    // A call that the program does not make itself may end it.
    if confined::is_confined() {
        return;
    }
    // SAFETY: by the caller.
    if let Ok(parts) = unsafe { user_memory::parts(parts, count) } {
        crate::heap::undisturbed(|| {
            for part in parts {
                let start = part.iov_base as usize;
                lending::keep_in_place(&(start..start.saturating_add(part.iov_len)));
            }
        });
    }
}

/// Without this option a socket copies what it sends, whatever `MSG_ZEROCOPY` asks for.
fn is_zero_copy(level: c_int, option: c_int) -> bool {
    (level, option) == (libc::SOL_SOCKET, libc::SO_ZEROCOPY)
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
