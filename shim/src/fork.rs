//! What becomes of a forked child.
//!
//! The kernel gives a child the parent's memory, without its userfaultfd and
//! without the engine: where the parent's pages are evicted, the child would
//! read zeros. A child of a process that has evicted nothing is started like
//! any program. A child that would have to do without pages is ended with a
//! message before it runs. `vfork` and `posix_spawn` share the parent's memory
//! until they execute something, and need nothing.

use crate::{HEAP, start};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tmem_config::Options;
use tmem_pager::engine;

static OPTIONS: OnceLock<Options> = OnceLock::new();
static PREPARED: AtomicBool = AtomicBool::new(false);

/// Sees to it that children are looked after.
pub(crate) fn prepare(options: &Options) {
    // A child has them already.
    let _ = OPTIONS.set(options.clone());
    if !PREPARED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler is of this library, which is never unloaded. It
        // fails only when memory is out, and then forks go on as they would.
        unsafe { libc::pthread_atfork(None, None, Some(child)) };
    }
}

unsafe extern "C" fn child() {
    if engine::has_evicted() {
        // Not from the heap: the engine may have held its lock.
        let text = b"tmem: a process whose memory is on servers was forked, which is not possible \
                     yet; the child is ended before it reads wrong data\n";
        // SAFETY: as long as said.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        tmem_pager::sys::thread::kill_process();
    }
    // SAFETY: this is the only thread of a child that was just forked.
    unsafe { HEAP.begin_anew() };
    if let Some(options) = OPTIONS.get() {
        start::start(options);
    }
}
