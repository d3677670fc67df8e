//! Quiesces the engine for a fork, and resumes it afterwards.

use crate::ServerId;
use crate::engine::adopt;
use crate::engine::evicted::has_evicted;
use crate::engine::fork::handover::Children;
use crate::engine::fork::manifest::{Entry, EntryKind, ForkManifest};
use crate::engine::fork::state::{self, Stage};
use crate::engine::fork::{current, detector};
use crate::engine::map_throttle;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::report::{DEBUG, WARN, program};
use crate::maps;
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::ranges::Ranges;
use crate::sys::errno::Words;
use crate::sys::mem;
use crate::sys::{now_ns, say};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_wire::{HelloReply, PAGE_SIZE, SessionId, Status};

/// How long a fork waits for a server that has no room for one more child, and the pause
/// between two attempts. Children that were forked before make room when they join their
/// sessions.
const LIMIT_PATIENCE_NS: u64 = 60_000_000_000;
const LIMIT_PAUSE_NS: u64 = 2_000_000;
/// How long it waits before that is told.
const LIMIT_TOLD_NS: u64 = 1_000_000_000;

/// What a server has that refuses one more child.
const NO_SESSION: &str = "has no more sessions to give to a child: --client-sessions and \
                          --max-connections limit them, or its memory for tables is used up";

/// The state of the current fork.
#[derive(Debug, Default)]
pub(crate) struct Fork {
    number: u32,
    pub(crate) detector: detector::ForkDetector,
    pub(crate) children: Children,
    asked: usize,
    /// Servers to ask again, and when.
    limited: Vec<ServerId>,
    again_ns: u64,
    /// When the engine was asked to quiesce, when everything was written, and when servers
    /// had made children.
    times: [u64; 3],
    sessions: Vec<Option<HelloReply>>,
    refused: Option<String>,
    /// That the fork waits for room for a child was told.
    told_limit: bool,
}

impl Fork {
    /// Maps the doorbell, so that threads can call the engine from now on.
    pub(crate) fn hang_doorbell(&mut self, m: &mut Memory) -> Result<(), rustix::io::Errno> {
        m.doorbell.hang(m.mover.kernel())
    }

    /// Tells whether the fork is done for which the engine is quiescent.
    pub(crate) fn is_done(&self, m: &Memory) -> bool {
        m.fork_stage == Stage::Quiescent && state::number() != self.number
    }

    /// Advances a fork as far as possible now: first all evicted pages are written, then
    /// servers are asked for children. Returns whether the engine can quiesce. `is_cached`
    /// says that some pages are only in the compressed cache.
    pub(crate) fn prepare(&mut self, m: &mut Memory, is_cached: bool) -> bool {
        if m.fork_stage == Stage::Idle {
            let number = state::number();
            if number.is_multiple_of(2) {
                return false;
            }
            self.number = number;
            m.fork_stage = Stage::Draining;
            self.times[0] = now_ns();
        }
        if m.fork_stage == Stage::Draining && !is_cached && is_drained(m) {
            self.times[1] = now_ns();
            self.ask_for_children(m);
            m.fork_stage = Stage::Sharing;
        }
        m.fork_stage == Stage::Sharing && self.asked == 0 && !self.ask_again(m)
    }

    fn ask_for_children(&mut self, m: &mut Memory) {
        let servers = m.backing.rediscovery.servers();
        self.sessions = servers.map(|_| None).collect();
        self.refused = None;
        self.told_limit = false;
        self.limited.clear();
        // A child that has everything in its memory needs nothing of servers.
        for server in m.backing.rediscovery.servers().filter(|_| has_evicted()) {
            if m.backing.slots.has_slabs(server) && m.backing.net.session(server).is_some() {
                self.ask_for_child(m, server);
            }
        }
    }

    fn ask_for_child(&mut self, m: &mut Memory, server: ServerId) {
        self.asked += 1;
        m.backing.net.share(server);
    }

    /// Asks servers again that had no room for a child, after a pause. Returns whether some
    /// still have to be asked or answered.
    fn ask_again(&mut self, m: &mut Memory) -> bool {
        if self.limited.is_empty() {
            return false;
        }
        if now_ns() >= self.again_ns {
            for server in core::mem::take(&mut self.limited) {
                self.ask_for_child(m, server);
            }
        }
        true
    }

    /// Handles a server's answer to [`Servers::share`](crate::net::Servers::share).
    pub(crate) fn shared(
        &mut self,
        m: &Memory,
        server: ServerId,
        result: Result<SessionId, RequestError>,
    ) {
        self.asked = self.asked.saturating_sub(1);
        let session = m.backing.net.session(server).cloned();
        match (result, session) {
            (Ok(id), Some(session)) => {
                self.sessions[server.index()] = Some(HelloReply {
                    session: id,
                    ..session
                });
            }
            // A server that is lost has no page for the child. Others may.
            (Ok(_), None) | (Err(RequestError::Lost), _) => {}
            (Err(RequestError::Status(Status::Limit)), Some(_))
                if now_ns() < self.times[1] + LIMIT_PATIENCE_NS =>
            {
                self.limited.push(server);
                self.again_ns = now_ns() + LIMIT_PAUSE_NS;
                if now_ns() > self.times[1] + LIMIT_TOLD_NS && !self.told_limit {
                    self.told_limit = true;
                    let name = m.backing.net.name(server);
                    let text = format!(
                        "server {name} {NO_SESSION}; {} waits to fork, for up to {} s",
                        program(),
                        LIMIT_PATIENCE_NS / 1_000_000_000
                    );
                    m.report.say(WARN, &text);
                }
            }
            (Err(error), _) => {
                let name = m.backing.net.name(server);
                self.refused = Some(match error {
                    RequestError::Status(Status::Limit) => format!("server {name} {NO_SESSION}"),
                    error => {
                        format!("server {name} does not share the memory with a child: {error}")
                    }
                });
            }
        }
    }

