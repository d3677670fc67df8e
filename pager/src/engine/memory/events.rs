//! Follows what the program does to its address space; `mremap`: see `remap`.
//!
//! The kernel reports changes, and holds the thread that makes one until the
//! report has been read. `munmap` and `mremap` have been done by then, so that
//! reading the report is all it takes to be in step. `madvise(MADV_DONTNEED)`
//! is done only after, by a thread that nobody can watch: pages that were
//! resident may still be there, with what the program gave up. To evict such a
//! page would save it from its zap, and the program would find old data where
//! it expects zeros. These pages are *given up*: not evicted before the kernel's
//! page map has shown that they are gone.

use crate::engine::exclusion::ChangesBlocked;
use crate::engine::fork::current as manifest_log;
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::engine::memory::faults::Fault;
use crate::sys::now_ns;
use crate::sys::uffd::{Msg, RawMsg};
use core::ops::Range;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

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
                self.forget(page(start), page(end));
                self.no_longer_stays(&(page(start)..page(end)));
                self.space.remove(&(start..end));
                // Who waits there finds out what is there now.
                self.mover.kernel().wake(start, end - start);
            }
            Msg::Remove { start, end } => {
                self.discard(start..end);
            }
            Msg::Remap { from, to, len } => self.depart(from..from + len, to),
            Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
        }
    }

    /// Reads until no report is outstanding.
    pub(crate) fn catch_up(&mut self) {
        // Else several threads at it could go on like that for ever.
        let _still = ChangesBlocked::begin();
        loop {
            self.read_messages();
            if !self.mover.is_changing() {
                return;
            }
            self.mover.kernel().pause();
        }
    }

    /// Reads all that the kernel has to say.
    pub(crate) fn read_messages(&mut self) {
        while self.read_some(64) == 64 {}
    }

    /// Reads up to `most` messages: events are followed at once, in their
    /// order; faults are queued behind them. How many there were.
    pub(crate) fn read_some(&mut self, most: usize) -> usize {
        // A thread whose reports are read here goes on at once, but is not to
        // change anything more before they are followed.
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
                        page: (addr / PAGE_SIZE) as u64,
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

    /// Lets arrive what was moved, once no report is outstanding.
    fn follow_remaps(&mut self) {
        if !self.space.has_remaps() {
            return;
        }
        // Who moves memory has gone on by the time its arrival is certain. It
        // is not to move the same memory once more before: no thread begins a
        // change while reports are read, see `read_some`.
        while self.mover.is_changing() {
            if self.read_batch(64) == 0 {
                self.mover.kernel().pause();
            }
        }
        for arrival in self.space.take_remaps() {
            self.arrive(arrival);
        }
    }

    /// Whether a range is, or lies in, one registered mapping by now. All reports
    /// of changes before have been followed then, and of later ones there will be
    /// some.
    pub(crate) fn is_registered(&mut self, range: &Range<usize>) -> bool {
        loop {
            match self.mover.is_registered(range) {
                Ok(held) => return held,
                Err(_) => self.catch_up(),
            }
        }
    }
}
