//! The shared memory of a process that no `tmem run` has started: its figures, and what it
//! shows and is asked.

use crate::live::Live;
use crate::stats::Slot;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// First word of an [`Own`] area of this layout.
pub const OWN_MAGIC: u64 = u64::from_le_bytes(*b"tmemown1");

/// The area. All zeros but for `magic` is its start.
#[repr(C)]
pub struct Own {
    magic: AtomicU64,
    /// What the process shows and is asked.
    pub live: Live,
    /// Its figures.
    pub slot: Slot,
}

impl Own {
    /// Bytes of the area.
    pub const LEN: usize = size_of::<Own>();

    /// A process begins here.
    pub fn begin(&self, pid: u32) {
        self.slot.pid.store(pid, Relaxed);
        self.live.begin(pid, 0);
        self.magic.store(OWN_MAGIC, Relaxed);
    }

    /// Whether this is such an area.
    pub fn is_one(&self) -> bool {
        self.magic.load(Relaxed) == OWN_MAGIC
    }
}
