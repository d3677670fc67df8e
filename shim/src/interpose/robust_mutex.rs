//! Robust mutexes, whose pages must stay: see `tmem_pager::engine::Ask`.

use super::interpose;
use super::next::{Function, next};
use libc::{c_int, pthread_mutex_t, pthread_mutexattr_t};
use tmem_pager::engine::Ask;

type Init = unsafe extern "C" fn(*mut pthread_mutex_t, *const pthread_mutexattr_t) -> c_int;

interpose! {
    /// `pthread_mutex_init(3)`.
    pthread_mutex_init => MutexInit, own_mutex_init;
}

unsafe extern "C" fn own_mutex_init(
    mutex: *mut pthread_mutex_t,
    attr: *const pthread_mutexattr_t,
) -> c_int {
    let real = next(Function::MutexInit);
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
