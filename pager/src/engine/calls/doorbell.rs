//! Pages that threads of the program touch to ask the engine for something.
//!
//! To touch one of the first two asks the engine to hold for a fork, of the next two to
//! go on, of others to say what there is ([`LOOK`]), to relinquish memory
//! ([`RELINQUISH`]), to read what was asked of it ([`ASKS`]), to become what the
//! program is ([`CREDENTIALS`]), to end what would outlive the program ([`LEAVE`]) and to
//! have a page in memory ([`POPULATE`]).
//! They are rung by turns: the one that was rung before is taken away when the
//! other is answered. Were it taken away when it is answered itself, then before
//! its thread has gone on, which would have the kernel put a page there for good.

use crate::engine::kernel::Kernel;
use crate::engine::threads::THREADS;
use crate::engine::threads::bell::HOLD;
use crate::sys::mem::Region;
use crate::sys::thread;
use crate::sys::uffd::REGISTER_MISSING;
use core::sync::atomic::Ordering::SeqCst;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

const BELLS: usize = 16;

/// Pause before a page is touched again, in microseconds.
const NAP_US: u64 = 50;

/// Whether there is an engine that can be asked.
pub(crate) fn has_engine() -> bool {
    THREADS.doorbell.load(SeqCst) != 0
}

/// There is no engine any more.
pub(crate) fn no_engine() {
    THREADS.doorbell.store(0, SeqCst);
}

/// Touches a page of the doorbell until it is heard; `turn` counts how often.
pub(crate) fn ring(what: usize, turn: u32, heard: impl Fn() -> bool) {
    let page = what * 2 + turn as usize % 2;
    loop {
        let bell = THREADS.doorbell.load(SeqCst);
        if bell == 0 || heard() {
            return;
        }
        // SAFETY: memory of the engine's own that is mapped for good.
        unsafe { core::ptr::read_volatile((bell + page * PAGE_SIZE) as *const u8) };
        if heard() {
            return;
        }
        // It was not quite ready to be rung.
        thread::rest_us(NAP_US);
    }
}

/// The engine's side of the doorbell.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    region: Option<Region>,
    /// A thread waits for these pages.
    rung: [bool; BELLS],
    /// The thread that has asked to hold.
    forks: u32,
}

impl Doorbell {
    /// Lets threads ring from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn hang(&mut self, kernel: &dyn Kernel) -> Result<(), Errno> {
        let region = Region::new(BELLS * PAGE_SIZE)?;
        kernel.register(region.start, region.len, REGISTER_MISSING)?;
        self.region = Some(region);
        THREADS.doorbell.store(region.start, SeqCst);
        Ok(())
    }

    /// Its memory, which is never paged.
    pub(crate) fn region(&self) -> Option<Region> {
        self.region
    }

    /// The thread that has asked to hold.
    pub(crate) fn forks(&self) -> u32 {
        self.forks
    }

    /// Notes a fault at `addr` of thread `tid` that rings; whether it does.
    pub(crate) fn is_ring(&mut self, addr: usize, tid: u32) -> bool {
        let Some(region) = self.region.filter(|r| r.contains(addr)) else {
            return false;
        };
        let which = (addr - region.start) / PAGE_SIZE;
        self.rung[which] = true;
        if which / 2 == HOLD {
            self.forks = tid;
        }
        true
    }

    /// Lets those go on that have rung and been heard: while the engine holds for a fork
    /// those that asked for that, and otherwise those that asked to go on. Whether an
    /// event has to be read before some can.
    pub(crate) fn answer(&mut self, kernel: &dyn Kernel, holding: bool) -> bool {
        let Some(region) = self.region else {
            return false;
        };
        let ready = [holding, !holding, true, true, true, true, true, true];
        let mut again = false;
        for which in 0..BELLS {
            if !self.rung[which] || !ready[which / 2] {
                continue;
            }
            let at = region.start + which * PAGE_SIZE;
            let shown = kernel.zero_pages(at, PAGE_SIZE, true);
            if shown.stopped == Some(Errno::AGAIN) {
                // An event has to be read first.
                again = true;
                continue;
            }
            kernel.wake(at, PAGE_SIZE);
            self.rung[which] = false;
            let other = region.start + (which ^ 1) * PAGE_SIZE;
            // Else it would be reported to this thread, which would wait for itself.
            let _ = kernel.unregister(other, PAGE_SIZE);
            let _ = kernel.discard(&region, other, PAGE_SIZE);
            let _ = kernel.register(other, PAGE_SIZE, REGISTER_MISSING);
        }
        again
    }
}
