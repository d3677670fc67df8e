//! Closes the file descriptors that a task of the engine has inherited.

use super::confined::is_confined;
use super::syscall::syscall3;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

/// The size of the file table of the thread that has forked this process, or 0 if unknown.
static TABLE: AtomicUsize = AtomicUsize::new(0);
/// The engine and its guard have no more file descriptors than this.
const OWN_DESCRIPTORS: usize = 1024;

/// Tells the child of the next fork the size of its file table.
pub fn note_table(size: usize) {
    TABLE.store(size, Relaxed);
}

/// Closes all file descriptors of the calling thread's file table, except those of `kept`
/// that are not negative. Under a seccomp filter it makes only calls that are older than
/// such filters.
pub fn close_all_but<const N: usize>(mut kept: [i32; N]) {
    kept.sort_unstable();
    let table = TABLE.load(Relaxed);
    let one_by_one = is_confined() && table > 0;
    let close = |from: usize, to: usize| {
        if one_by_one {
            for fd in from..=to.min(table.max(OWN_DESCRIPTORS)) {
                // SAFETY: close(fd); the caller has no other file descriptor yet.
                unsafe { syscall3(3, fd, 0, 0) };
            }
        } else if from <= to {
            // SAFETY: close_range(from, to, 0); the caller has no other file descriptor
            // yet.
            unsafe { syscall3(436, from, to, 0) };
        }
    };
    let mut from = 0;
    for kept in kept.into_iter().filter_map(|fd| usize::try_from(fd).ok()) {
        if kept > from {
            close(from, kept - 1);
        }
        from = from.max(kept + 1);
    }
    close(from, u32::MAX as usize);
}
