//! Finds sequential and strided streams in the faults of each thread, and says
//! what to fetch ahead of them.

use alloc::vec::Vec;

/// Pages of the first window of a stream, of a thread whose streams go on, and
/// of one whose streams mostly end after a page or two.
const FIRST: u32 = 8;
const FIRST_WARY: u32 = 2;
/// The most that a thread is trusted. A stream that begins costs one of it, and
/// gives it back, with one more, when it goes on: it stays low where fewer than
/// half of them go on.
const TRUST: u32 = 8;
/// The most pages of a window.
pub(crate) const LARGEST: u32 = 512;
/// The most pages of a window whose stride is not one page: each is a read of
/// its own.
const LARGEST_STRIDED: u32 = 64;
/// The widest stride that is looked for, in pages.
const WIDEST: i64 = 512;
/// Streams followed per thread, and how many of them need no stride yet.
const STREAMS: usize = 8;
const YOUNG: usize = 3;
/// Threads followed.
const THREADS: usize = 64;

/// No address space has more pages; within it the arithmetic cannot overflow.
const PAGES: u64 = 1 << 52;

/// Pages to fetch: `start`, `start + stride` and so on, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first page's number.
    pub start: u64,
    /// From each page to the next, in pages; negative for a stream that goes
    /// down.
    pub stride: i64,
    /// How many; 0 to fetch nothing.
    pub count: u32,
}

impl Window {
    pub(crate) const NONE: Window = Window {
        start: 0,
        stride: 1,
        count: 0,
    };
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
    trust: u32,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The page of the last fault.
    last: i64,
    /// Pages from one fault to the next; 0 after the first.
    stride: i64,
    /// Pages of the last window; 0 as long as the stride is not trusted.
    size: u32,
    /// The first page along the stride that is not asked for yet.
    frontier: i64,
    /// Its first window is the last.
    is_new: bool,
    /// The last page within a window that was not there.
    missed: i64,
}

impl Prefetcher {
    /// Knows no thread yet.
    pub fn new() -> Prefetcher {
        Prefetcher::default()
    }

    /// Takes note of a fault of thread `tid` on page number `page`, and returns
    /// what to fetch beyond it. `there` says that the page is the one left out of
    /// a window, or is on its way: another within a window has left again, or was
    /// never asked for, so that those behind it may have to be asked for anew.
    ///
    /// The window doubles each time that the stream comes to the second half
    /// of the one before, so the caller leaves a page there that faults, or
    /// the stream runs to the window's end. It shrinks when the stream skips
    /// pages, and is gone when the stream is not heard of any more.
    pub fn fault(&mut self, tid: u32, page: u64, there: bool) -> Window {
        if page >= PAGES {
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
                        trust: TRUST,
                    },
                );
            }
        }
        self.threads[0].fault(page as i64, there)
    }

    /// Of a window that a fault of thread `tid` gave, only `count` pages are
    /// fetched: the next one begins behind these.
    pub fn cut(&mut self, tid: u32, window: Window, count: u32) {
        let thread = self.threads.iter_mut().find(|t| t.tid == tid);
        let streams = thread.into_iter().flat_map(|t| &mut t.streams);
        let at = |count: u32| window.start as i64 + window.stride * i64::from(count);
        for stream in streams {
            if stream.stride == window.stride && stream.frontier == at(window.count) {
                stream.frontier = at(count);
                stream.size = count.max(FIRST_WARY);
            }
        }
    }
}

impl Thread {
    fn fault(&mut self, page: i64, there: bool) -> Window {
        let known = self.streams.iter().position(|s| s.continues(page));
        let near = || self.streams.iter().position(|s| s.is_near(page));
        match known.or_else(near) {
            Some(at) => self.streams[..=at].rotate_right(1),
            None => {
                self.make_room();
                let fresh = Stream {
                    last: page,
                    stride: 0,
                    size: 0,
                    frontier: page,
                    is_new: false,
                    missed: -WIDEST - 1,
                };
                self.streams.insert(0, fresh);
                return Window::NONE;
            }
        }
        if known.is_some() {
            self.streams[0].advance(page, there, &mut self.trust)
        } else {
            self.streams[0].turn(page)
        }
    }
}

