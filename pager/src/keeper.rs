//! Whether `tmem run` is still there, for the processes under it.
//!
//! `tmem run` holds a robust mutex in memory that all of them map, for as long as it
//! lives, and gives it back when it ends in the usual way. Where it is killed, the kernel
//! marks the mutex in its stead. That takes no descriptor, so that it is seen by processes
//! that have closed theirs, have given up rights, or live in other namespaces.

use core::sync::atomic::{AtomicU32, Ordering::Acquire};

/// What the kernel sets in a robust futex whose owner has ended (`linux/futex.h`).
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;

/// Room for a mutex of the C library, whose first word is the futex.
#[repr(C, align(16))]
pub struct Keeper {
    futex: AtomicU32,
    rest: [AtomicU32; 15],
}

impl Keeper {
    /// Bytes for the mutex.
    pub const LEN: usize = size_of::<Keeper>();

    /// Where the mutex is. Only `tmem run` makes one.
    pub fn mutex(&self) -> *mut u8 {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Whether `tmem run` was killed.
    pub fn was_killed(&self) -> bool {
        self.futex.load(Acquire) & FUTEX_OWNER_DIED != 0
    }
}
