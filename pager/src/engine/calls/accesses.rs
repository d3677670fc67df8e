//! Accesses of the program to its own memory through `/proc/self/mem` (see `mem_file`).

use crate::engine::threads::THREADS;
use crate::sys::{departure, mem_call, thread};
use core::ops::Range;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use tmem_wire::PAGE_SIZE;

/// Pause between two attempts to get an entry, in microseconds.
const NAP_US: u64 = 50;

/// A call that reads or writes one page of the program's memory through a file descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// A file descriptor of the program's own memory.
    pub fd: i32,
    /// Whether the call writes.
    pub writes: bool,
    /// Source or destination of the bytes: memory that is never paged.
    pub buffer: usize,
    /// Number of bytes, all in one page.
    pub len: usize,
    /// The address that is read or written.
    pub at: usize,
}

impl Access {
    /// Makes the call, and returns the kernel's answer. Called by threads of the program,
    /// with signals blocked.
    ///
    /// # Safety
    /// The buffer has room for `len` bytes. A write is what the program has asked for.
    pub unsafe fn call(&self) -> isize {
        let page = self.at / PAGE_SIZE * PAGE_SIZE;
        let place = loop {
            let is_free = |place: &&AtomicUsize| {
                let taken = place.compare_exchange(0, page, SeqCst, Relaxed);
                taken.is_ok()
            };
            match THREADS.calls.accessed.iter().find(is_free) {
                Some(place) => break place,
                None => thread::rest_us(NAP_US),
            }
        };
        // SAFETY: the caller's promise is the same.
        unsafe { mem_call::transfer(self.fd, self.writes, self.buffer, self.len, self.at, place) }
    }
}

/// The number of turns between two checks whether the program still exists.
const TURNS: u32 = 1 << 8;

/// Waits until no thread accesses a page of `range`. No access to the range can begin
/// meanwhile.
pub(crate) fn wait_for_accesses(range: &Range<usize>) {
    for place in &THREADS.calls.accessed {
        for turn in 1u32.. {
            let page = place.load(SeqCst);
            if !range.contains(&page) {
                break;
            }
            if turn.is_multiple_of(TURNS) && departure::has_left() {
                // The thread was killed during the access.
                let _ = place.compare_exchange(page, 0, SeqCst, Relaxed);
            }
            thread::await_turn(turn);
        }
    }
}
