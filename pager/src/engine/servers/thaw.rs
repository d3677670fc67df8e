//! Slabs that were shared with a forked process and are not any more.
//!
//! As long as two processes have a slab neither may write it, and pages that
//! change go elsewhere: room in such slabs is lost to both. Nobody tells when
//! the other process has given a slab back, so a page that is not in use is
//! written now and then; the server refuses that, without any effect, while the
//! slab is shared.

use crate::engine::servers::Backing;
use crate::engine::servers::requests::{Answers, Op, Probe};
use crate::net::At;
use alloc::vec::Vec;
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
            let to: Vec<At> = self.slots.writable(slot).collect();
            if to.is_empty() {
                continue;
            }
            self.probes += 1;
            let answers = Answers::of(to.len());
            let token = self.requests.add(Op::Probe(Probe {
                slot,
                to: to.clone(),
                answers,
            }));
            let zeros = ZEROS.0.as_ptr() as usize;
            for at in to {
                // SAFETY: a page that never changes.
                unsafe { self.net.write(token, at, &[zeros]) };
            }
        }
    }

    /// A probe has ended: all servers took the page, or not.
    pub(crate) fn probed(&mut self, probe: &Probe) {
        self.probes = self.probes.saturating_sub(1);
        let is_taken = probe.answers.outcome() == Ok(());
        // It may have been given back meanwhile, and be another now, or have lost a replica.
        if is_taken && self.slots.writable(probe.slot).eq(probe.to.iter().copied()) {
            for at in &probe.to {
                self.net.discard(*at, 1);
            }
            self.slots.thaw(probe.slot);
        }
    }
}
