//! One replica of a slab: the slab of a server that has its pages.

use crate::ServerId;
use crate::net::At;
use alloc::boxed::Box;

/// One replica of a slab.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    server: ServerId,
    /// The slab's number on the wire.
    wire: u32,
    state: State,
}

/// What a replica has.
#[derive(Clone, Debug)]
enum State {
    /// Every page in use.
    Whole,
    /// Pages are being copied into it. It takes all writes.
    Filling {
        /// Which fill this is.
        number: u64,
        /// It has the pages whose bit is set.
        bits: Box<[u64]>,
    },
}

impl Replica {
    /// A replica that has all pages in use.
    pub(super) fn new(server: ServerId, wire: u32) -> Replica {
        Replica {
            server,
            wire,
            state: State::Whole,
        }
    }

    /// A replica of a slab of so many pages that has none of them yet.
    pub(super) fn to_fill(server: ServerId, wire: u32, pages: u32, number: u64) -> Replica {
        let bits = alloc::vec![0; pages.div_ceil(64) as usize].into();
        Replica {
            server,
            wire,
            state: State::Filling { number, bits },
        }
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    pub(super) fn wire(&self) -> u32 {
        self.wire
    }

    pub(super) fn at(&self, page: u32) -> At {
        At {
            server: self.server,
            slab: self.wire,
            page,
        }
    }

    /// Whether a page can be read from it.
    #[inline]
    pub(super) fn has(&self, page: u32) -> bool {
        match &self.state {
            State::Whole => true,
            State::Filling { bits, .. } => {
                let word = bits.get((page / 64) as usize);
                word.is_some_and(|word| word >> (page % 64) & 1 != 0)
            }
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Whole)
    }

    pub(super) fn is_filling(&self) -> bool {
        matches!(self.state, State::Filling { .. })
    }

    /// Which fill is under way, if one is.
    pub(super) fn fill(&self) -> Option<u64> {
        match self.state {
            State::Whole => None,
            State::Filling { number, .. } => Some(number),
        }
    }

    /// It has every page in use.
    pub(super) fn set_whole(&mut self) {
        self.state = State::Whole;
    }

    /// It has these pages, if it is being filled by a fill up to `last`.
    pub(super) fn filled(&mut self, page: u32, len: u32, last: u64) {
        if let State::Filling { number, bits } = &mut self.state
            && *number <= last
        {
            for page in page..page.saturating_add(len) {
                if let Some(word) = bits.get_mut((page / 64) as usize) {
                    *word |= 1 << (page % 64);
                }
            }
        }
    }
}
