//! The environment of the process, which its children inherit.
//!
//! It is not changed by the C library's functions: some programs, such as bash, replace them
//! with their own, which do not work yet when this library begins.

use core::ffi::c_char;
use std::ffi::CString;

/// Changes the value of a variable, if it exists. Returns whether it does.
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
