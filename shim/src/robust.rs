//! Robust mutexes, whose pages must stay: see `tmem_pager::engine::Ask`.

use crate::large::next;
use libc::{c_int, pthread_mutex_t, pthread_mutexattr_t};
use std::sync::atomic::AtomicUsize;
use tmem_pager::engine::Ask;

type Init = unsafe extern "C" fn(*mut pthread_mutex_t, *const pthread_mutexattr_t) -> c_int;

static INIT: AtomicUsize = AtomicUsize::new(0);

/// Where there is no other function of that name, of which no C library is known.
unsafe extern "C" fn none(_: *mut pthread_mutex_t, _: *const pthread_mutexattr_t) -> c_int {
    libc::ENOSYS
}

/// `pthread_mutex_init(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_mutex_init(
    mutex: *mut pthread_mutex_t,
    attr: *const pthread_mutexattr_t,
) -> c_int {
    let real = next(&INIT, c"pthread_mutex_init", none as *const () as usize);
    // SAFETY: it is pthread_mutex_init.
    let real = unsafe { std::mem::transmute::<usize, Init>(real) };
    // SAFETY: by the caller.
    let result = unsafe { real(mutex, attr) };
    let mut robust = libc::PTHREAD_MUTEX_STALLED;
    if result == 0 && !attr.is_null() {
        // SAFETY: attributes, by the caller.
        unsafe { libc::pthread_mutexattr_getrobust(attr, &raw mut robust) };
    }
    if robust == libc::PTHREAD_MUTEX_ROBUST {
        let at = mutex as usize;
        crate::heap::undisturbed(|| {
            let range = at..at + size_of::<pthread_mutex_t>();
            tmem_pager::engine::ask(Ask::Stay, &range);
        });
    }
    result
}
