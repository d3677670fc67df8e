//! The doorbell: pages that threads of the program touch to call the engine.
//!
//! There are two pages for each kind of call: to quiesce for a fork, to resume after it, to
//! report resident pages ([`LOOK`]), to relinquish memory ([`RELINQUISH`]), to read the
//! advice log ([`ASKS`]), to take over credentials ([`CREDENTIALS`]), to end what would
//! outlive the program ([`LEAVE`]), and to populate a page ([`POPULATE`]). Threads use the
//! two pages in turn. When the engine answers one, it removes the other. It cannot remove a
//! page when it answers it: the thread might touch the page only after that, and the kernel
//! would then put a page there for good.

use crate::engine::kernel::Kernel;
use crate::engine::threads::THREADS;
use crate::engine::threads::bell::QUIESCE;
use crate::sys::mem::Region;
use crate::sys::thread;
use crate::sys::uffd::REGISTER_MISSING;
use core::sync::atomic::Ordering::SeqCst;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

const BELLS: usize = 16;

/// Pause before a page is touched again, in microseconds.
const NAP_US: u64 = 50;

/// Tells whether there is an engine that can be called.
pub(crate) fn has_engine() -> bool {
    THREADS.doorbell.load(SeqCst) != 0
}

/// Notes that there is no engine any more.
pub(crate) fn no_engine() {
    THREADS.doorbell.store(0, SeqCst);
}

/// Touches a page of the doorbell until the call is heard. `turn` counts the calls.
pub(crate) fn ring(what: usize, turn: u32, heard: impl Fn() -> bool) {
    let page = what * 2 + turn as usize % 2;
    loop {
        let bell = THREADS.doorbell.load(SeqCst);
        if bell == 0 || heard() {
            return;
        }
        // SAFETY: the engine's own memory, which is never unmapped.
        unsafe { core::ptr::read_volatile((bell + page * PAGE_SIZE) as *const u8) };
        if heard() {
            return;
        }
        // The page was not removed yet.
        thread::rest_us(NAP_US);
    }
}

/// The engine's side of the doorbell.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    region: Option<Region>,
    /// Pages that a thread waits for.
    rung: [bool; BELLS],
    /// The thread that has asked to quiesce.
    forks: u32,
}

impl Doorbell {
    /// Maps the doorbell, so that threads can ring from now on.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn hang(&mut self, kernel: &dyn Kernel) -> Result<(), Errno> {
        let region = Region::new(BELLS * PAGE_SIZE)?;
        kernel.register(region.start, region.len, REGISTER_MISSING)?;
        self.region = Some(region);
        THREADS.doorbell.store(region.start, SeqCst);
        Ok(())
    }

    /// Returns its memory, which is never paged.
    pub(crate) fn region(&self) -> Option<Region> {
        self.region
    }

    /// Returns the thread that has asked to quiesce.
    pub(crate) fn forks(&self) -> u32 {
        self.forks
    }

    /// Takes a fault at `addr` of thread `tid` if it is a ring. Returns whether it is.
    pub(crate) fn is_ring(&mut self, addr: usize, tid: u32) -> bool {
        let Some(region) = self.region.filter(|r| r.contains(addr)) else {
            return false;
        };
        let which = (addr - region.start) / PAGE_SIZE;
        self.rung[which] = true;
        if which / 2 == QUIESCE {
            self.forks = tid;
        }
        true
    }

    /// Lets threads go on whose calls were heard. While the engine is quiescent that
    /// includes calls to quiesce, otherwise calls to resume. Returns whether an event has
    /// to be read before some thread can go on.
    pub(crate) fn answer(&mut self, kernel: &dyn Kernel, is_quiescent: bool) -> bool {
        let Some(region) = self.region else {
            return false;
        };
        let ready = [
            is_quiescent,
            !is_quiescent,
            true,
            true,
            true,
            true,
            true,
            true,
        ];
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
            // The removal of a registered page would be reported to this thread, which
            // would wait for itself.
            let _ = kernel.unregister(other, PAGE_SIZE);
            let _ = kernel.discard(&region, other, PAGE_SIZE);
            let _ = kernel.register(other, PAGE_SIZE, REGISTER_MISSING);
        }
        again
    }
}
