//! Follows what the program does to its address space. The details of `mremap` are in
//! `remap`.
//!
//! The kernel reports a change, and holds the thread that makes it until the event was
//! read. `munmap` and `mremap` are complete by then, so the engine is in step once it has
//! read the event. `madvise(MADV_DONTNEED)` acts only after the event was read, in a thread
//! that the engine cannot watch. Pages that were resident may still hold what the program
//! gave up. If such a page were evicted, it would escape the zap, and the program would
//! later find old data where it expects zeros. These pages are *pending discards*: they are
//! not evicted before the kernel's page map shows that they are gone.

use crate::engine::exclusion::ChangesBlocked;
use crate::engine::fork::current as manifest_log;
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::engine::memory::faults::Fault;
use crate::sys::now_ns;
use crate::sys::uffd::{Msg, RawMsg};
use core::ops::Range;
use rustix::io::Errno;

impl Memory {
    /// Follows one event.
    fn event(&mut self, event: Msg) {
        self.follow_advice();
        manifest_log::strike_given_up(event);
        if let Msg::Remove { start, end } = event
            && self.space.own_zap.is_own(&(start..end))
        {
            return;
        }
        self.space.note_change();
        match event {
            Msg::Unmap { start, end } => {
                self.space.doubt_remaps(&(start..end));
                self.forget(&(page(start)..page(end)));
                self.no_longer_stays(&(page(start)..page(end)));
                self.space.remove(&(start..end));
                // Threads that wait there retry, and find what is mapped there now.
                self.mover.kernel().wake(start, end - start);
            }
            Msg::Remove { start, end } => {
                self.discard(start..end);
            }
            Msg::Remap { from, to, len } => self.depart(from..from + len, to),
            Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
        }
    }

    /// Reads messages until no event is outstanding.
    pub(crate) fn catch_up(&mut self) {
        // Several threads that change mappings could otherwise keep this loop busy for
        // ever.
        let _still = ChangesBlocked::begin();
        loop {
            self.read_messages();
            if !self.mover.is_changing() {
                return;
            }
            self.mover.kernel().pause();
        }
    }

    /// Reads all messages that the kernel has.
    pub(crate) fn read_messages(&mut self) {
        while self.read_some(64) == 64 {}
    }

    /// Reads up to `most` messages. Follows events at once, in order, and queues faults
    /// behind them. Returns the number of messages.
    pub(crate) fn read_some(&mut self, most: usize) -> usize {
        // A thread goes on as soon as its event is read, but must not begin another change
        // before this one was followed.
        let _still = ChangesBlocked::begin();
        manifest_log::batch_begins();
        let n = self.read_batch(most);
        self.follow_remaps();
        manifest_log::batch_ends();
        n
    }

    fn read_batch(&mut self, most: usize) -> usize {
        let mut raw = [RawMsg::default(); 64];
        loop {
            let n = match self.mover.kernel().read(&mut raw[..most]) {
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(_) => 0,
            };
            let now = now_ns();
            for msg in &raw[..n] {
                match msg.decode() {
                    Msg::Fault { addr, tid, .. } if self.doorbell.is_ring(addr, tid) => {}
                    Msg::Fault {
                        addr,
                        write,
                        protected,
                        tid,
                    } => self.faults.push(Fault {
                        page: page(addr),
                        at: addr as u64,
                        write,
                        protected,
                        tid,
                        read_ns: now,
                        ahead: None,
                        fill: 0,
                    }),
                    event => self.event(event),
                }
            }
            return n;
        }
    }

    /// Follows pending remaps, once no event is outstanding.
    fn follow_remaps(&mut self) {
        if !self.space.has_remaps() {
            return;
        }
        // The thread that moved memory goes on before its remap is followed. It cannot move
        // the same memory again meanwhile, since changes are blocked while messages are
        // read (see `read_some`).
        while self.mover.is_changing() {
            if self.read_batch(64) == 0 {
                self.mover.kernel().pause();
            }
        }
        for arrival in self.space.take_remaps() {
            self.arrive(arrival);
        }
    }

    /// Tells whether a range now lies in one registered mapping. All changes before this
    /// have then been followed, and later ones will be reported.
    pub(crate) fn is_registered(&mut self, range: &Range<usize>) -> bool {
        loop {
            match self.mover.is_registered(range) {
                Ok(held) => return held,
                Err(_) => self.catch_up(),
            }
        }
    }
}
