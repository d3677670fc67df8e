//! Serves page faults.

use crate::engine::cpu_placement::CpuPlacement;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::faults::Fault;
use crate::engine::memory::outcome::{Again, Stop};
use crate::engine::memory::report::ERROR;
use crate::engine::read_in::{Readahead, late, read};
use crate::engine::reclaim::Reclaim;
use crate::engine::zero_fill::ZeroFill;
use crate::frame_number::FrameNumber;
use crate::pages::{Page, State};
use crate::sys::{self, mem};
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The owners that serving a fault needs.
pub(crate) struct Service<'a> {
    pub(crate) m: &'a mut Memory,
    pub(crate) reclaim: &'a mut Reclaim,
    pub(crate) readahead: &'a mut Readahead,
    pub(crate) zero_fill: &'a mut ZeroFill,
    pub(crate) pace: &'a mut CpuPlacement,
}

impl Service<'_> {
    /// Serves a fault as far as possible now. A fault that needs a server is finished when
    /// the server has answered.
    pub(crate) fn serve(&mut self, fault: &mut Fault) -> Result<(), Again> {
        let entry = self.m.pages.get(fault.page);
        if fault.ahead.is_none() && entry.state != State::Local {
            let there = entry.ahead || matches!(entry.state, State::ReadIn(_));
            fault.ahead = Some(self.readahead.prefetcher.fault(fault.tid, fault.at, there));
        }
        match entry.state {
            State::Local if fault.protected => {
                self.zero_fill.unprotect(self.m, self.reclaim, fault)?;
            }
            State::Local => self.zero_fill.zero_fill(self.m, self.reclaim, fault)?,
            State::Pooled(frame) => self.hit(fault, frame, &entry)?,
            State::Remote => self.demand(fault, &entry)?,
            State::ReadIn(_) => {
                if entry.ahead {
                    self.m.report.stats.prefetch_hits.fetch_add(1, Relaxed);
                }
                if !entry.has_waiters {
                    self.m.faults.join();
                }
                self.m.pages.update(fault.page, |p| {
                    p.has_waiters = true;
                    p.ahead = false;
                });
                late::watch(self.m, fault.page, fault.read_ns);
                self.readahead.fetch_ahead(self.m, self.reclaim, fault);
                self.readahead
                    .follow_pointers(self.m, self.reclaim, fault, false);
            }
            State::Lost => self.poison(fault)?,
        }
        self.m.report.stats.faults.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Serves a page that is in a frame: on standby, read ahead, or waiting for its
    /// writeback.
    fn hit(&mut self, fault: &Fault, frame: FrameNumber, entry: &Page) -> Result<(), Again> {
        let figure = if entry.ahead {
            &self.m.report.stats.prefetch_hits
        } else {
            &self.m.report.stats.standby_refaults
        };
        // A page that was read ahead is used for the first time.
        let hot = !entry.ahead || entry.referenced;
        self.m.pages.update(fault.page, |p| p.referenced = hot);
        self.give(fault, frame, false)?;
        figure.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Serves a page that is on a server, or in the compressed cache only.
    fn demand(&mut self, fault: &Fault, entry: &Page) -> Result<(), Again> {
        let Some((frame, _)) = self.reclaim.take_frames(self.m, 1, true) else {
            return Err(Again::Memory);
        };
        let hot = self.reclaim.refault.is_hot(entry.epoch);
        let age = self.reclaim.refault.age(entry.epoch);
        self.reclaim.refaults.refault(age);
        self.m.pages.update(fault.page, |p| p.referenced = hot);
        if self.reclaim.restore_wanted(self.m, fault, entry, frame) {
            // SAFETY: no request writes to a frame on standby.
            let bytes = unsafe { mem::page(self.m.pool.addr(frame)) };
            self.readahead.note_pointer_page(self.m, fault.page, bytes);
            return self.give(fault, frame, true);
        }
        let Some(slot) = entry.slot else {
            // The server was lost, and so is the copy in the compressed cache.
            read::lose(self.m, self.reclaim, fault.page, frame);
            return self.poison(fault);
        };
        self.m.pages.update(fault.page, |p| p.has_waiters = true);
        let prompt = self.pace.asks(fault.read_ns);
        self.m.backing.net.set_prompt(prompt);
        read::read(
            self.m,
            &[(fault.page, slot, frame)],
            Some(fault.read_ns),
            None,
        );
        self.m.backing.net.set_prompt(false);
        late::watch(self.m, fault.page, fault.read_ns);
        self.readahead.fetch_ahead(self.m, self.reclaim, fault);
        self.readahead.fetch_behind(self.m, self.reclaim, fault);
        self.readahead
            .follow_pointers(self.m, self.reclaim, fault, true);
        Ok(())
    }

    /// Installs the page for the thread that faulted. `missed` says that the page was not
    /// in local memory.
    fn give(&mut self, fault: &Fault, frame: FrameNumber, missed: bool) -> Result<(), Again> {
        match self.m.install(fault.page, frame, 1).1 {
            Some(Stop::Again) => return Err(Again::Event),
            Some(stop) => self.m.not_installed(fault.page, stop),
            None => {}
        }
        self.m.report.served(fault.read_ns);
        self.readahead.fetch_ahead(self.m, self.reclaim, fault);
        self.readahead
            .follow_pointers(self.m, self.reclaim, fault, missed);
        Ok(())
    }

    /// Poisons a lost page: a thread that touches it gets SIGBUS.
    fn poison(&mut self, fault: &Fault) -> Result<(), Again> {
        match self.m.mover.kernel().poison(addr(fault.page), PAGE_SIZE) {
            Ok(()) => self.m.report.served(fault.read_ns),
            Err(Errno::AGAIN) => return Err(Again::Event),
            Err(Errno::EXIST) => self.m.mover.kernel().wake(addr(fault.page), PAGE_SIZE),
            Err(_) => {
                self.m.report.say(
                    ERROR,
                    "the program touched memory that is lost with its server; it is ended",
                );
                sys::kill::kill_process();
            }
        }
        Ok(())
    }
}
