//! Requests to servers that are not answered yet.

use crate::ServerId;
use crate::engine::servers::repair::Step;
use crate::frame_number::FrameNumber;
use crate::net::{At, RequestError};
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
    /// A probe: zeros are written to an unused slot (see `thaw`).
    Probe(Probe),
    /// A read of a late page from a second server.
    Second(SecondRead),
    /// A read or write of pages for a further replica.
    Repair(Step),
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
    /// What became of it at other servers.
    pub(crate) elsewhere: Elsewhere,
}

/// What became of a read at servers that were asked before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Elsewhere {
    /// Servers that did not give the pages, a bit for each.
    pub(crate) asked: u64,
    /// One of them may give them if it is asked again.
    pub(crate) may_help: bool,
    /// One of them gave other bytes.
    pub(crate) was_spoilt: bool,
}

impl Elsewhere {
    /// Whether a server was asked.
    pub(crate) fn has(&self, server: ServerId) -> bool {
        self.asked >> (server.index() % 64) & 1 != 0
    }

    /// A server was asked, too.
    pub(crate) fn add(&mut self, server: ServerId) {
        self.asked |= 1 << (server.index() % 64);
    }
}

/// A page that is asked of a second server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecondRead {
    pub(crate) page: PageNumber,
    pub(crate) slot: Slot,
    /// Of kind `ReadIn`, and of no page until the answer is taken.
    pub(crate) frame: FrameNumber,
    pub(crate) server: ServerId,
}

/// A question whether a slab is still shared.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) slot: Slot,
    pub(crate) to: Vec<At>,
    pub(crate) answers: Answers,
}

/// The answers of all servers that something was sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    left: usize,
    taken: usize,
    /// What a server said that did not take it, before that one was lost.
    failed: Option<(ServerId, RequestError)>,
}

impl Answers {
    /// So many answers are to come.
    pub(crate) fn of(count: usize) -> Answers {
        Answers {
            left: count,
            taken: 0,
            failed: None,
        }
    }

    /// A server has answered; whether it was the last.
    fn add(&mut self, server: ServerId, result: Result<(), RequestError>) -> bool {
        self.left = self.left.saturating_sub(1);
        match result {
            Ok(()) => self.taken += 1,
            // What is on a server that is lost is on the others.
            Err(RequestError::Lost) => {}
            Err(error) => self.failed = Some((server, error)),
        }
        self.left == 0
    }

    /// Whether any server has it.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken > 0
    }

    /// Whether all servers have it that are not lost, and at least one does.
    pub(crate) fn outcome(&self) -> Result<(), Option<(ServerId, RequestError)>> {
        match self.failed {
            None if self.taken > 0 => Ok(()),
            failed => Err(failed),
        }
    }
}

/// A write under way.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) frames: Vec<FrameNumber>,
    /// Slot of the first page. The others follow it.
    pub(crate) slot: Slot,
    /// How many fills of further replicas had begun, each of which was sent the pages too.
    pub(crate) fills: u64,
    pub(crate) answers: Answers,
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

    /// Takes in what a server has answered to something sent to several; takes the request
    /// once all have.
    pub(crate) fn answered(
        &mut self,
        token: u64,
        server: ServerId,
        result: Result<(), RequestError>,
    ) -> Option<Op> {
        let op = self.ops.get_mut(usize::try_from(token).ok()?)?.as_mut()?;
        let is_last = match op {
            Op::Write(Write { answers, .. }) | Op::Probe(Probe { answers, .. }) => {
                answers.add(server, result)
            }
            _ => true,
        };
        if is_last { self.take(token) } else { None }
    }

    /// The server that was asked for the page that goes into a frame.
    pub(crate) fn server_of(&self, frame: FrameNumber) -> Option<ServerId> {
        self.ops.iter().flatten().find_map(|op| match op {
            Op::Read(read) if read.frames.contains(&frame) => Some(read.server),
            _ => None,
        })
    }
}
