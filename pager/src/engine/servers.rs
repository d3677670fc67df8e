//! What servers answer, and what becomes of pages when one is lost.

use super::ops::Op;
use super::{ERROR, Engine, INFO, LOST, PAGED, WARN};
use crate::net::{Completion, Reason, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::{MAX_SERVERS, Slots};
use crate::sys::thread;
use alloc::format;
use alloc::vec::Vec;
use core::fmt::Display;
use core::sync::atomic::Ordering::{self, Relaxed};
use tmem_wire::PAGE_SIZE;

/// After how long a server that had no room is asked again.
const RETRY_NS: u64 = 1_000_000_000;

/// What is known of one server's willingness to give slabs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grant {
    /// Pages that were asked for and not answered.
    pub(super) coming: u64,
    asked: bool,
    /// When it had no room, or 0.
    refused_ns: u64,
}

/// Which slabs were asked for.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) of: Vec<Grant>,
    /// Pages that were asked for in all.
    pub(super) coming: u64,
    /// No server has room.
    pub(super) full: bool,
    /// The user was told so.
    pub(super) warned: bool,
}

impl Grants {
    pub(super) fn new() -> Grants {
        Grants {
            of: alloc::vec![Grant::default(); MAX_SERVERS],
            coming: 0,
            full: false,
            warned: false,
        }
    }

    /// Notes that `server` is asked; false when it is already.
    pub(super) fn ask(&mut self, server: u16) -> bool {
        !core::mem::replace(&mut self.of[usize::from(server)].asked, true)
    }

    /// Whether an answer is to come.
    pub(super) fn waiting(&self) -> bool {
        self.of.iter().any(|g| g.asked)
    }

    fn answered(&mut self, server: u16) {
        let grant = &mut self.of[usize::from(server)];
        self.coming -= grant.coming;
        *grant = Grant::default();
    }

    /// Servers that had no room a while ago may have some now.
    pub(super) fn retry(&mut self, slots: &mut Slots, now: u64) {
        for (server, grant) in (0..).zip(&mut self.of) {
            if grant.refused_ns != 0 && now >= grant.refused_ns + RETRY_NS {
                grant.refused_ns = 0;
                slots.set_grantable(server, u64::from(slots.slab_pages(server)));
            }
        }
    }
}

impl Engine {
    /// Takes in what became of something.
    pub(super) fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Read { token, result } => {
                if let Some(Op::Read(read)) = self.ops.take(token) {
                    self.fetched(&read, result);
                }
            }
            Completion::Written { token } => match self.ops.take(token) {
                Some(Op::Write(frames)) => self.written(&frames),
                Some(Op::Probe(slot, slab)) => self.probed(slot, slab, true),
                Some(Op::Read(_)) | None => {}
            },
            Completion::WriteFailed {
                token,
                server,
                error,
            } => match self.ops.take(token) {
                Some(Op::Write(frames)) => self.not_written(&frames, server, error),
                Some(Op::Probe(slot, slab)) => self.probed(slot, slab, false),
                Some(Op::Read(_)) | None => {}
            },
            Completion::Granted { server, slabs } => {
                self.grants.answered(server);
                self.slots.add_slabs(server, &slabs);
                self.grants.full = false;
            }
            Completion::GrantRefused { server } => {
                self.grants.answered(server);
                self.slots.set_grantable(server, 0);
                let now = crate::sys::now_ns();
                self.grants.of[usize::from(server)].refused_ns = now;
                self.see_whether_full();
            }
            Completion::Shared { server, result } => self.shared(server, result),
            Completion::Up {
                server,
                slab_pages,
                free_pages,
                ..
            } => self.up(server, slab_pages, free_pages),
            Completion::Lost { server, reason } => self.lost(server, &reason),
            Completion::Refused { server, reason } => self.refused(server, &reason),
        }
    }

    fn up(&mut self, server: u16, slab_pages: u32, free_pages: u64) {
        if !self.was_up {
            self.pages_from_now_on();
            // Those that could not be had are told of now that the others are.
            core::mem::take(&mut self.refused)
                .iter()
                .for_each(|text| self.done_without(text));
        }
        let name = self.net.name(server);
        match self.slots.set_geometry(server, slab_pages) {
            Ok(()) => {
                self.slots.set_grantable(server, free_pages);
                self.grants.full = false;
                let mib = (free_pages * PAGE_SIZE as u64) >> 20;
                self.say(INFO, &format!("server {name} has {mib} MiB free"));
            }
            Err(error) => self.say(WARN, &format!("server {name} is not used: {error}")),
        }
    }

    /// From here on pages may leave. An engine that ends without having come
    /// here leaves no guard of a thread that is gone.
    pub(super) fn pages_from_now_on(&mut self) {
        self.was_up = true;
        self.settings.figures.paging.store(1, Relaxed);
        self.guard = super::guard::start(self.figures, self.settings.shared).ok();
        self.settings.outcome.store(PAGED, Ordering::Release);
        thread::wake_sleeper(self.settings.outcome);
    }

    fn refused(&mut self, server: u16, reason: &Reason) {
        let name = self.net.name(server);
        let text = format!("server {name}: {reason}");
        if self.was_up {
            self.done_without(&text);
        } else {
            self.refused.push(text);
        }
    }

    /// So many pages cannot be had back.
    pub(super) fn lost_some(&self, n: i64) {
        if n > 0 {
            LOST.store(true, Relaxed);
            self.figures.lost_pages.fetch_add(n as u64, Relaxed);
        }
    }

    fn done_without(&self, text: &str) {
        let level = if self.settings.checked { INFO } else { WARN };
        self.say(level, &format!("{text}; going on with the others"));
    }

    fn not_written(&mut self, frames: &[u32], server: u16, error: RequestError) {
        for &frame in frames {
            self.must_be(frame, Kind::Writing);
            match self.pool.page(frame) {
                0 => self.pool.put(frame, Kind::Free, 0),
                page => {
                    let mut entry = self.pages.get(page);
                    let slot = entry.slot.take();
                    self.pages.set(page, &entry);
                    if let Some(slot) = slot {
                        self.slots.free(slot, 1);
                    }
                    self.unplace(frame, page);
                }
            }
        }
        if let RequestError::Status(status) = error {
            // It does not keep what it promised; nothing of it can be trusted.
            self.lost(server, &format!("it refused a page: {status}"));
        }
    }

    /// A server is gone, and what it held.
    fn lost(&mut self, server: u16, reason: &impl Display) {
        self.slots.server_lost(server);
        self.grants.answered(server);
        let mut lost = 0;
        let mut homeless = Vec::new();
        self.pages.for_all(|number, entry| {
            if entry.slot.is_some_and(|s| s.server() == server) {
                entry.slot = None;
                match entry.state {
                    State::Remote => {
                        entry.state = State::Lost;
                        lost += 1;
                    }
                    State::Pooled(frame) => homeless.push((frame, number)),
                    _ => {}
                }
            }
        });
        for (frame, page) in homeless {
            if self.pool.kind(frame) == Kind::Standby {
                self.unplace(frame, page);
            }
        }
        self.lost_some(lost);
        self.count_remote(-lost);
        let name = self.net.name(server);
        let text = if lost > 0 {
            format!(
                "server {name} is lost ({reason}), and {lost} pages of the program with it; \
                 touching one of them ends the program by SIGBUS"
            )
        } else {
            format!("server {name} is lost ({reason}); nothing of the program was on it only")
        };
        self.say(if lost > 0 { ERROR } else { WARN }, &text);
    }
}
