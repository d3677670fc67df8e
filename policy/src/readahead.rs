//! Finds sequential and strided streams in the faults of each thread, and dense regions
//! that it goes through in no order, and says what to fetch ahead.

mod spatial;
mod stream;

use alloc::boxed::Box;
use alloc::vec::Vec;
use spatial::SpatialPrefetcher;
use stream::{Stream, TRUST};
use tmem_wire::PAGE_SIZE;

pub use stream::LARGEST;

/// Streams followed per thread, and how many of them need no stride yet.
const STREAMS: usize = 8;
const YOUNG: usize = 3;
/// What a page has of bytes.
const PAGE: i64 = PAGE_SIZE as i64;
/// Threads followed.
const THREADS: usize = 64;

/// No address space has more bytes; within it the arithmetic cannot overflow.
pub const BYTES: u64 = 1 << 57;

/// Pages to fetch: those of the addresses `start`, `start + stride` and so on,
/// `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// An address in the first page.
    pub start: u64,
    /// From each address to the next, in bytes, at least as much as a page has;
    /// negative for a stream that goes down.
    pub stride: i64,
    /// How many; 0 to fetch nothing.
    pub count: u32,
}

impl Window {
    /// Nothing to fetch.
    pub const NONE: Window = Window {
        start: 0,
        stride: PAGE,
        count: 0,
    };

    /// The number of page `i` of them, from 0 on; none beyond all addresses.
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
    /// Not within, since threads change places.
    spatial: Box<SpatialPrefetcher>,
    trust: u32,
}

impl Prefetcher {
    /// Knows no thread yet.
    pub fn new() -> Prefetcher {
        Prefetcher::default()
    }

    /// Takes note of a fault of thread `tid` at address `at`, and returns what to
    /// fetch beyond it. `there` says that the page is the one left out of
    /// a window, or is on its way: another within a window has left again, or was
    /// never asked for, so that those behind it may have to be asked for anew.
    ///
    /// The window doubles each time that the stream comes to the second half
    /// of the one before, so the caller leaves a page there that faults, or
    /// the stream runs to the window's end. It shrinks when the stream skips
    /// pages, and is gone when the stream is not heard of any more.
    ///
    /// Where pages that lie close together fault in no order, a window may begin before
    /// the fault.
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

    /// Of a window that a fault of thread `tid` gave, only `count` pages are
    /// fetched: the next one begins behind these.
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
        // Within a sweep strides come about by chance.
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

    /// Forgets the stream that was heard of longest ago; but single faults here and
    /// there do not drive out streams that go on.
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
