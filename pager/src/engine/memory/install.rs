//! Installs pages: puts them into the program.

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::{Stop, sure};
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::pool::Kind;
use crate::sys;
use crate::sys::errno::Words;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_policy::cyclic::{begins_block, within_block};
use tmem_policy::eviction::Segment;
use tmem_wire::PAGE_SIZE;

impl Memory {
    /// Installs `n` pages from neighbouring frames, and wakes the threads that wait for
    /// them. Returns how many were installed, and what stopped the rest.
    pub(crate) fn install(
        &mut self,
        page: PageNumber,
        frame: FrameNumber,
        n: usize,
    ) -> (usize, Option<Stop>) {
        let mut done = 0;
        // The kernel moves and copies into one mapping per call.
        let mut most = n;
        while done < n {
            let (to, from) = (addr(page) + done * PAGE_SIZE, frame + done);
            let left = most.min(n - done) * PAGE_SIZE;
            let src = self.pool.addr(from);
            // A frame that is being written to a server must keep its contents.
            let sending = self.pool.kind(from) == Kind::Writeback;
            let single = n == 1 && self.mover.is_contended();
            let mut copied =
                self.mover.copies() || sending || single || self.mover.is_executable(to);
            let len = if sending { PAGE_SIZE } else { left };
            let mut t = if copied {
                self.mover.kernel().copy_pages(to, src, len, true)
            } else {
                let len = self.unsent(from, left / PAGE_SIZE) * PAGE_SIZE;
                let moved = self.mover.kernel().move_present(to, src, len);
                sure(moved)
            };
            let refused = matches!(t.stopped, Some(Errno::INVAL | Errno::NOENT));
            if t.done == 0 && refused && left > PAGE_SIZE && !sending {
                most = left / PAGE_SIZE / 2;
                continue;
            }
            if !copied && t.done == 0 && matches!(t.stopped, Some(Errno::INVAL | Errno::BUSY)) {
                // The page may be read-only in the program, or the kernel may have merged the
                // frame with equal pages (KSM): it refuses to move, but not to copy.
                t = self.mover.kernel().copy_pages(to, src, PAGE_SIZE, true);
                copied = true;
                self.report.stats.copied_pages.fetch_add(1, Relaxed);
            }
            let pages = t.done / PAGE_SIZE;
            self.installed(page + done, from, pages, copied);
            done += pages;
            if pages > 0 {
                most = n;
                continue;
            }
            let stop = match t.stopped {
                Some(Errno::EXIST) => Stop::Present,
                Some(Errno::AGAIN | Errno::NOMEM | Errno::BUSY) | None => Stop::Again,
                Some(e) => {
                    self.check_frame(from, e);
                    Stop::Gone
                }
            };
            return (done, Some(stop));
        }
        (done, None)
    }

    /// Counts up to `n` frames from `frame` on that are not being written to a server.
    fn unsent(&self, frame: FrameNumber, n: usize) -> usize {
        let sending = |i: &usize| self.pool.kind(frame + *i) == Kind::Writeback;
        (0..n).find(sending).unwrap_or(n)
    }

    /// Ends the program if the page in a frame has vanished: it must not be taken for a
    /// page that was never touched.
    fn check_frame(&self, frame: FrameNumber, error: Errno) {
        if !self.holds(frame) {
            sys::say::die(&format!(
                "a defect of tmem: an evicted page is not where it was put ({}); \
                 the program is ended before it reads wrong data",
                Words(error)
            ));
        }
    }

    /// Tells whether a frame holds memory, be it in the kernel's swap.
    pub(crate) fn holds(&self, frame: FrameNumber) -> bool {
        let start = self.pool.addr(frame);
        let mut held = Vec::new();
        let asked = self
            .mover
            .kernel()
            .occupied(start, start + PAGE_SIZE, &mut held);
        // Without an answer the frame counts as occupied.
        asked.is_err() || !held.is_empty()
    }

    /// Updates page table, queue and pool after pages were installed.
    fn installed(&mut self, page: PageNumber, frame: FrameNumber, n: usize, copied: bool) {
        let mut place = Segment::Small;
        for i in 0..n {
            let (number, f) = (page + i, frame + i);
            if i == 0 || begins_block(number) {
                let block = (n - i).min(within_block(number));
                place = self.queue.choose_segment(number, block, n);
            }
            let mut entry = self.pages.get(number);
            entry.state = State::Local;
            entry.has_waiters = false;
            entry.ahead = false;
            entry.dirty |= copied && self.pool.kind(f) == Kind::Writeback;
            if !entry.queued {
                let place = if entry.referenced {
                    Segment::Main
                } else {
                    place
                };
                self.enqueue(number, &mut entry, place);
            }
            self.pages.set(number, &entry);
            if !copied {
                self.pool.put(f, Kind::Unbacked, None);
            } else if self.pool.kind(f) == Kind::Writeback {
                self.pool.set_page(f, None);
            } else {
                self.pool.put(f, Kind::Free, None);
            }
        }
        self.residency.count_put(n as i64);
        self.count_remote(-(n as i64));
    }

    /// Handles a page that can never be installed.
    pub(crate) fn not_installed(&mut self, page: PageNumber, stop: Stop) {
        if stop == Stop::Present {
            // Only the engine makes pages present in registered memory. So one of the two
            // copies is outdated, and nothing tells which.
            sys::say::die(&format!(
                "a defect of tmem: page {page:x} is in the program and outside of it; the \
                 program is ended before it reads wrong data"
            ));
        }
        // A page that is unmapped is forgotten when its event is read.
        self.mover.kernel().wake(addr(page), PAGE_SIZE);
    }
}
