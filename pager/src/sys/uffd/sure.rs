//! Moves that are certain of which pages they have moved.
//!
//! `UFFDIO_MOVE` reports how many pages it has moved, and Linux 6.18 may report too few. If
//! a page table entry changes during the move, because the page was accessed for the first
//! time since the kernel last checked its age, the kernel tries again. When that succeeds
//! it still remembers the error, tries a third time, and finds the page at its destination.
//! Then it reports `EEXIST` for a page that it has moved itself, or, if it had moved others
//! before, `EAGAIN` and their number. To believe this would lose pages. So after such a
//! report the page map shows where the pages are.

use super::{Transfer, Uffd};
use crate::sys::proc::Proc;
use alloc::vec::Vec;
use rustix::io::Errno;

impl Transfer {
    /// Tells whether more pages may have moved than reported.
    fn is_doubtful(&self) -> bool {
        match self.stopped {
            None => false,
            // If pages were moved before, every error is reported as `EAGAIN`.
            Some(error) => self.done > 0 || error == Errno::EXIST,
        }
    }

    /// Corrects the result for a move of `len` bytes. `end` returns, for the first byte
    /// that was not reported, how far the pages have really moved.
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
            // The error is unknown, and the caller will get it when it tries again.
            _ if done > self.done => Some(Errno::AGAIN),
            stopped => stopped,
        };
        Ok(Transfer { done, stopped })
    }
}

impl Uffd {
    /// Moves pages to unbacked frames. The caller knows that nothing is there.
    ///
    /// # Errors
    /// Only when it is unknown which pages have moved.
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

    /// Moves pages that, as the caller knows, are all present. With `holes`, absent pages
    /// count as moved. With `wake`, threads that wait for them are woken.
    ///
    /// # Errors
    /// Only when it is unknown which pages have moved.
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
