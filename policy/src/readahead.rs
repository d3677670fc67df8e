//! Readahead: decides which pages to read beyond the one that faulted.
//!
//! The faults of each thread are divided into sequential and strided streams (`stream`), as
//! the readahead of Linux does for files (`mm/readahead.c`; Wu, Xi, Li and Xu, "Linux
//! readahead: less tricks for more", OLS 2007), and into dense regions without an order
//! (`spatial`). The windows of a stream double while it goes on. A *marker* page of each
//! window is left out of the program, so that its fault asks for the next window.
//!
//! Invariants, tested in `readahead/tests.rs`:
//! - a window lies beyond the fault in the direction of its stride, or close to the fault
//!   in a dense region;
//! - no window has more than [`LARGEST`] pages, or leaves the address space;
//! - the state is bounded: 64 threads, with 8 streams and 4 sweeps each.

mod spatial;
mod stream;

use crate::PageNumber;
use alloc::boxed::Box;
use alloc::vec::Vec;
use spatial::SpatialPrefetcher;
use stream::{Stream, TRUST};
use tmem_wire::PAGE_SIZE;

pub use stream::LARGEST;

/// The most streams of a thread, and how many of them may have no trusted stride yet.
const STREAMS: usize = 8;
const YOUNG: usize = 3;
/// Bytes of a page.
const PAGE: i64 = PAGE_SIZE as i64;
/// The most threads that are followed.
const THREADS: usize = 64;

/// The largest address space, in bytes. Within it the arithmetic does not overflow.
pub const BYTES: u64 = 1 << 57;

/// A readahead window: the pages of the addresses `start`, `start + stride` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// An address in the first page.
    pub start: u64,
    /// Bytes from each address to the next, at least one page; negative for a stream that
    /// goes down.
    pub stride: i64,
    /// The number of pages. 0 means that nothing is read.
    pub count: u32,
}

impl Window {
    /// An empty window.
    pub const NONE: Window = Window {
        start: 0,
        stride: PAGE,
        count: 0,
    };

    /// Returns page `i` of the window, counted from 0, or `None` beyond the address space.
    pub fn page(&self, i: i64) -> Option<PageNumber> {
        let at = self.start.checked_add_signed(self.stride * i)?;
        Some(PageNumber::new(at / PAGE as u64))
    }
}

/// The longest window is this part of the pages that may be evicted.
const WINDOW_PART: usize = 32;

/// Returns the longest window, in pages, for a program that may have `target` pages in
/// memory, and has `resident`, of which `evictable` may be evicted.
///
/// Other pages do not count: a small budget may be filled with pages that never leave.
pub fn longest_window(target: usize, resident: usize, evictable: usize) -> usize {
    let room = evictable + target.saturating_sub(resident);
    (room.min(target) / WINDOW_PART).min(LARGEST as usize)
}

/// The prefetcher: the streams and dense regions of all threads.
#[derive(Clone, Debug, Default)]
pub struct Prefetcher {
    /// The most recent thread first.
    threads: Vec<Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    tid: u32,
    /// The most recent stream first.
    streams: Vec<Stream>,
    /// Boxed, since threads are moved within their list.
    spatial: Box<SpatialPrefetcher>,
    trust: u32,
}

impl Prefetcher {
    /// Starts without knowledge of any thread.
    pub fn new() -> Prefetcher {
        Prefetcher::default()
    }

    /// Handles a fault of thread `tid` at address `at`. Returns what to read beyond it.
    ///
    /// `there` says that the page is the marker of a window, or is being read. Any other
    /// page within a window was evicted again or never read, and so may be those after it.
    ///
    /// The window doubles each time that the stream reaches the second half of the one
    /// before. So the caller leaves a marker there, or the stream runs to the window's end.
    /// The window shrinks when the stream skips pages.
    ///
    /// In a dense region, whose pages fault in no order, a window may begin before the
    /// fault.
    pub fn fault(&mut self, tid: u32, at: u64, there: bool) -> Window {
        if at >= BYTES {
            return Window::NONE;
        }
        match self.threads.iter().position(|t| t.tid == tid) {
            Some(at) => self.threads[..=at].rotate_right(1),
            None => {
                self.threads.truncate(THREADS - 1);
                self.threads.insert(
                    0,
                    Thread {
                        tid,
                        streams: Vec::with_capacity(STREAMS),
                        spatial: Box::default(),
                        trust: TRUST,
                    },
                );
            }
        }
        self.threads[0].fault(at as i64, there)
    }

    /// Notes that only `count` pages of a window of thread `tid` are read. The next window
    /// begins after these.
    pub fn cut(&mut self, tid: u32, window: Window, count: u32) {
        if let Some(thread) = self.threads.iter_mut().find(|t| t.tid == tid) {
            thread.streams.iter_mut().for_each(|s| s.cut(window, count));
            thread.spatial.cut(window, count);
        }
    }
}

impl Thread {
    fn fault(&mut self, at: i64, there: bool) -> Window {
        let page = at / PAGE;
        // Within a dense region strides occur by chance.
        if !self.streams.iter().any(|s| s.goes_in_order(at))
            && let Some(window) = self.spatial.advance(page)
        {
            return window;
        }
        let window = self.follow(at, there);
        match window.count {
            0 => self.spatial.fault(page),
            _ => window,
        }
    }

    fn follow(&mut self, at: i64, there: bool) -> Window {
        let known = self.streams.iter().position(|s| s.continues(at));
        let near = || self.streams.iter().position(|s| s.is_near(at));
        match known.or_else(near) {
            Some(i) => self.streams[..=i].rotate_right(1),
            None => {
                self.make_room();
                self.streams.insert(0, Stream::new(at));
                return Window::NONE;
            }
        }
        if known.is_some() {
            self.streams[0].advance(at, there, &mut self.trust)
        } else {
            self.streams[0].turn(at)
        }
    }

    /// Forgets the stream with the oldest last fault. Single faults do not displace streams
    /// that go on.
    fn make_room(&mut self) {
        if self.streams.len() < STREAMS {
            return;
        }
        let many = self.streams.iter().filter(|s| s.is_young()).count() >= YOUNG;
        let oldest = self.streams.iter().rposition(|s| !many || s.is_young());
        self.streams.remove(oldest.unwrap_or(STREAMS - 1));
    }
}

#[cfg(test)]
mod tests;
