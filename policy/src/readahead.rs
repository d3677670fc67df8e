//! Readahead: decides which pages to fetch beyond the one that faulted.
//!
//! The faults of each thread are taken apart into sequential and strided streams
//! (`stream`), as the readahead of Linux does for files (`mm/readahead.c`; Wu, Xi, Li and Xu,
//! "Linux readahead: less tricks for more", OLS 2007), and into dense regions that a thread
//! goes through in no order (`spatial`). Windows of streams that go on double; a *marker* page
//! of each window is left out of the program, so that its fault asks for the next one.
//!
//! Invariants, tested in `readahead/tests.rs`:
//! - a window lies beyond the fault in the direction of its stride, or close to the fault if it
//!   is of a dense region;
//! - no window has more than [`LARGEST`] pages, or leaves the address space;
//! - what is known is bounded: 64 threads, 8 streams and 4 sweeps of each.

mod spatial;
mod stream;

use alloc::boxed::Box;
use alloc::vec::Vec;
use spatial::SpatialPrefetcher;
use stream::{Stream, TRUST};
use tmem_wire::PAGE_SIZE;

pub use stream::LARGEST;

/// Streams of a thread, and how many of them may have no trusted stride yet.
const STREAMS: usize = 8;
const YOUNG: usize = 3;
/// Bytes of a page.
const PAGE: i64 = PAGE_SIZE as i64;
/// Threads that are followed.
const THREADS: usize = 64;

/// The most bytes of an address space. Within it the arithmetic does not overflow.
pub const BYTES: u64 = 1 << 57;

/// A readahead window: the pages of the addresses `start`, `start + stride` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// An address in the first page.
    pub start: u64,
    /// Bytes from each address to the next, at least those of a page; negative for a stream
    /// that goes down.
    pub stride: i64,
    /// How many pages; 0 to fetch nothing.
    pub count: u32,
}

impl Window {
    /// Nothing to fetch.
    pub const NONE: Window = Window {
        start: 0,
        stride: PAGE,
        count: 0,
    };

    /// The number of page `i` of the window, from 0 on; `None` beyond all addresses.
    pub fn page(&self, i: i64) -> Option<u64> {
        let at = self.start.checked_add_signed(self.stride * i)?;
        Some(at / PAGE as u64)
    }
}

/// The program's pages that may leave are divided by this for the longest window.
const WINDOW_PART: usize = 32;

/// The longest window, in pages, for a program that is to have at most `target` pages in
/// memory, has `resident`, and of these `evictable` that may leave.
///
/// A small budget may be filled with pages that never leave, so these do not count.
pub fn longest_window(target: usize, resident: usize, evictable: usize) -> usize {
    let room = evictable + target.saturating_sub(resident);
    (room.min(target) / WINDOW_PART).min(LARGEST as usize)
}

/// What is known of the streams of all threads.
#[derive(Clone, Debug, Default)]
pub struct Prefetcher {
    /// Most recent first.
    threads: Vec<Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    tid: u32,
    /// Most recent first.
    streams: Vec<Stream>,
    /// In a box: threads are moved within their list.
    spatial: Box<SpatialPrefetcher>,
    trust: u32,
}

impl Prefetcher {
    /// Knows no thread yet.
    pub fn new() -> Prefetcher {
        Prefetcher::default()
    }

    /// Takes in a fault of thread `tid` at address `at`, and returns what to fetch beyond it.
    ///
    /// `there` says that the page is the marker of a window, or is under way. Another page
    /// within a window has left again or was never asked for, and those behind it may have to be
    /// asked for again.
    ///
    /// The window doubles each time that the stream comes to the second half of the one before.
    /// So the caller leaves a marker there, or the stream runs to the window's end. The window
    /// shrinks when the stream skips pages.
    ///
    /// Where pages that lie close together fault in no order, a window may begin before the
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

    /// Notes that only `count` pages of a window that thread `tid` got are fetched. The next
    /// window begins behind these.
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
        // Within a dense region strides come about by chance.
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

    /// Forgets the stream whose last fault is the oldest. But single faults here and there do
    /// not drive out streams that go on.
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