impl Thread {
    /// Forgets the stream that was heard of longest ago; but single faults here and
    /// there do not drive out streams that go on.
    fn make_room(&mut self) {
        if self.streams.len() < STREAMS {
            return;
        }
        let young = |s: &Stream| s.size == 0;
        let many = self.streams.iter().filter(|s| young(s)).count() >= YOUNG;
        let oldest = self.streams.iter().rposition(|s| !many || young(s));
        self.streams.remove(oldest.unwrap_or(STREAMS - 1));
    }
}

impl Stream {
    /// How many strides `page` is beyond the last fault, if it lies on them.
    fn steps(&self, page: i64) -> Option<i64> {
        let delta = page - self.last;
        (self.stride != 0 && delta % self.stride == 0 && delta / self.stride >= 0)
            .then(|| delta / self.stride)
    }

    /// Strides from the last fault to the frontier.
    fn ahead(&self) -> i64 {
        self.steps(self.frontier).unwrap_or(0)
    }

    /// Whether a fault on `page` is one that this stream lets expect: within
    /// its window, next after it, or a little further, where pages between
    /// are resident.
    fn continues(&self, page: i64) -> bool {
        let slack = if self.size == 0 {
            0
        } else {
            i64::from(self.size / 4).max(2)
        };
        self.steps(page)
            .is_some_and(|steps| steps <= self.ahead().max(1) + slack)
    }

    /// Whether `page` may be the second or third of a stream that has no
    /// trusted stride yet.
    fn is_near(&self, page: i64) -> bool {
        self.size == 0 && (page - self.last).abs() <= WIDEST
    }

    /// The stream goes where it was expected.
    fn advance(&mut self, page: i64, there: bool, trust: &mut u32) -> Window {
        let steps = self.steps(page).unwrap_or(0);
        let ahead = self.ahead();
        if steps > 0 && steps < ahead && !there {
            // One page may have been in nobody's reach for a moment; with the next one
            // missing as well, the rest is likely to be.
            let again = core::mem::replace(&mut self.missed, page) + self.stride == page;
            self.last = page;
            return match again {
                true => self.open(page + self.stride),
                false => Window::NONE,
            };
        }
        if steps == 0 || (steps < ahead && (ahead - steps) * 2 > i64::from(self.size)) {
            // The same page again, or one of a window still on its way.
            return Window::NONE;
        }
        let skipped = self.size > 0 && steps > ahead;
        if core::mem::take(&mut self.is_new) {
            *trust = (*trust + 2).min(TRUST);
        }
        self.last = page;
        self.size = match self.size {
            0 => {
                let first = if *trust > 0 { FIRST } else { FIRST_WARY };
                *trust = trust.saturating_sub(1);
                self.is_new = true;
                first
            }
            size if skipped => (size / 2).max(FIRST_WARY),
            size => (size * 2).min(self.largest()),
        };
        let frontier = self.frontier;
        self.open(if steps < ahead {
            frontier
        } else {
            page + self.stride
        })
    }

    /// A second fault gives the stride; it is trusted when it repeats.
    fn turn(&mut self, page: i64) -> Window {
        self.stride = page - self.last;
        self.last = page;
        self.frontier = page;
        Window::NONE
    }

    /// The window of `size` pages from `start`, cut at page 0.
    fn open(&mut self, start: i64) -> Window {
        let Ok(first) = u64::try_from(start) else {
            return Window::NONE;
        };
        let mut count = self.size;
        if self.stride < 0 {
            let room = first / self.stride.unsigned_abs() + 1;
            count = count.min(u32::try_from(room).unwrap_or(u32::MAX));
        }
        self.frontier = start + self.stride * i64::from(count);
        Window {
            start: first,
            stride: self.stride,
            count,
        }
    }

