//! Shows the processes under `tmem run` whether it is still alive.
//!
//! `tmem run` holds a robust mutex, in memory that all of them map, for as long as it
//! lives, and releases it when it ends normally. If it is killed, the kernel marks the
//! mutex. That needs no file descriptor, so it works in processes that have closed theirs,
//! have given up rights, or live in other namespaces.

use core::sync::atomic::{AtomicU32, Ordering::Acquire};

/// The bit that the kernel sets in a robust futex whose owner has ended (`linux/futex.h`).
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;

/// Room for a mutex of the C library. Its first word is the futex.
#[repr(C, align(16))]
pub struct Keeper {
    futex: AtomicU32,
    rest: [AtomicU32; 15],
}

impl Keeper {
    /// Bytes for the mutex.
    pub const LEN: usize = size_of::<Keeper>();

    /// Returns the address of the mutex. Only `tmem run` initializes it.
    pub fn mutex(&self) -> *mut u8 {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Tells whether `tmem run` was killed.
    pub fn was_killed(&self) -> bool {
        self.futex.load(Acquire) & FUTEX_OWNER_DIED != 0
    }
}
