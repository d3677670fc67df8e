//! One stream of a thread: pages that follow one another at a stride.

use super::Window;

/// Pages of the first window of a stream, of a thread whose streams go on, and
/// of one whose streams mostly end after a page or two.
pub(super) const FIRST: u32 = 8;
pub(super) const FIRST_WARY: u32 = 2;
/// The most that a thread is trusted. A stream that begins costs one of it, and
/// gives it back, with one more, when it goes on: it stays low where fewer than
/// half of them go on.
pub(super) const TRUST: u32 = 8;
/// The most pages of a window.
pub(crate) const LARGEST: u32 = 512;
/// The most pages of a window whose stride is not one page: each is a read of
/// its own.
const LARGEST_STRIDED: u32 = 64;
/// The widest stride that is looked for, in pages.
pub(super) const WIDEST: i64 = 512;

/// What is known of a stream, and how far it was fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The page of the last fault.
    pub(super) last: i64,
    /// Pages from one fault to the next; 0 after the first.
    stride: i64,
    /// Pages of the last window; 0 as long as the stride is not trusted.
    size: u32,
    /// The first page along the stride that is not asked for yet.
    pub(super) frontier: i64,
    /// Its first window is the last.
    is_new: bool,
    /// The last page within a window that was not there.
    missed: i64,
}

impl Stream {
    /// One that may begin at `page`.
    pub(super) fn new(page: i64) -> Stream {
        Stream {
            last: page,
            stride: 0,
            size: 0,
            frontier: page,
            is_new: false,
            missed: -WIDEST - 1,
        }
    }

    /// Whether it has no trusted stride yet.
    pub(super) fn is_young(&self) -> bool {
        self.size == 0
    }

    /// Of a window only `count` pages are fetched.
    pub(super) fn cut(&mut self, window: Window, count: u32) {
        let at = |count: u32| window.start as i64 + window.stride * i64::from(count);
        if self.stride == window.stride && self.frontier == at(window.count) {
            self.frontier = at(count);
            self.size = count.max(FIRST_WARY);
        }
    }

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
    pub(super) fn continues(&self, page: i64) -> bool {
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
    pub(super) fn is_near(&self, page: i64) -> bool {
        self.is_young() && (page - self.last).abs() <= WIDEST
    }

    /// The stream goes where it was expected.
    pub(super) fn advance(&mut self, page: i64, there: bool, trust: &mut u32) -> Window {
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
    pub(super) fn turn(&mut self, page: i64) -> Window {
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
