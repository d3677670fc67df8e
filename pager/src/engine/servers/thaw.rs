//! Slabs that were shared with a forked process and are not any more.
//!
//! As long as two processes have a slab neither may write it, and pages that
//! change go elsewhere: room in such slabs is lost to both. Nobody tells when
//! the other process has given a slab back, so a page that is not in use is
//! written now and then; the server refuses that, without any effect, while the
//! slab is shared.

use crate::engine::servers::Backing;
use crate::engine::servers::requests::Op;
use crate::net::At;
use crate::slots::Slot;
use tmem_wire::PAGE_SIZE;

/// Slabs asked for at a time.
const PROBES: usize = 16;

/// A page of zeros.
#[repr(align(4096))]
struct Zeros([u8; PAGE_SIZE]);

static ZEROS: Zeros = Zeros([0; PAGE_SIZE]);

impl Backing {
    /// Asks whether some slabs are still shared.
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
            // SAFETY: a page that never changes.
            unsafe {
                self.net.write(token, At { server, slab, page }, &[zeros]);
            };
        }
    }

    /// A probe has ended: the server took the page, or not.
    pub(crate) fn probed(&mut self, slot: Slot, slab: u32, taken: bool) {
        self.probes = self.probes.saturating_sub(1);
        let server = slot.server();
        // It may have been given back meanwhile, and be another now.
        match self.slots.address(slot) {
            Some((now, page)) if taken && now == slab => {
                self.net.discard(At { server, slab, page }, 1);
                self.slots.thaw(slot);
            }
            _ => {}
        }
    }
}