    fn largest(&self) -> u32 {
        if self.stride.abs() == 1 {
            LARGEST
        } else {
            LARGEST_STRIDED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// A program that touches `pages` in order; everything fetched stays, but
    /// the page at three quarters of each window faults once, as the marker.
    /// Returns the faults that found the page not fetched, and the windows.
    fn walk(
        p: &mut Prefetcher,
        tid: u32,
        pages: impl IntoIterator<Item = u64>,
    ) -> (usize, Vec<u32>) {
        let (mut held, mut markers) = (BTreeSet::new(), BTreeSet::new());
        let (mut misses, mut windows) = (0, Vec::new());
        for page in pages {
            let marker = markers.remove(&page);
            if held.contains(&page) && !marker {
                continue;
            }
            misses += usize::from(!marker);
            held.insert(page);
            let w = p.fault(tid, page, marker);
            let at = |i: u32| w.start.checked_add_signed(w.stride * i64::from(i)).unwrap();
            held.extend((0..w.count).map(at));
            if w.count > 0 {
                markers.insert(at(w.count * 3 / 4));
                windows.push(w.count);
            }
        }
        (misses, windows)
    }

    #[test]
    fn a_sequential_walk_misses_thrice_and_its_windows_double() {
        let (misses, windows) = walk(&mut Prefetcher::new(), 1, 1000..9000);
        assert_eq!(misses, 3);
        assert_eq!(windows[..8], [8, 16, 32, 64, 128, 256, 512, 512]);
    }

    #[test]
    fn a_backward_walk_is_followed_down_to_page_zero() {
        let (misses, windows) = walk(&mut Prefetcher::new(), 1, (0..5000).rev());
        assert_eq!(misses, 3);
        assert!(windows.contains(&512));
    }

    #[test]
    fn a_strided_walk_is_followed_once_its_stride_repeats() {
        let (misses, windows) = walk(&mut Prefetcher::new(), 1, (0..4000).map(|i| 70 + i * 7));
        assert_eq!(misses, 3);
        assert_eq!(windows.iter().max(), Some(&64));
    }

    #[test]
    fn four_interleaved_streams_of_one_thread_are_told_apart() {
        let merged = (0..2000u64).flat_map(|i| (0..4).map(move |s| s * 1_000_000 + i));
        assert_eq!(walk(&mut Prefetcher::new(), 1, merged).0, 12);
    }

    #[test]
    fn where_streams_end_at_once_little_is_fetched_and_a_long_one_is_still_found() {
        let mut p = Prefetcher::new();
        // Records of three pages, here and there.
        let records = (1..200u64).flat_map(|i| (0..3).map(move |j| i * 10_007 + j));
        let (_, windows) = walk(&mut p, 1, records);
        assert_eq!(windows.first(), Some(&FIRST));
        assert_eq!(windows.last(), Some(&FIRST_WARY));
        let most = windows.iter().filter(|n| **n > FIRST_WARY).count();
        assert!(most <= TRUST as usize, "{windows:?}");
        let (misses, windows) = walk(&mut p, 1, 90_000_000..90_010_000);
        assert_eq!(misses, 3);
        assert!(windows.contains(&LARGEST));
        // By ten streams that go on the thread is trusted again.
        for i in 10..20u64 {
            walk(&mut p, 1, i * 10_000_000..i * 10_000_000 + 100);
        }
        let (_, windows) = walk(&mut p, 1, 300_000_000..300_000_100);
        assert_eq!(windows.first(), Some(&FIRST));
    }

    #[test]
    fn threads_do_not_disturb_one_another() {
        let mut p = Prefetcher::new();
        for page in 0..3 {
            for tid in 0..8 {
                let w = p.fault(
                    tid,
                    u64::from(tid) + page * 1_000 + 7 * u64::from(tid) * page,
                    true,
                );
                assert_eq!(w.count, 0);
            }
        }
        p.fault(20, 499, true);
        p.fault(20, 500, true);
        for tid in 0..20 {
            p.fault(tid, 100_000_000, true);
        }
        assert_eq!(
            p.fault(20, 501, true),
            Window {
                start: 502,
                stride: 1,
                count: 8
            }
        );
    }

    #[test]
    fn faults_within_a_window_on_its_way_fetch_nothing_twice() {
        let mut p = Prefetcher::new();
        p.fault(1, 9, true);
        p.fault(1, 10, true);
        assert_eq!(
            p.fault(1, 11, true),
            Window {
                start: 12,
                stride: 1,
                count: 8
            }
        );
        assert_eq!(p.fault(1, 12, true).count, 0);
        assert_eq!(p.fault(1, 13, true).count, 0);
        assert_eq!(
            p.fault(1, 17, true),
            Window {
                start: 20,
                stride: 1,
                count: 16
            }
        );
    }

    #[test]
    fn a_window_that_has_left_again_is_asked_for_anew_from_there() {
        let mut p = Prefetcher::new();
        for page in 9..12 {
            p.fault(1, page, false);
        }
        // Of pages 12 to 19, 14 is not there.
        let window = |start, count| Window {
            start,
            stride: 1,
            count,
        };
        assert_eq!(p.fault(1, 13, false).count, 0);
        assert_eq!(p.fault(1, 15, false).count, 0);
        assert_eq!(p.fault(1, 16, false), window(17, 8));
        assert_eq!(p.fault(1, 17, true).count, 0);
        assert_eq!(p.fault(1, 22, true), window(25, 16));
    }

    #[test]
    fn single_faults_here_and_there_do_not_drive_out_streams_that_go_on() {
        let streams = |i: u64| (0..5u64).map(move |s| s * 1_000_000 + i);
        let noise = |i: u64| (0..7u64).map(move |n| 50_000_000 + (i * 7 + n) * 10_007);
        let mut p = Prefetcher::new();
        walk(&mut p, 1, (0..3).flat_map(streams));
        let merged = (3..1000).flat_map(|i| streams(i).chain(noise(i)));
        let (misses, _) = walk(&mut p, 1, merged);
        assert!(misses <= 7 * 997 + 20, "{misses}");
    }

    #[test]
    fn a_window_that_was_cut_is_followed_by_one_behind_what_was_fetched_of_it() {
        let mut p = Prefetcher::new();
        walk(&mut p, 1, 0..500);
        let last = p.threads[0].streams[0].last as u64;
        let at = p.threads[0].streams[0].frontier as u64;
        let w = p.fault(1, at, false);
        assert_eq!(
            (w.start, w.count > 200),
            (at + 1, true),
            "{w:?} after {last}"
        );
        p.cut(1, w, 100);
        // Its marker.
        let next = p.fault(1, at + 1 + 75, true);
        assert_eq!((next.start, next.count), (at + 101, 200));
        // One of which nothing could be fetched.
        p.cut(1, next, 0);
        assert_eq!(p.fault(1, at + 101, false).start, at + 102);
    }

    #[test]
    fn skipped_pages_shrink_the_window() {
        let mut p = Prefetcher::new();
        let (_, windows) = walk(&mut p, 1, 0..500);
        let size = *windows.last().unwrap();
        let mut at = p.threads[0].streams[0].frontier as u64 + 5;
        let w = p.fault(1, at, true);
        assert_eq!(
            w,
            Window {
                start: at + 1,
                stride: 1,
                count: size / 2
            }
        );
        at += 1_000_000;
        assert_eq!(p.fault(1, at, true).count, 0);
    }

    #[test]
    fn random_faults_over_a_wide_range_fetch_almost_nothing() {
        let mut p = Prefetcher::new();
        let mut x = 88172645463325252u64;
        let mut fetched = 0;
        for _ in 0..10_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            fetched += p.fault(1, x % 1_000_000, true).count;
        }
        assert!(fetched < 200, "{fetched} pages");
    }

    #[test]
    fn the_number_of_threads_known_is_bounded() {
        let mut p = Prefetcher::new();
        for tid in 0..10_000 {
            p.fault(tid, 5, true);
        }
        assert_eq!(p.threads.len(), THREADS);
    }

    proptest! {
        /// Whatever the faults: windows lie beyond the fault in the direction
        /// of their stride, within the numbers, and no larger than allowed.
        #[test]
        fn windows_are_always_well_formed(
            faults in prop::collection::vec((0..3u32, prop_oneof![
                0..40u64, Just(u64::MAX), Just(PAGES - 1), any::<u64>(), 1000..1040u64,
            ], any::<bool>()), 0..200),
        ) {
            let mut p = Prefetcher::new();
            for (tid, page, there) in faults {
                let w = p.fault(tid, page, there);
                if w.count > 0 {
                    prop_assert!(w.count <= LARGEST && w.stride != 0);
                    let last = w.start as i64 + w.stride * i64::from(w.count - 1);
                    prop_assert!(last >= 0);
                    prop_assert_eq!(w.start > page, w.stride > 0);
                    prop_assert!(w.stride.abs() <= WIDEST);
                }
            }
        }
    }
}
