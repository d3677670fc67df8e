//! One stream of a thread: pages at a constant stride.
//!
//! A stride is a number of pages, or of bytes: a thread that goes down a column of a matrix
//! with rows of 10,000 bytes advances by two or three pages.

use super::{PAGE, Window};

/// Pages of a stream's first window: for a thread whose streams go on, and for one whose
/// streams mostly end after a page or two.
pub(super) const FIRST: u32 = 8;
pub(super) const FIRST_WARY: u32 = 2;
/// The most trust of a thread. A stream that begins costs one, and a stream that goes on
/// gives two. So trust stays low if fewer than half of the streams go on.
pub(super) const TRUST: u32 = 8;
/// The most pages of a window.
pub const LARGEST: u32 = 512;
/// The longest window whose stride is not one page, since each page needs a read of its
/// own.
const LARGEST_STRIDED: u32 = 64;
/// The widest stride that is recognized, in pages.
pub(super) const WIDEST: i64 = 512;

/// Returns the distance in pages between two addresses.
fn pages(from: i64, to: i64) -> i64 {
    to.div_euclid(PAGE) - from.div_euclid(PAGE)
}

/// A stream, and how far it was read ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The address of the last fault, or of its page once the stride is a number of pages.
    pub(super) last: i64,
    /// Bytes from one fault to the next; 0 after the first fault.
    stride: i64,
    /// Pages of the last window; 0 while the stride is not trusted.
    size: u32,
    /// The first address along the stride that was not asked for yet.
    pub(super) frontier: i64,
    /// Only the first window was opened.
    is_new: bool,
    /// The last address within a window that was missing.
    missed: i64,
}

impl Stream {
    /// Starts a stream at address `at`.
    pub(super) fn new(at: i64) -> Stream {
        Stream {
            last: at,
            stride: 0,
            size: 0,
            frontier: at,
            is_new: false,
            missed: -(WIDEST + 1) * PAGE,
        }
    }

    /// Tells whether the stream has no trusted stride yet.
    pub(super) fn is_young(&self) -> bool {
        self.size == 0
    }

    /// Notes that only `count` pages of a window are read.
    pub(super) fn cut(&mut self, window: Window, count: u32) {
        let at = |count: u32| window.start as i64 + window.stride * i64::from(count);
        if self.stride == window.stride && self.frontier == at(window.count) {
            self.frontier = at(count);
            self.size = count.max(FIRST_WARY);
        }
    }

    /// Returns the number of strides from the last fault to the page of `at`, if that lies
    /// on the stride.
    fn steps(&self, at: i64) -> Option<i64> {
        let page = at.div_euclid(PAGE);
        let (first, last) = (page * PAGE, page * PAGE + PAGE - 1);
        let steps = match self.stride {
            0 => return None,
            up @ 1.. => (first - self.last + up - 1).div_euclid(up),
            down => (self.last - last - down - 1).div_euclid(-down),
        };
        let steps = steps.max(0);
        (first..=last)
            .contains(&(self.last + steps * self.stride))
            .then_some(steps)
    }

    /// Returns the number of strides from the last fault to the frontier.
    fn ahead(&self) -> i64 {
        match self.stride {
            0 => 0,
            stride => (self.frontier - self.last) / stride,
        }
    }

    /// Tells whether the stream goes page by page, and a fault at `at` continues it.
    pub(super) fn goes_in_order(&self, at: i64) -> bool {
        !self.is_young() && self.stride.abs() == PAGE && self.continues(at)
    }

    /// Tells whether a fault at `at` continues the stream: within its window, next after
    /// it, or a little further if the pages between are resident.
    pub(super) fn continues(&self, at: i64) -> bool {
        if self.is_young() {
            return self.stride != 0 && (pages(self.last, at) == 0 || self.repeats(at).is_some());
        }
        let slack = i64::from(self.size / 4).max(2);
        self.steps(at)
            .is_some_and(|steps| steps <= self.ahead().max(1) + slack)
    }

    /// Returns the stride, if one that is not trusted yet repeats with a fault at `at`: in
    /// pages, or else in bytes.
    fn repeats(&self, at: i64) -> Option<i64> {
        let before = pages(self.last - self.stride, self.last);
        if before == 0 {
            return None;
        }
        let same_bytes = at - self.last == self.stride && self.stride.abs() > PAGE;
        let same_pages = pages(self.last, at) == before;
        // A thread that reads one record of each page, at different offsets, goes page by
        // page.
        if same_bytes && before.abs() > 1 || !same_pages {
            return same_bytes.then_some(self.stride);
        }
        Some(before * PAGE)
    }

    /// Tells whether the page of `at` may be the second or third of a stream without a
    /// trusted stride.
    pub(super) fn is_near(&self, at: i64) -> bool {
        self.is_young() && pages(self.last, at).abs() <= WIDEST
    }

    /// Handles a fault that continues the stream. Returns what to read.
    pub(super) fn advance(&mut self, at: i64, there: bool, trust: &mut u32) -> Window {
        if self.is_young()
            && let Some(stride) = self.repeats(at)
        {
            if stride % PAGE == 0 {
                self.last -= self.last.rem_euclid(PAGE);
            }
            (self.stride, self.frontier) = (stride, self.last);
        }
        let steps = self.steps(at).unwrap_or(0);
        let place = self.last + steps * self.stride;
        let ahead = self.ahead();
        if steps > 0 && steps < ahead && !there {
            // A single page may be missing by chance. If the next one is missing as well,
            // so is probably the rest of the window.
            let again = core::mem::replace(&mut self.missed, place) + self.stride == place;
            self.last = place;
            return match again {
                true => self.open(place + self.stride),
                false => Window::NONE,
            };
        }
        if steps == 0 || (steps < ahead && (ahead - steps) * 2 > i64::from(self.size)) {
            // The same page again, or one of a window that is still being read.
            return Window::NONE;
        }
        let skipped = self.size > 0 && steps > ahead;
        if core::mem::take(&mut self.is_new) {
            *trust = (*trust + 2).min(TRUST);
        }
        self.last = place;
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
            place + self.stride
        })
    }

    /// Handles a second fault, which gives the stride. The stride is trusted once it
    /// repeats.
    pub(super) fn turn(&mut self, at: i64) -> Window {
        self.stride = at - self.last;
        self.last = at;
        self.frontier = at;
        Window::NONE
    }

    /// Opens a window of `size` pages from `start` on, cut at page 0.
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
        if self.stride.abs() == PAGE {
            LARGEST
        } else {
            LARGEST_STRIDED
        }
    }
}
