//! What servers answer, and what becomes of pages when one is lost.

use crate::engine::servers::requests::Op;
use crate::engine::{ERROR, Engine, INFO, LOST, PAGED, WARN};
use crate::net::{Completion, Reason};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::{proc, thread};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::sync::atomic::Ordering::{self, Relaxed};
use tmem_wire::PAGE_SIZE;

impl Engine {
    /// Takes in what became of something.
    pub(crate) fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Read { token, result } => {
                if let Some(Op::Read(read)) = self.ops.take(token) {
                    self.fetched(&read, result);
                }
            }
            Completion::Written { token } => match self.ops.take(token) {
                Some(Op::Write(write)) => {
                    self.slots.worked(write.slot);
                    self.took(write.slot.server());
                    self.written(&write.frames);
                }
                Some(Op::Probe(slot, slab)) => self.probed(slot, slab, true),
                Some(Op::Read(_)) | None => {}
            },
            Completion::WriteFailed { token, error, .. } => match self.ops.take(token) {
                Some(Op::Write(write)) => self.not_written(&write, error),
                Some(Op::Probe(slot, slab)) => self.probed(slot, slab, false),
                Some(Op::Read(_)) | None => {}
            },
            Completion::Granted { server, slabs } => {
                self.grants.answered(server);
                self.slots.add_slabs(server, &slabs);
                self.grants.full = false;
            }
            Completion::GrantRefused { server, error } => {
                let now = crate::sys::now_ns();
                self.grants.refused(server, error, &mut self.slots, now);
                self.see_whether_full();
            }
            Completion::Shared { server, result } => self.shared(server, result),
            Completion::Up {
                server,
                slab_pages,
                free_pages,
                ..
            } => self.up(server, slab_pages, free_pages),
            Completion::Silent {
                server,
                ms,
                until_ms,
            } => {
                let name = self.net.name(server);
                let text = format!(
                    "server {name} takes connections and has not answered for {} s; it may be \
                     busy, and is waited for, for up to {} s",
                    ms / 1000,
                    until_ms / 1000
                );
                self.say(WARN, &text);
            }
            Completion::Lost { server, reason } => self.lost(server, &reason),
            Completion::Refused { server, reason } => self.refused(server, &reason),
        }
    }

    fn up(&mut self, server: u16, slab_pages: u32, free_pages: u64) {
        self.seek.is_there(server);
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
                self.troubles.forget(server);
                self.slots.set_resting(server, false);
                self.grants.full = false;
                let mib = (free_pages * PAGE_SIZE as u64) >> 20;
                self.say(INFO, &format!("server {name} has {mib} MiB free"));
            }
            Err(error) => self.say(WARN, &format!("server {name} is not used: {error}")),
        }
    }

    /// From here on pages may leave. An engine that ends without having come
    /// here leaves no guard of a thread that is gone.
    pub(crate) fn pages_from_now_on(&mut self) {
        self.was_up = true;
        self.settings.figures.paging.fetch_add(1, Relaxed);
        self.guard =
            crate::engine::watchdog::start(&*self.kernel, self.figures, self.settings.shared).ok();
        self.settings.outcome.store(PAGED, Ordering::Release);
        thread::wake_sleeper(self.settings.outcome);
    }

    fn refused(&mut self, server: u16, reason: &Reason) {
        let name = self.net.name(server);
        let text = format!("server {name}: {reason}");
        let is_news = self.seek.is_away(server);
        if self.was_up {
            if is_news {
                self.done_without(&text);
            }
        } else {
            self.refused.push(text);
        }
    }

    /// So many pages cannot be had back.
    pub(crate) fn lost_some(&self, n: i64) {
        if n > 0 {
            LOST.store(true, Relaxed);
            self.figures.lost_pages.fetch_add(n as u64, Relaxed);
        }
    }

    /// The program and its process, for messages: those of several processes may come
    /// together.
    pub(crate) fn program(&self) -> String {
        let pid = rustix::process::getpid().as_raw_nonzero();
        match proc::command() {
            Some(name) => format!("{name} (process {pid})"),
            None => format!("process {pid}"),
        }
    }

    fn done_without(&self, text: &str) {
        let level = if self.settings.checked { INFO } else { WARN };
        self.say(level, &format!("{text}; going on with the others"));
    }

    /// A server is gone, and what it held.
    fn lost(&mut self, server: u16, reason: &impl Display) {
        self.slots.server_lost(server);
        self.seek.is_away(server);
        self.grants.answered(server);
        let mut lost = 0;
        let mut homeless = Vec::new();
        let copies = &self.copies;
        let mut rescued = Vec::new();
        self.pages.for_all(|number, entry| {
            if entry.slot.is_some_and(|s| s.server() == server) {
                entry.slot = None;
                match entry.state {
                    State::Remote if copies.has(number, entry) => rescued.push(number),
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
        self.copies.rescue(rescued);
        self.lost_some(lost);
        self.count_remote(-lost);
        let name = self.net.name(server);
        let who = self.program();
        let text = if lost > 0 {
            format!(
                "server {name} is lost ({reason}), and {lost} pages of {who} with it; touching \
                 one of them ends it by SIGBUS"
            )
        } else {
            format!("server {name} is lost ({reason}); nothing of {who} was on it only")
        };
        self.say(if lost > 0 { ERROR } else { WARN }, &text);
    }
}
