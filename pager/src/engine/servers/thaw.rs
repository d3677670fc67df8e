//! Finds frozen slabs that are not shared any more.
//!
//! While two processes share a slab, neither may write to it. Pages that change go
//! elsewhere, and the free room of such slabs is lost to both. Nobody tells a process that
//! the other has given a slab back. So the engine writes an unused page of a frozen slab
//! from time to time. The server refuses the write, without any effect, while the slab is
//! shared.

use crate::engine::servers::Backing;
use crate::engine::servers::requests::Op;
use crate::net::At;
use crate::slots::Slot;
use tmem_wire::PAGE_SIZE;

/// The most slabs that are probed at a time.
const PROBES: usize = 16;

/// A page of zeros.
#[repr(align(4096))]
struct Zeros([u8; PAGE_SIZE]);

static ZEROS: Zeros = Zeros([0; PAGE_SIZE]);

impl Backing {
    /// Probes some frozen slabs.
    pub(crate) fn probe_frozen(&mut self) {
        if self.probes > 0 {
            return;
        }
        for slot in self.slots.frozen_with_room(PROBES) {
            let Some((slab, page)) = self.slots.address(slot) else {
                continue;
            };
            let server = slot.server();
            self.probes += 1;
            let token = self.requests.add(Op::Probe(slot, slab));
            let zeros = ZEROS.0.as_ptr() as usize;
            // SAFETY: the page never changes.
            unsafe {
                self.net.write(token, At { server, slab, page }, &[zeros]);
            };
        }
    }

    /// Handles the end of a probe. `taken` says that the server accepted the write.
    pub(crate) fn probed(&mut self, slot: Slot, slab: u32, taken: bool) {
        self.probes = self.probes.saturating_sub(1);
        let server = slot.server();
        // The slab may have been released meanwhile, and its index used for another.
        match self.slots.address(slot) {
            Some((now, page)) if taken && now == slab => {
                self.net.discard(At { server, slab, page }, 1);
                self.slots.thaw(slot);
            }
            _ => {}
        }
    }
}
