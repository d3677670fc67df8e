//! Keeps apart what must not happen at once on kernels that cannot move pages.
//!
//! With direct input a device writes into memory of the program. A page that is
//! copied out and zapped meanwhile would lose what the device wrote. A move is
//! refused by the kernel for such a page; a zap is not. So a thread that is
//! about to read directly says so, and nothing is zapped until it is done.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Whether pages are zapped at all.
static COPYING: AtomicBool = AtomicBool::new(false);
/// Whether a zap is under way.
static ZAPPING: AtomicBool = AtomicBool::new(false);
/// Whether memory has to be zapped before more is read.
static HOLD: AtomicBool = AtomicBool::new(false);
/// Threads that read directly.
static READING: AtomicU32 = AtomicU32::new(0);

/// Pages are zapped from now on.
pub(super) fn copies() {
    COPYING.store(true, Relaxed);
}

/// In a process that was just forked: other threads, and what they were doing,
/// are not there.
pub(super) fn begin_anew() {
    ZAPPING.store(false, SeqCst);
    HOLD.store(false, SeqCst);
    READING.store(0, SeqCst);
}

/// Whether direct input needs a [`Direct`].
pub fn is_needed() -> bool {
    COPYING.load(Relaxed)
}

/// Has threads wait before they read directly, because memory is short.
pub(super) fn hold(on: bool) {
    HOLD.store(on, Relaxed);
}

/// Whether some thread reads directly now.
pub(super) fn is_under_way() -> bool {
    READING.load(SeqCst) > 0
}

/// How often, and how long, a thread that wants to read waits.
const PATIENCE: u32 = 10_000;
const NAP_US: u64 = 50;

/// As long as this lives, nothing is zapped. It is to be short: meanwhile the
/// budget is not kept.
#[derive(Debug)]
pub struct Direct(());

impl Direct {
    /// Waits for a zap that is under way, and for a moment where memory is
    /// short.
    pub fn begin() -> Direct {
        for _ in 0..PATIENCE {
            if !HOLD.load(Relaxed) {
                break;
            }
            crate::sys::thread::sleep_us(NAP_US);
        }
        loop {
            READING.fetch_add(1, SeqCst);
            if !ZAPPING.load(SeqCst) {
                return Direct(());
            }
            READING.fetch_sub(1, SeqCst);
            crate::sys::thread::sleep_us(NAP_US);
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        READING.fetch_sub(1, SeqCst);
    }
}

/// As long as this lives, no thread begins to read directly.
#[derive(Debug)]
pub(super) struct Zapping(());

impl Zapping {
    /// None while some thread reads directly.
    pub(super) fn begin() -> Option<Zapping> {
        ZAPPING.store(true, SeqCst);
        // Dropped at once when it is not given out.
        let zapping = Zapping(());
        (!is_under_way()).then_some(zapping)
    }
}

impl Drop for Zapping {
    fn drop(&mut self) {
        ZAPPING.store(false, SeqCst);
    }
}
