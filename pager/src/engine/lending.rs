//! Sees whether the kernel may show pages to others after they have left the program.
//!
//! `vmsplice`, `MSG_ZEROCOPY` and the zero-copy sends of io_uring hand pages of the
//! program to a pipe or a socket: the kernel takes a reference and does not pin the page.
//! `UFFDIO_MOVE` refuses a pinned page only. So such a page becomes a frame of the pool
//! while the pipe or socket still shows its memory, and whatever is written to the frame
//! next comes out of there instead of the program's bytes.
//!
//! Nothing tells user space of such references. So from the first call on that can lend
//! pages, a frame that a page was moved into is never written: its memory goes back to the
//! kernel, which keeps it for as long as it is shown, and the next page comes into fresh
//! memory. That costs about 1 us a page; to do it for programs that lend nothing would make reading in
//! order take nearly twice as long.
//!
//! The order makes this safe. A thread that is about to lend says so before its call; the
//! engine looks after a move and before the frame can be written. A page that was lent
//! before the move was told of by then, and one that has been moved cannot be lent.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;

/// A call that can lend pages has been made, or was about to be.
static LENT: AtomicBool = AtomicBool::new(false);

/// The program is about to make a call that can lend pages of its memory to the kernel.
/// Called by its threads, also within signal handlers.
pub fn begin() {
    LENT.store(true, SeqCst);
}

/// Whether pages that left just now may have been lent before.
pub(super) fn has_lent() -> bool {
    LENT.load(SeqCst)
}
