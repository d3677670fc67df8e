//! A clock that a test sets for its thread.

use core::cell::Cell;

std::thread_local! {
    static NOW_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns the time of this thread's clock, if it has one.
pub(crate) fn now_ns() -> Option<u64> {
    NOW_NS.get()
}

/// Sets the clocks of this thread to `ns`. `None` means those of the kernel.
pub(crate) fn set(ns: Option<u64>) {
    NOW_NS.set(ns);
}

#[test]
fn a_thread_has_the_clock_that_was_set_for_it() {
    set(Some(7));
    let others = std::thread::spawn(crate::sys::now_ns).join().unwrap();
    assert_eq!((crate::sys::now_ns(), crate::sys::thread_cpu_ns()), (7, 7));
    assert_ne!(others, 7);
    set(None);
    assert!(crate::sys::now_ns() >= others);
}
