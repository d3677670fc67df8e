//! Runs of pages that can be installed by one move.

/// Neighbouring pages in neighbouring frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) page: u64,
    pub(crate) frame: u32,
    pub(crate) n: usize,
}

impl Run {
    /// Adds a page at either end, if it fits there. Returns whether it does.
    pub(crate) fn add(&mut self, page: u64, frame: u32) -> bool {
        let first = self.n == 0;
        let after = page == self.page + self.n as u64 && frame == self.frame + self.n as u32;
        let before = page + 1 == self.page && frame + 1 == self.frame;
        if first || before {
            (self.page, self.frame) = (page, frame);
        }
        let fits = first || after || before;
        self.n += usize::from(fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_grows_at_both_ends_where_page_and_frame_do() {
        let mut run = Run::default();
        assert!(run.add(100, 7) && run.add(101, 8) && run.add(99, 6));
        assert!(!run.add(102, 10) && !run.add(98, 4) && !run.add(100, 7));
        assert_eq!((run.page, run.frame, run.n), (99, 6, 3));
    }
}
