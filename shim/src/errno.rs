//! The calling thread's `errno`. A call that succeeds must leave it as it was.

use libc::c_int;

/// Its value.
pub(crate) fn get() -> c_int {
    // SAFETY: this thread's.
    unsafe { *libc::__errno_location() }
}

/// Gives it a value.
pub(crate) fn set(value: c_int) {
    // SAFETY: this thread's.
    unsafe { *libc::__errno_location() = value };
}
