//! Counts how servers fail, and says what follows.

use crate::ServerId;
use crate::slots::MAX_SERVERS;
use alloc::vec::Vec;

/// So many writes to a server that fail one after the other have it rest.
const SERVER_TRIES: u32 = 8;
/// How long it rests at first, and at most. It is twice as long each time.
const REST_NS: core::ops::RangeInclusive<u64> = 50_000_000..=30_000_000_000;
/// While a server rests for no longer, pages wait for it that no other can take.
const WAITED_FOR_NS: u64 = 1_000_000_000;

/// How a server fails.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Writes that failed, one after the other.
    failed: u32,
    /// How long it rests, and until when.
    rest_ns: u64,
    until_ns: Option<u64>,
    /// The user was told that writes fail, that reads do, and that it rests.
    told: [bool; 3],
}

/// How servers fail, and the reads to be made again.
#[derive(Debug)]
pub(crate) struct ServerErrors {
    of: [Trouble; MAX_SERVERS],
    again: Vec<ReadAgain>,
}

/// What follows from a write that has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteFailed {
    /// The server rests from now on.
    pub(crate) rests: bool,
    /// The user was not told yet that writes fail.
    pub(crate) is_news: bool,
    /// Nor that the server rests, which it does from now on.
    pub(crate) tells_of_rest: bool,
}

/// A page to be asked for again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAgain {
    /// Of kind `ReadIn`; its page says whether it is wanted still.
    pub(crate) frame: u32,
    pub(crate) tries: u8,
    pub(crate) due_ns: u64,
}

impl ServerErrors {
    pub(crate) fn new() -> ServerErrors {
        ServerErrors {
            of: [Trouble::default(); MAX_SERVERS],
            again: Vec::new(),
        }
    }

    /// The server begins anew.
    pub(crate) fn forget(&mut self, server: ServerId) {
        self.of[server.index()] = Trouble::default();
    }

    /// A write to a server has failed: what follows.
    pub(crate) fn write_failed(&mut self, server: ServerId, now: u64) -> WriteFailed {
        let trouble = &mut self.of[server.index()];
        let rests = trouble.fails(now);
        WriteFailed {
            rests,
            is_news: trouble.tells(WRITES),
            tells_of_rest: rests && trouble.tells(RESTS),
        }
    }

    /// A server has taken pages; whether the user was told that it took none.
    pub(crate) fn wrote(&mut self, server: ServerId) -> bool {
        self.of[server.index()].works()
    }

    /// A read from a server has failed; whether that is news to the user.
    pub(crate) fn read_failed(&mut self, server: ServerId) -> bool {
        self.of[server.index()].tells(READS)
    }

    /// A page is to be asked for again.
    pub(crate) fn read_again(&mut self, again: ReadAgain) {
        self.again.push(again);
    }

    /// Servers that have rested by now.
    pub(crate) fn rested(&mut self, now: u64) -> Vec<ServerId> {
        let of = ServerId::all().zip(&mut self.of);
        let rested = of.filter_map(|(server, trouble)| {
            let until = trouble.until_ns.take_if(|until| now >= *until);
            until.map(|_| server)
        });
        rested.collect()
    }

    /// Pages to be asked for again by now.
    pub(crate) fn reads_due(&mut self, now: u64) -> Vec<ReadAgain> {
        let (due, later) = core::mem::take(&mut self.again)
            .into_iter()
            .partition(|a| now >= a.due_ns);
        self.again = later;
        due
    }

    /// When something is to be done about it.
    pub(crate) fn due(&self) -> Option<u64> {
        let rests = self.of.iter().filter_map(|t| t.until_ns);
        rests.chain(self.again.iter().map(|a| a.due_ns)).min()
    }

    /// Whether a server is about to be tried again.
    pub(crate) fn is_passing(&self) -> bool {
        let soon = |t: &Trouble| t.until_ns.is_some() && t.rest_ns <= WAITED_FOR_NS;
        self.of.iter().any(soon)
    }

    /// Whether a server rests.
    pub(crate) fn any_rests(&self) -> bool {
        self.of.iter().any(|t| t.until_ns.is_some())
    }
}

impl Trouble {
    /// A write has failed; whether the server rests from now on.
    fn fails(&mut self, now: u64) -> bool {
        self.failed = self.failed.saturating_add(1);
        if self.failed < SERVER_TRIES || self.until_ns.is_some() {
            return false;
        }
        self.rest_ns = (self.rest_ns * 2).clamp(*REST_NS.start(), *REST_NS.end());
        self.until_ns = Some(now + self.rest_ns);
        true
    }

    /// A write was taken; whether the user was told that none were.
    fn works(&mut self) -> bool {
        (self.failed, self.rest_ns) = (0, 0);
        core::mem::take(&mut self.told[RESTS])
    }

    /// Whether the user is to be told of it, once.
    fn tells(&mut self, what: usize) -> bool {
        !core::mem::replace(&mut self.told[what], true)
    }
}

const WRITES: usize = 0;
const READS: usize = 1;
const RESTS: usize = 2;
