//! Filters of system calls that a program sets for all of its threads.
//!
//! The kernel knows no others: the engine would have to do with what the program
//! allows itself, and would end with the process. A program that has one thread
//! means only that. For several there is no other call.

use std::ffi::{c_uint, c_ulong};

/// The operation that sets a filter.
const SET_FILTER: c_uint = 1;
/// For all threads, and how to tell that it failed.
const ALL: c_ulong = 1;
const ALL_OR_ERROR: c_ulong = 1 << 4;

/// What to give to `seccomp(2)` as its flags.
pub(crate) fn for_whom(operation: usize, flags: usize) -> usize {
    let sets = operation as c_uint == SET_FILTER && flags as c_ulong & ALL != 0;
    if sets && crate::heap::undisturbed(is_alone) {
        flags & !(ALL | ALL_OR_ERROR) as usize
    } else {
        flags
    }
}

/// Whether the calling thread is the program's only one.
fn is_alone() -> bool {
    let own = tmem_pager::sys::thread::own();
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == own + 1)
}
