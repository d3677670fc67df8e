//! Requests to servers that are not answered yet.

use crate::ServerId;
use crate::frame_number::FrameNumber;
use crate::slots::Slot;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// A request under way.
#[derive(Debug)]
pub(crate) enum Op {
    /// A read into frames.
    Read(Read),
    /// A write from frames.
    Write(Write),
    /// A probe: zeros are written to an unused slot of the slab with this wire number (see
    /// `thaw`).
    Probe(Slot, u32),
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct Read {
    /// The frames, in the order of the remote slots.
    pub(crate) frames: Vec<FrameNumber>,
    /// The page that is not installed, so that touching it causes more readahead.
    pub(crate) marker: Option<PageNumber>,
    /// When the fault was read that needs this page. `None` for readahead.
    pub(crate) asked_ns: Option<u64>,
    /// The server.
    pub(crate) server: ServerId,
    /// How often the pages were read in vain before.
    pub(crate) tries: u8,
}

/// A write under way.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) frames: Vec<FrameNumber>,
    /// Slot of the first page. The others follow it.
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
    /// Adds a request. Returns its token.
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

    /// Takes the request of a token out.
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
