//! Runs of pages that can be installed by one move.

use crate::frame_number::FrameNumber;
use tmem_policy::PageNumber;

/// Neighbouring pages in neighbouring frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) page: PageNumber,
    pub(crate) frame: FrameNumber,
    pub(crate) n: usize,
}

impl Run {
    /// Starts a run with one page.
    pub(crate) fn new(page: PageNumber, frame: FrameNumber) -> Run {
        Run { page, frame, n: 1 }
    }

    /// Adds a page at either end, if it fits there. Returns whether it does.
    pub(crate) fn add(&mut self, page: PageNumber, frame: FrameNumber) -> bool {
        let after = page == self.page + self.n && frame == self.frame + self.n;
        let before = page + 1 == self.page && frame + 1 == self.frame;
        if before {
            (self.page, self.frame) = (page, frame);
        }
        self.n += usize::from(after || before);
        after || before
    }
}

/// Adds a page to a run, or starts a run with it if there is none. Returns whether the page
/// is in the run now.
pub(crate) fn add(run: &mut Option<Run>, page: PageNumber, frame: FrameNumber) -> bool {
    match run {
        Some(run) => run.add(page, frame),
        None => {
            *run = Some(Run::new(page, frame));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_grows_at_both_ends_where_page_and_frame_do() {
        let (p, f) = (PageNumber::new, FrameNumber::new);
        let mut run = Run::new(p(100), f(7));
        assert!(run.add(p(101), f(8)) && run.add(p(99), f(6)));
        assert!(!run.add(p(102), f(10)) && !run.add(p(98), f(4)) && !run.add(p(100), f(7)));
        assert_eq!((run.page, run.frame, run.n), (p(99), f(6), 3));
    }
}
