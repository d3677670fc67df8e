//! What was asked of servers and is not answered yet.

use crate::ServerId;
use crate::frame_number::FrameNumber;
use crate::slots::Slot;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// A request that is under way.
#[derive(Debug)]
pub(crate) enum Op {
    /// Pages are being received into these frames.
    Read(Read),
    /// Pages are being sent from frames.
    Write(Write),
    /// Zeros are being sent to a slot that is not in use, in the slab of this
    /// name on the wire, see `thaw`.
    Probe(Slot, u32),
}

/// A read that is under way.
#[derive(Debug)]
pub(crate) struct Read {
    /// In the order of their remote slots.
    pub(crate) frames: Vec<FrameNumber>,
    /// The page that is not to be put into the program: touching it asks for
    /// more.
    pub(crate) marker: Option<PageNumber>,
    /// When the fault was read that asked for it; none when none did.
    pub(crate) asked_ns: Option<u64>,
    /// The server.
    pub(crate) server: ServerId,
    /// How often the pages were asked for in vain before.
    pub(crate) tries: u8,
}

/// A write that is under way.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) frames: Vec<FrameNumber>,
    /// Where the first page goes; the others follow on.
    pub(crate) slot: Slot,
}

/// Requests by token.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    ops: Vec<Option<Op>>,
    vacant: Vec<u32>,
    /// Reads that a thread waits for.
    awaited: usize,
    /// Reads, in all.
    reads: usize,
}

impl Requests {
    /// Keeps a request; its token.
    pub(crate) fn add(&mut self, op: Op) -> u64 {
        if let Op::Read(read) = &op {
            self.reads += 1;
            self.awaited += usize::from(read.asked_ns.is_some());
        }
        if let Some(at) = self.vacant.pop() {
            self.ops[at as usize] = Some(op);
            return u64::from(at);
        }
        self.ops.push(Some(op));
        self.ops.len() as u64 - 1
    }

    /// Takes the request of a token.
    pub(crate) fn take(&mut self, token: u64) -> Option<Op> {
        let op = self.ops.get_mut(usize::try_from(token).ok()?)?.take()?;
        self.vacant.push(token as u32);
        if let Op::Read(read) = &op {
            self.reads -= 1;
            self.awaited -= usize::from(read.asked_ns.is_some());
        }
        Some(op)
    }

    /// Whether a thread waits for a page that was asked for on its behalf.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// Whether no page is on its way.
    pub(crate) fn has_no_reads(&self) -> bool {
        self.reads == 0
    }
}
