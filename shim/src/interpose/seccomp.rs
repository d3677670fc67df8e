//! Filters of system calls (seccomp) that a program installs.
//!
//! A filter for all threads would hold for the engine too, and might end the process. A
//! program that has one thread means only that one, so its filter is installed for the
//! calling thread. For a program with several threads there is no other call.
//!
//! From the first filter on, threads of the program make no system calls for the engine's
//! sake, such as to sleep: the filter may not allow them.

use super::interpose;
use super::next::{Function, next};
use std::ffi::{c_int, c_uint, c_ulong};
use tmem_pager::sys::{detached, proc, thread};

/// The operation that sets a filter.
const SET_FILTER: c_uint = 1;
/// For all threads, and how to tell that it failed.
const ALL: c_ulong = 1;
const ALL_OR_ERROR: c_ulong = 1 << 4;

/// The operation that allows next to nothing.
const SET_STRICT: c_uint = 0;

/// What to give to `seccomp(2)` as its flags.
pub(crate) fn for_whom(operation: usize, flags: usize) -> usize {
    if matches!(operation as c_uint, SET_STRICT | SET_FILTER) {
        thread::confine();
    }
    let sets = operation as c_uint == SET_FILTER && flags as c_ulong & ALL != 0;
    if sets && crate::heap::undisturbed(is_alone) {
        flags & !(ALL | ALL_OR_ERROR) as usize
    } else {
        flags
    }
}

/// Called before `prctl(2)` with this option.
pub(crate) fn before(option: c_int) {
    match option {
        libc::PR_SET_SECCOMP => thread::confine(),
        libc::PR_SET_CHILD_SUBREAPER => detached::has_reaper(),
        _ => {}
    }
}

interpose! {
    /// `prctl(2)`, which sets filters as well.
    prctl => Prctl, own_prctl;
}

unsafe extern "C" fn own_prctl(
    option: c_int,
    a: c_ulong,
    b: c_ulong,
    c: c_ulong,
    d: c_ulong,
) -> c_int {
    type Real = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;
    let real = next(Function::Prctl);
    before(option);
    // SAFETY: the C library's function of that name, which takes so many words
    // whatever the option; by the caller.
    unsafe { std::mem::transmute::<usize, Real>(real)(option, a, b, c, d) }
}

/// Whether the calling thread is the program's only one.
fn is_alone() -> bool {
    proc::threads() == Some(thread::own() + 1)
}