    /// Lets the coming fork copy adopted memory.
    fn show_to_fork(&self, m: &Memory) {
        let mut shown: Vec<_> = m.space.adopted().iter().collect();
        maps::subtract(&mut shown, &m.space.dontfork().iter().collect::<Vec<_>>());
        for range in shown {
            // An error means that the range is not mapped any more, so it cannot be copied
            // either.
            let _ = m
                .mover
                .kernel()
                .copied_by_forks(range.start, range.len(), true);
        }
        self.detector.set(false);
    }

    /// Writes the manifest. From here on the address space may be copied.
    pub(crate) fn quiesce(&mut self, m: &mut Memory, kept: &[Range<usize>], unseen: bool) {
        self.times[2] = now_ns();
        if self.sessions.iter().any(Option::is_some) {
            m.backing.slots.freeze();
        }
        if let Err(e) = adopt::notice_growth(m, kept) {
            self.refused = Some(format!("/proc cannot be read: {}", Words(e)));
        }
        m.follow_advice();
        let wiped = m
            .find_wiped(map_throttle::takes_small() || state::is_child(), unseen)
            .unwrap_or_else(|e| {
                self.refused = Some(format!("/proc cannot be read: {}", Words(e)));
                Ranges::default()
            });
        let all_for_it = wiped.is_empty() && m.space.dontfork().is_empty();
        let not_for_it = |page| {
            if all_for_it {
                return false;
            }
            let at = addr(page);
            wiped.around(at).or(m.space.dontfork().around(at)).is_some()
        };
        // An estimate: how many pages of the program have a slot is not counted, so all
        // queued pages are.
        let most = m.residency.remote() as usize + m.queue.pages() as usize;
        let mut entries: Vec<Entry> = Vec::with_capacity(most);
        // One call instead of a fault for each page that is shared with an earlier child.
        // If it is refused, there are faults.
        let start = entries.as_ptr().addr() / PAGE_SIZE * PAGE_SIZE;
        let len = (most * size_of::<Entry>()).next_multiple_of(PAGE_SIZE);
        let _ = mem::unshare(start, len);
        m.pages.each(|page, entry| {
            if not_for_it(page) {
                return;
            }
            let kind = match entry.state {
                State::Lost => EntryKind::Lost,
                State::Local if entry.dirty || entry.slot.is_none() => return,
                State::Local => EntryKind::Local,
                State::Pooled(_) | State::ReadIn(_) | State::Remote => EntryKind::Remote,
            };
            entries.push(Entry::new(page, entry.slot, entry.hash, kind));
        });
        // Such a page is only in the pool: servers are full, and it could not return to the
        // program.
        let unplaced = |e: &Entry| e.kind() == EntryKind::Remote && e.slot().is_none();
        if entries.iter().any(unplaced) {
            self.refused = Some(String::from(m.backing.who_is_full()));
        }
        let local = m.backing.net.keep_local_still(true);
        let evicted = entries.iter().any(|e| e.kind() != EntryKind::Local);
        let sessions = core::mem::take(&mut self.sessions);
        self.children.hand_over(
            &mut m.backing.net,
            m.doorbell.forks(),
            if evicted { &sessions } else { &[] },
            evicted,
        );
        if evicted {
            let manifest = ForkManifest::new(
                entries,
                m.space.adopted().iter().collect(),
                sessions,
                (m.backing.slots.clone(), local),
                m.backing.digester,
                self.refused.take(),
            );
            let manifest = Box::new(manifest.unwrap_or_else(|_| say::die("no memory for a fork")));
            current::publish(manifest);
        }
        self.show_to_fork(m);
        let [asked, drained, shared] = self.times;
        let us = |from: u64, to: u64| (to - from) / 1000;
        m.report.say(
            DEBUG,
            &format!(
                "ready to fork: written after {} us, shared after {}, noted after {}",
                us(asked, drained),
                us(drained, shared),
                us(shared, now_ns())
            ),
        );
        m.fork_stage = Stage::Quiescent;
        state::set_quiescent_for(self.number);
    }

    /// Resumes after the fork.
    pub(crate) fn resume(&mut self, m: &mut Memory) {
        // All events of the time before have to be in the log.
        m.read_messages();
        if let Some(manifest) = current::withdraw() {
            manifest.close();
        }
        m.fork_stage = Stage::Idle;
        m.backing.net.keep_local_still(false);
        for range in m.space.adopted().iter() {
            m.withhold_from_forks(&range);
        }
        self.detector.set(true);
        m.residency.share_mut().has_a_child();
        state::set_quiescent_for(0);
    }
}

/// Tells whether servers have all evicted pages.
fn is_drained(m: &Memory) -> bool {
    m.pool.pending_writeback() == 0 && m.backing.net.outstanding(Lane::Bulk) == 0
}
