//! Moves of which it is sure which pages they have moved.
//!
//! `UFFDIO_MOVE` says how many pages it has moved, and Linux 6.18 may say too
//! few. Where an entry of the page table changes under its hands, because a
//! page was accessed for the first time since its age was looked at, it tries
//! once more; when that succeeds it still knows of the error, tries a third
//! time, and finds the page at its destination. It then says `EEXIST` of pages
//! that it has moved itself, or, where it had moved others before, `EAGAIN` and
//! the number of these. To believe it is to lose the pages. So where it says
//! that, it is looked where they are.

use super::{Transfer, Uffd};
use crate::sys::proc::Proc;
use alloc::vec::Vec;
use rustix::io::Errno;

impl Transfer {
    /// Whether more pages may have moved than it says.
    fn is_doubtful(&self) -> bool {
        match self.stopped {
            None => false,
            // With pages counted before, every error is `EAGAIN`.
            Some(error) => self.done > 0 || error == Errno::EXIST,
        }
    }

    /// What really was done of `len` bytes. `end` says, of the first byte that is
    /// not counted, up to where they have moved.
    fn corrected(
        self,
        len: usize,
        end: impl FnOnce(usize) -> Result<usize, Errno>,
    ) -> Result<Transfer, Errno> {
        if !self.is_doubtful() {
            return Ok(self);
        }
        let done = end(self.done)?;
        let stopped = match self.stopped {
            _ if done == len => None,
            // What stopped it is not known; who tries again is told.
            _ if done > self.done => Some(Errno::AGAIN),
            stopped => stopped,
        };
        Ok(Transfer { done, stopped })
    }
}

impl Uffd {
    /// Moves pages to where, as the caller knows, there are none.
    ///
    /// # Errors
    /// Only when it cannot be told which pages have moved.
    pub fn move_to_holes(
        &self,
        proc: &Proc,
        dst: usize,
        src: usize,
        len: usize,
    ) -> Result<Transfer, Errno> {
        let moved = self.move_pages(dst, src, len, false, false);
        moved.corrected(len, |done| {
            let mut there = Vec::new();
            proc.occupied(dst + done, dst + len, &mut there)?;
            let end = there.iter().fold(
                dst + done,
                |end, run| {
                    if run.start == end { run.end } else { end }
                },
            );
            Ok(end - dst)
        })
    }

    /// Moves pages that, as the caller knows, are all there; with `holes`,
    /// absent ones count as moved. With `wake`, threads that wait for them go
    /// on.
    ///
    /// # Errors
    /// Only when it cannot be told which pages have moved.
    pub fn move_present(
        &self,
        proc: &Proc,
        dst: usize,
        src: usize,
        len: usize,
        holes: bool,
        wake: bool,
    ) -> Result<Transfer, Errno> {
        let moved = self.move_pages(dst, src, len, holes, wake);
        moved.corrected(len, |done| {
            let mut left = Vec::new();
            proc.occupied(src + done, src + len, &mut left)?;
            let end = left.first().map_or(len, |run| run.start - src);
            if wake && end > done {
                self.wake(dst + done, end - done);
            }
            Ok(end)
        })
    }
}
