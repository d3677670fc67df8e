//! The environment of the process, which those that it starts inherit.
//!
//! The C library's functions are not used to change it: some programs, bash for one, have
//! their own in their place, which do not work yet when this library begins.

use core::ffi::c_char;
use std::ffi::CString;

/// Gives a variable another value, if it is there; whether it was.
///
/// # Safety
/// No other thread uses the environment.
pub(crate) unsafe fn replace(name: &str, value: &[u8]) -> bool {
    let start = [name.as_bytes(), b"="].concat();
    let Ok(text) = CString::new([&start, value].concat()) else {
        return false;
    };
    // SAFETY: by the caller; the list ends with null. What is put there is never freed.
    unsafe {
        let mut at: *mut *mut c_char = libc::environ;
        while !at.is_null() && !(*at).is_null() {
            if libc::strncmp(*at, start.as_ptr().cast(), start.len()) == 0 {
                *at = text.into_raw();
                return true;
            }
            at = at.add(1);
        }
    }
    false
}
