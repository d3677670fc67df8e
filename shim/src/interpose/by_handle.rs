//! Functions that a program looks up by `dlsym`, and code that it loads late.
//!
//! With a handle of the C library, a program would find the C library's function instead of
//! this library's. So it is given this library's function if that would call the one found;
//! then no function can call itself. Calls of a function that is found in another library,
//! or by `RTLD_NEXT`, cannot be seen; the engine is told so.

use super::lend;
use super::next::{Function, NEXT, next};
use super::syscall;
use super::unmap;
use super::{interpose, noted};
use core::arch::naked_asm;
use core::ffi::CStr;
use libc::{c_char, c_void};
use tmem_pager::engine::lending;

interpose! {
    /// `dlopen(3)`.
    dlopen => Dlopen, noted_dlopen;
    /// `dlmopen(3)`.
    dlmopen => Dlmopen, noted_dlmopen;
    /// `dlsym(3)`.
    dlsym => Dlsym, dlsym_of_handles;
    /// `dlvsym(3)`.
    dlvsym => Dlvsym, dlvsym_of_handles;
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

/// Defines a function that goes on with `own` for a handle, and with `noted` where what is
/// found depends on the caller (`RTLD_DEFAULT`, 0, and `RTLD_NEXT`, -1).
macro_rules! of_handles {
    ($($name:ident => $own:path, $noted:path;)*) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "lea rax, [rdi + 1]",
                "cmp rax, 1",
                "ja {own}",
                "jmp {noted}",
                own = sym $own,
                noted = sym $noted,
            )
        }
    )*};
}

of_handles! {
    dlsym_of_handles => own_dlsym, noted_dlsym;
    dlvsym_of_handles => own_dlvsym, noted_dlvsym;
}

/// Functions that matter, and the addresses of this library's own.
fn watched() -> [(&'static CStr, Function, usize); 5] {
    [
        (
            c"vmsplice",
            Function::Vmsplice,
            lend::vmsplice as *const () as usize,
        ),
        (
            c"setsockopt",
            Function::Setsockopt,
            lend::setsockopt as *const () as usize,
        ),
        (
            c"syscall",
            Function::Syscall,
            syscall::syscall as *const () as usize,
        ),
        (
            c"madvise",
            Function::Madvise,
            unmap::madvise as *const () as usize,
        ),
        (
            c"process_madvise",
            Function::ProcessMadvise,
            unmap::process_madvise as *const () as usize,
        ),
    ]
}

/// The function to return to a program that has found `found` by a handle.
///
/// # Safety
/// The name is a C string, or null.
unsafe fn given(found: *mut c_void, name: *const c_char) -> *mut c_void {
    if found.is_null() || name.is_null() {
        return found;
    }
    // SAFETY: by the caller.
    let name = unsafe { CStr::from_ptr(name) };
    match watched().into_iter().find(|(known, ..)| *known == name) {
        None => found,
        Some((_, _, own)) if found as usize == own => found,
        Some((_, function, own)) if found as usize == next(function) => own as *mut c_void,
        Some(_) => {
            calls_unseen(name);
            found
        }
    }
}

/// The program may call a function of that name past this library.
fn calls_unseen(name: &CStr) {
    match name.to_bytes() {
        b"vmsplice" | b"setsockopt" => lending::begin(),
        b"madvise" | b"process_madvise" => lending::advises(),
        b"syscall" => {
            lending::begin();
            lending::advises();
        }
        _ => {}
    }
}

unsafe extern "C" fn asks_for(_: *const c_void, name: *const c_char) {
    if !name.is_null() {
        // SAFETY: by the caller of `dlsym`.
        calls_unseen(unsafe { CStr::from_ptr(name) });
    }
}

unsafe extern "C" fn own_dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    type Real = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    // SAFETY: it is dlsym, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, Real>(next(Function::Dlsym));
        given(real(handle, name), name)
    }
}

unsafe extern "C" fn own_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    type Real = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;
    // SAFETY: it is dlvsym, with what the caller gave.
    unsafe {
        let real = std::mem::transmute::<usize, Real>(next(Function::Dlvsym));
        given(real(handle, name, version), name)
    }
}
