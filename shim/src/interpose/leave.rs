//! The end of the program by the C library: what the engine has started ends before, or
//! another process than the engine would be told of it, and servers hear of it.

use super::interpose;
use super::next::{Function, next};
use libc::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use tmem_pager::engine::fork;
use tmem_pager::sys::confined;

/// Whether the engine was told.
static LEFT: AtomicBool = AtomicBool::new(false);

/// In a process that was just forked.
pub(crate) fn reset_after_fork() {
    LEFT.store(false, Ordering::Relaxed);
}

/// Tells the engine, once. A call that the program does not make itself may end it: then
/// nothing is told, and the engine has a moment for what it has to say.
extern "C" fn leave() {
    if confined::is_confined() {
        return fork::await_children();
    }
    if super::credentials::is_the_programs() && !LEFT.swap(true, Ordering::Relaxed) {
        crate::heap::undisturbed(tmem_pager::engine::leave);
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = leave;

interpose! {
    /// `_exit(2)`, which calls nothing else. `exit` of the C library comes by `AT_END`.
    _exit => ExitNow, own_exit;
    /// `_Exit(3)`, which is the same.
    _Exit => ExitNow, own_exit;
}

unsafe extern "C" fn own_exit(status: c_int) -> ! {
    leave();
    let real = next(Function::ExitNow);
    // SAFETY: the C library's function of that name, in every version.
    unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_int) -> !>(real)(status) }
}
