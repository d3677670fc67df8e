//! Handles what servers answer, and the loss of a server.

use crate::ServerId;
use crate::engine::event_loop::Engine;
use crate::engine::memory::report::{ERROR, INFO, WARN, program};
use crate::engine::read_in::{arrive, late};
use crate::engine::servers::repair;
use crate::engine::servers::requests::Op;
use crate::engine::settings::PAGED;
use crate::engine::writeback::{self, room};
use crate::net::{Completion, Reason, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::{now_ns, thread};
use alloc::format;
use alloc::vec::Vec;
use core::fmt::Display;
use core::sync::atomic::Ordering::{self, Relaxed};
use tmem_wire::PAGE_SIZE;

impl Engine {
    /// Handles one completion from the network client.
    pub(crate) fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Read { token, result } => {
                let op = self.memory.backing.requests.take(token);
                let (memory, reclaim) = (&mut self.memory, &mut self.reclaim);
                let ahead = &mut self.readahead;
                match op {
                    Some(Op::Read(read)) => {
                        let took = arrive::fetched(memory, reclaim, ahead, &read, result);
                        if let Some(took) = took {
                            self.schedule.pace.answered(took);
                            self.reclaim.pacing = self.schedule.pace.pacing();
                        }
                    }
                    Some(Op::Second(second)) => {
                        late::answered(memory, reclaim, ahead, &second, result);
                    }
                    Some(Op::Repair(step)) => repair::read(memory, &step, result),
                    Some(Op::Write(_) | Op::Probe(_)) | None => {}
                }
            }
            Completion::Written { token, server } => {
                writeback::took(&mut self.memory, server);
                self.write_ended(token, server, Ok(()));
            }
            Completion::WriteFailed {
                token,
                server,
                error,
            } => self.write_ended(token, server, Err(error)),
            Completion::Granted { server, slabs } => {
                self.memory.backing.grants.answered(server);
                self.memory.backing.slots.add_slabs(server, &slabs);
                self.memory.backing.grants.has_room();
            }
            Completion::GrantRefused { server, error } => {
                let now = crate::sys::now_ns();
                self.memory.backing.grants.refused(
                    server,
                    error,
                    &mut self.memory.backing.slots,
                    now,
                );
                room::see_whether_full(&mut self.memory);
            }
            Completion::Shared { server, result } => self.fork.shared(&self.memory, server, result),
            Completion::Up {
                server,
                slab_pages,
                free_pages,
                ..
            } => self.up(server, slab_pages, free_pages),
            Completion::Drains { server } => self.drains(server),
            Completion::WantsBack { .. } if self.memory.is_forking() => {}
            Completion::WantsBack { .. } => room::give_slabs_back(&mut self.memory, 0),
            Completion::Silent {
                server,
                ms,
                until_ms,
            } => {
                let name = self.memory.backing.net.name(server);
                let text = format!(
                    "server {name} takes connections and has not answered for {} s; it may be \
                     busy, and is waited for, for up to {} s",
                    ms / 1000,
                    until_ms / 1000
                );
                self.memory.report.say(WARN, &text);
            }
            Completion::NoPlace {
                server,
                reason,
                until_ms,
            } => {
                let name = self.memory.backing.net.name(server);
                let text = format!(
                    "server {name}: {reason}; {} waits for a place, for up to {} s",
                    program(),
                    until_ms / 1000
                );
                self.memory.report.say(WARN, &text);
            }
            Completion::Away { server, ms, reason } => {
                let name = self.memory.backing.net.name(server);
                let (seconds, who) = (ms / 1000, program());
                let text = format!(
                    "server {name} is away for {seconds} s ({reason}); threads of {who} that touch \
                     pages that only it has wait for it"
                );
                self.memory.report.say(WARN, &text);
            }
            Completion::Lost { server, reason } => self.lost(server, &reason),
            Completion::Refused { server, reason } => self.refused(server, &reason),
        }
    }

    /// A server has taken what was sent to it, or not.
    fn write_ended(&mut self, token: u64, server: ServerId, result: Result<(), RequestError>) {
        let m = &mut self.memory;
        match m.backing.requests.answered(token, server, result) {
            Some(Op::Write(write)) => writeback::ended(m, &write),
            Some(Op::Probe(probe)) => m.backing.probed(&probe),
            Some(Op::Repair(step)) => repair::written(m, &step, result),
            Some(Op::Read(_) | Op::Second(_)) | None => {}
        }
    }

    fn up(&mut self, server: ServerId, slab_pages: u32, free_pages: u64) {
        self.memory.backing.rediscovery.is_there(server);
        if !self.memory.backing.was_up {
            self.pages_from_now_on();
            // Unusable servers are reported only now, when it is known that others can be
            // used.
            core::mem::take(&mut self.memory.backing.refused)
                .iter()
                .for_each(|text| self.done_without(text));
        }
        let name = self.memory.backing.net.called(server);
        match self.memory.backing.slots.set_geometry(server, slab_pages) {
            Ok(()) => {
                self.memory.backing.slots.set_grantable(server, free_pages);
                self.memory.backing.errors.forget(server);
                self.memory.backing.slots.set_resting(server, false);
                self.memory.backing.grants.has_room();
                let mib = (free_pages * PAGE_SIZE as u64) >> 20;
                self.memory
                    .report
                    .say(INFO, &format!("{name} has {mib} MiB free"));
            }
            Err(error) => self
                .memory
                .report
                .say(WARN, &format!("{name} is not used: {error}")),
        }
    }

    /// A server means to end.
    fn drains(&mut self, server: ServerId) {
        self.memory.backing.slots.drain(server);
        let name = self.memory.backing.net.name(server);
        let text = format!("server {name} means to end: what is there moves to the others");
        self.memory.report.say(INFO, &text);
    }

    /// Starts paging: pages may leave the program from here on. The watchdog starts here
    /// too, so an engine that ends earlier leaves none behind.
    pub(crate) fn pages_from_now_on(&mut self) {
        self.memory.backing.was_up = true;
        self.settings.report.figures.paging.fetch_add(1, Relaxed);
        if self.program_end.guard().is_none() {
            let guard = crate::engine::watchdog::start(
                self.memory.mover.kernel(),
                self.memory.report.stats,
                self.settings.report.shared,
            );
            self.program_end.set_guard(guard.ok());
        }
        self.settings.start.outcome.store(PAGED, Ordering::Release);
        thread::wake_sleeper(self.settings.start.outcome);
    }

    fn refused(&mut self, server: ServerId, reason: &Reason) {
        let name = self.memory.backing.net.name(server);
        let text = format!("server {name}: {reason}");
        let is_news = self.memory.backing.rediscovery.is_away(server);
        self.memory.backing.slots.is_absent(server);
        if self.memory.backing.was_up {
            if is_news {
                self.done_without(&text);
            }
        } else {
            self.memory.backing.refused.push(text);
        }
    }

    fn done_without(&self, text: &str) {
        let level = if self.settings.servers.checked {
            INFO
        } else {
            WARN
        };
        self.memory
            .report
            .say(level, &format!("{text}; going on with the others"));
    }

    /// Handles the loss of a server and of the pages on it.
    fn lost(&mut self, server: ServerId, reason: &impl Display) {
        let slots = &mut self.memory.backing.slots;
        slots.server_lost(server);
        let rediscovery = &mut self.memory.backing.rediscovery;
        rediscovery.is_away(server);
        rediscovery.hurry(now_ns());
        self.memory.backing.grants.answered(server);
        let mut lost = 0;
        let mut homeless = Vec::new();
        let copies = &self.reclaim.cache;
        let mut rescued = Vec::new();
        let backing = &mut self.memory.backing;
        self.memory.pages.for_all(|number, entry| {
            if entry.slot.is_some_and(|s| !backing.slots.is_kept(s)) {
                backing.free_slot(entry.slot.take());
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
        self.memory.backing.slots.settle();
        for (frame, page) in homeless {
            if self.memory.pool.kind(frame) == Kind::Standby {
                self.memory.pool.queue_writeback(frame, page);
            }
        }
        self.reclaim.cache.rescue(rescued);
        self.memory.lost_some(lost);
        self.memory.count_remote(-lost);
        let (_, poor) = self.memory.backing.slots.degraded();
        let mib = (poor * PAGE_SIZE as u64) >> 20;
        let name = self.memory.backing.net.name(server);
        let who = program();
        let text = match (lost, poor) {
            (0, 0) => format!("server {name} is lost ({reason}); nothing of {who} was on it only"),
            (0, _) => format!(
                "server {name} is lost ({reason}); nothing of {who} was on it only, and {mib} MiB \
                 have fewer copies until further ones are made"
            ),
            (lost, _) => format!(
                "server {name} is lost ({reason}), and {lost} pages of {who} with it; touching \
                 one of them ends it by SIGBUS"
            ),
        };
        self.memory
            .report
            .say(if lost > 0 { ERROR } else { WARN }, &text);
    }
}
