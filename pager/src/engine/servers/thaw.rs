//! Finds frozen slabs that are not shared any more.
//!
//! While two processes share a slab, neither may write to it. Pages that change go
//! elsewhere, and the free room of such slabs is lost to both. Nobody tells a process that
//! the other has given a slab back. So the engine writes an unused page of a frozen slab
//! from time to time. The server refuses the write, without any effect, while the slab is
//! shared.

use crate::engine::servers::Backing;
use crate::engine::servers::requests::{Answers, Op, Probe};
use crate::net::At;
use alloc::vec::Vec;
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
                // SAFETY: the page never changes.
                unsafe { self.net.write(token, at, &[zeros]) };
            }
        }
    }

    /// Handles the end of a probe: all servers took the page, or not.
    pub(crate) fn probed(&mut self, probe: &Probe) {
        self.probes = self.probes.saturating_sub(1);
        if !probe.answers.is_taken() {
            return;
        }
        // The slab may have been released meanwhile, and its name used for another, or it may
        // have lost a replica.
        let now: Vec<At> = self.slots.writable(probe.slot).collect();
        // A server that does not share its slab any more has taken the page, though others
        // have not.
        for at in probe.to.iter().filter(|at| now.contains(at)) {
            self.net.discard(*at, 1);
        }
        if probe.answers.outcome() == Ok(()) && now == probe.to {
            self.slots.thaw(probe.slot);
        }
    }
}
