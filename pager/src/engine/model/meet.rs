//! Steps that have two things meet which seldom meet by chance.

use super::machine::Machine;
use super::program::Action;
use super::world::BASE;
use crate::pages::State;
use crate::pool::Kind;
use alloc::vec::Vec;
use tmem_wire::PAGE_SIZE;

/// Pages that are taken out, or given up, where none is on its way yet.
const SOME: usize = 24;

/// Where a page is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a server.
    In,
    /// To a server.
    Out,
}

/// What the program does to a page that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meeting {
    Read,
    Write,
    DontNeed,
    Free,
    Unmap,
    Move { to: u64, keep: bool },
}

impl Machine {
    /// The program does something to `n` pages from the `nth` on that is on its way.
    pub(super) fn meet(&mut self, way: Way, nth: usize, n: u64, meeting: Meeting) {
        self.servers.set_prompt(false);
        if self.on_the_way(way).is_empty() {
            self.begin_way(way, nth);
        }
        if let Some(first) = pick(&self.on_the_way(way), nth) {
            let thread = nth + 1;
            let action = match meeting {
                Meeting::Read => Action::Read {
                    thread,
                    page: first,
                },
                Meeting::Write => Action::Write {
                    thread,
                    page: first,
                    zero: false,
                },
                Meeting::DontNeed => Action::DontNeed { first, n },
                Meeting::Free => Action::Free { first, n },
                Meeting::Unmap => Action::Unmap { first, n },
                Meeting::Move { to, keep } => Action::Move { first, n, to, keep },
            };
            self.world.borrow_mut().act(action);
        }
        self.servers.set_prompt(self.is_prompt);
    }

    /// Has pages read in, or written.
    fn begin_way(&mut self, way: Way, nth: usize) {
        match way {
            Way::In => {
                let remote = |state| state == State::Remote;
                if self.pages_that_are(remote).is_empty() {
                    let engine = self.engine();
                    engine.reclaim.reclaim_standby(&mut engine.memory, SOME);
                }
                if let Some(page) = pick(&self.pages_that_are(remote), nth) {
                    let read = Action::Read { thread: nth, page };
                    self.world.borrow_mut().act(read);
                }
            }
            Way::Out => {
                let engine = self.engine();
                if engine.reclaim.may_evict(&engine.memory) {
                    engine.evict(SOME);
                }
            }
        }
        self.turn(0);
    }

    fn on_the_way(&mut self, way: Way) -> Vec<u64> {
        let kind = match way {
            Way::In => Kind::ReadIn,
            Way::Out => Kind::Writeback,
        };
        let mut found = Vec::new();
        let m = &self.engine().memory;
        m.pages.each(|page, entry| {
            if let State::Pooled(frame) | State::ReadIn(frame) = entry.state
                && m.pool.kind(frame) == kind
            {
                found.push(page.get() - (BASE / PAGE_SIZE) as u64);
            }
        });
        found
    }

    fn pages_that_are(&mut self, fits: impl Fn(State) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        self.engine().memory.pages.each(|page, entry| {
            if fits(entry.state) {
                found.push(page.get() - (BASE / PAGE_SIZE) as u64);
            }
        });
        found
    }

    /// A thread takes `n` pages from `first` on away, to `away` or for good; at once another
    /// moves its own from `from` to there. If `late`, the kernel reports the second first.
    pub(super) fn take_place(
        &mut self,
        (first, n): (u64, u64),
        away: Option<u64>,
        from: u64,
        late: bool,
    ) {
        let keep = false;
        let leave = match away {
            Some(to) => Action::Move { first, n, to, keep },
            None => Action::Unmap { first, n },
        };
        let take = Action::Move {
            first: from,
            n,
            to: first,
            keep,
        };
        let mut world = self.world.borrow_mut();
        let before = world.held.len();
        world.act(leave);
        let between = world.held.len();
        world.act(take);
        let after = world.held.len();
        if late && (between, after) == (before + 1, before + 2) {
            world.held.swap(before, before + 1);
        }
    }
}

fn pick(pages: &[u64], nth: usize) -> Option<u64> {
    pages.get(nth % pages.len().max(1)).copied()
}
