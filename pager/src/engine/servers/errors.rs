//! Counts errors of servers, and decides what follows.

use crate::ServerId;
use crate::frame_number::FrameNumber;
use crate::slots::MAX_SERVERS;
use alloc::vec::Vec;

/// Consecutive failed writes after which nothing more is written to a server for a while.
const SERVER_TRIES: u32 = 8;
/// The first and the longest such pause. Each is twice as long as the one before.
const REST_NS: core::ops::RangeInclusive<u64> = 50_000_000..=30_000_000_000;
/// During pauses up to this length, pages that no other server can take wait for the
/// server.
const WAITED_FOR_NS: u64 = 1_000_000_000;

/// Errors of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Consecutive failed writes.
    failed: u32,
    /// Length of the current or last pause, and when the current one ends.
    rest_ns: u64,
    until_ns: Option<u64>,
    /// Whether the user was told that writes fail, that reads fail, and that the server is
    /// paused.
    told: [bool; 3],
}

/// Errors of all servers, and the reads to be repeated.
#[derive(Debug)]
pub(crate) struct ServerErrors {
    of: [Trouble; MAX_SERVERS],
    again: Vec<ReadAgain>,
}

/// What follows from a failed write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteFailed {
    /// The server is paused from now on.
    pub(crate) rests: bool,
    /// The user was not told before that writes fail.
    pub(crate) is_news: bool,
    /// The user has to be told that the server is paused.
    pub(crate) tells_of_rest: bool,
}

/// A page to be read again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAgain {
    /// The frame, of kind `ReadIn`. Its page is `None` if nobody wants it any more.
    pub(crate) frame: FrameNumber,
    pub(crate) tries: u8,
    /// A server gave other bytes.
    pub(crate) was_spoilt: bool,
    pub(crate) due_ns: u64,
}

impl ServerErrors {
    pub(crate) fn new() -> ServerErrors {
        ServerErrors {
            of: [Trouble::default(); MAX_SERVERS],
            again: Vec::new(),
        }
    }

    /// Forgets the errors of a server that starts anew.
    pub(crate) fn forget(&mut self, server: ServerId) {
        self.of[server.index()] = Trouble::default();
    }

    /// Counts a failed write. Returns what follows.
    pub(crate) fn write_failed(&mut self, server: ServerId, now: u64) -> WriteFailed {
        let trouble = &mut self.of[server.index()];
        let rests = trouble.fails(now);
        WriteFailed {
            rests,
            is_news: trouble.tells(WRITES),
            tells_of_rest: rests && trouble.tells(RESTS),
        }
    }

    /// Notes a successful write. Returns whether the user was told that the server takes no
    /// pages.
    pub(crate) fn wrote(&mut self, server: ServerId) -> bool {
        self.of[server.index()].works()
    }

    /// Notes a failed read. Returns whether the user has to be told.
    pub(crate) fn read_failed(&mut self, server: ServerId) -> bool {
        self.of[server.index()].tells(READS)
    }

    /// Schedules a page to be read again.
    pub(crate) fn read_again(&mut self, again: ReadAgain) {
        self.again.push(again);
    }

    /// Takes the servers whose pause is over by now.
    pub(crate) fn rested(&mut self, now: u64) -> Vec<ServerId> {
        let of = ServerId::all().zip(&mut self.of);
        let rested = of.filter_map(|(server, trouble)| {
            let until = trouble.until_ns.take_if(|until| now >= *until);
            until.map(|_| server)
        });
        rested.collect()
    }

    /// Takes the pages that are due to be read again.
    pub(crate) fn reads_due(&mut self, now: u64) -> Vec<ReadAgain> {
        let (due, later) = core::mem::take(&mut self.again)
            .into_iter()
            .partition(|a| now >= a.due_ns);
        self.again = later;
        due
    }

    /// Returns when the next pause ends or the next read is due.
    pub(crate) fn due(&self) -> Option<u64> {
        let rests = self.of.iter().filter_map(|t| t.until_ns);
        rests.chain(self.again.iter().map(|a| a.due_ns)).min()
    }

    /// Tells whether a server is in a short pause, which is worth waiting for.
    pub(crate) fn is_passing(&self) -> bool {
        let soon = |t: &Trouble| t.until_ns.is_some() && t.rest_ns <= WAITED_FOR_NS;
        self.of.iter().any(soon)
    }

    /// Tells whether a server is paused.
    pub(crate) fn any_rests(&self) -> bool {
        self.of.iter().any(|t| t.until_ns.is_some())
    }
}

impl Trouble {
    /// Counts a failed write. Returns whether the server is paused from now on.
    fn fails(&mut self, now: u64) -> bool {
        self.failed = self.failed.saturating_add(1);
        if self.failed < SERVER_TRIES || self.until_ns.is_some() {
            return false;
        }
        self.rest_ns = (self.rest_ns * 2).clamp(*REST_NS.start(), *REST_NS.end());
        self.until_ns = Some(now + self.rest_ns);
        true
    }

    /// Notes a successful write. Returns whether the user was told that none succeed.
    fn works(&mut self) -> bool {
        (self.failed, self.rest_ns) = (0, 0);
        core::mem::take(&mut self.told[RESTS])
    }

    /// Returns whether the user has to be told of `what`, which is true only once.
    fn tells(&mut self, what: usize) -> bool {
        !core::mem::replace(&mut self.told[what], true)
    }
}

const WRITES: usize = 0;
const READS: usize = 1;
const RESTS: usize = 2;
