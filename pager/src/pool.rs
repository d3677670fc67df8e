//! The frame pool: pages on their way out of the program and into it.
//!
//! Each frame is a page of one reserved region. The kinds of frames:
//!
//! | kind | memory | contents |
//! |---|---|---|
//! | `Unbacked` | none | the destination of the next eviction |
//! | `Free` | yes | nothing of value; a page is read into it, then moved into the program |
//! | `Standby` | yes | an evicted page that a server has too; some become `Free` |
//! | `Writeback` | yes | an evicted page that is being written to a server |
//! | `PendingWriteback` | yes | an evicted page that waits to be written |
//! | `ReadIn` | maybe | a page that is being read from a server |
//! | `Isolated` | yes | a copy of a page that is still in the program |
//! | `Spent` | yes | nothing of value, and must not be written: its memory goes back to the kernel |
//!
//! A page that is moved into the program leaves its frame unbacked, and a page that is
//! moved out fills an unbacked frame. So frames circulate, and nothing is allocated or
//! freed on the way.
//!
//! The memory of a *lent* frame may still be shown by a pipe or a socket, whose reference a
//! move does not notice (`engine/reclaim/lending.rs`). Such a frame is `Spent` where
//! another would be `Free`.

use crate::frame_number::FrameNumber;
use crate::frames::FrameSet;
pub(crate) use crate::frames::RUN_FRAMES;
use crate::sys::mem::Region;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_wire::PAGE_SIZE;

/// What a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Unbacked,
    Free,
    Standby,
    Writeback,
    PendingWriteback,
    ReadIn,
    Isolated,
    Spent,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    /// The page that the frame is for, or `None` if that is not wanted any more.
    page: Option<NonZeroU64>,
    kind: Kind,
    /// The kernel may still show its memory to others.
    lent: bool,
    /// Neighbours in the standby list.
    older: Option<FrameNumber>,
    newer: Option<FrameNumber>,
}

/// The frame pool.
pub(crate) struct Pool {
    region: Region,
    frames: Vec<Frame>,
    holes: FrameSet,
    free: FrameSet,
    spent: FrameSet,
    oldest: Option<FrameNumber>,
    newest: Option<FrameNumber>,
    standby: usize,
    taken: u64,
    /// Frames that wait for writeback, oldest first. Frames that have changed their kind
    /// since are skipped.
    pending: VecDeque<FrameNumber>,
}

impl Pool {
    /// Creates a pool of at least `frames` unbacked frames.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn new(frames: usize) -> Result<Pool, Errno> {
        let blocks = frames.div_ceil(RUN_FRAMES);
        let mut holes = FrameSet::new(blocks);
        let all = FrameNumber::new(0).run(blocks * RUN_FRAMES);
        all.for_each(|frame| holes.put(frame));
        let empty = Frame {
            page: None,
            kind: Kind::Unbacked,
            lent: false,
            older: None,
            newer: None,
        };
        Ok(Pool {
            region: Region::new(blocks * RUN_FRAMES * PAGE_SIZE)?,
            frames: alloc::vec![empty; blocks * RUN_FRAMES],
            holes,
            free: FrameSet::new(blocks),
            spent: FrameSet::new(blocks),
            oldest: None,
            newest: None,
            standby: 0,
            taken: 0,
            pending: VecDeque::new(),
        })
    }

    /// Returns its memory.
    pub(crate) fn region(&self) -> Region {
        self.region
    }

    /// Returns the address of a frame.
    pub(crate) fn addr(&self, frame: FrameNumber) -> usize {
        self.region.start + frame.index() * PAGE_SIZE
    }

    /// Returns the number of frames that have memory.
    pub(crate) fn populated(&self) -> usize {
        self.frames.len() - self.holes.len()
    }

    /// Returns the number of free frames.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Returns the number of frames whose memory has to go back to the kernel.
    pub(crate) fn spent(&self) -> usize {
        self.spent.len()
    }

    /// Returns how many free frames were taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns the number of pages on standby.
    pub(crate) fn standby(&self) -> usize {
        self.standby
    }

    /// Returns the number of unbacked frames.
    pub(crate) fn holes(&self) -> usize {
        self.holes.len()
    }

    /// Returns the page that a frame is for.
    pub(crate) fn page(&self, frame: FrameNumber) -> Option<PageNumber> {
        self.frames[frame.index()]
            .page
            .map(|page| PageNumber::new(page.get()))
    }

    /// Returns what a frame holds.
    pub(crate) fn kind(&self, frame: FrameNumber) -> Kind {
        self.frames[frame.index()].kind
    }

    /// Changes the page that a frame is for.
    pub(crate) fn set_page(&mut self, frame: FrameNumber, page: Option<PageNumber>) {
        self.frames[frame.index()].page = page.and_then(|page| NonZeroU64::new(page.get()));
    }

    /// Takes up to `want` neighbouring unbacked frames. The caller gives each a kind.
    pub(crate) fn take_holes(&mut self, want: usize) -> Option<(FrameNumber, usize)> {
        self.holes.take(want)
    }

    /// Takes up to `want` neighbouring free frames. The caller gives each a kind.
    pub(crate) fn take_free(&mut self, want: usize) -> Option<(FrameNumber, usize)> {
        let run = self.free.take(want)?;
        self.taken += run.1 as u64;
        Some(run)
    }

    /// Takes up to `want` neighbouring spent frames, for [`Pool::put_moved`].
    pub(crate) fn take_spent(&mut self, want: usize) -> Option<(FrameNumber, usize)> {
        self.spent.take(want)
    }

    /// Notes that the kernel may show the memory of a frame to others, until the frame is
    /// unbacked.
    pub(crate) fn set_lent(&mut self, frame: FrameNumber) {
        self.frames[frame.index()].lent = true;
    }

    /// Notes that the kernel may show all memory of the pool to others, except frames that
    /// a request reads into: they are being overwritten already.
    pub(crate) fn set_all_lent(&mut self) {
        while let Some((frame, n)) = self.free.take(RUN_FRAMES) {
            for frame in frame.run(n) {
                self.set_lent(frame);
                self.put(frame, Kind::Free, None);
            }
        }
        for frame in &mut self.frames {
            frame.lent |= !matches!(frame.kind, Kind::Unbacked | Kind::ReadIn);
        }
    }

    /// Gives a frame a kind and a page. A lent frame becomes spent instead of free.
    pub(crate) fn put(
        &mut self,
        frame: FrameNumber,
        kind: Kind,
        page: impl Into<Option<PageNumber>>,
    ) {
        if self.frames[frame.index()].kind == Kind::Standby {
            self.unlink(frame);
        }
        let lent = self.frames[frame.index()].lent;
        let kind = if kind == Kind::Free && lent {
            Kind::Spent
        } else {
            kind
        };
        self.frames[frame.index()].kind = kind;
        self.set_page(frame, page.into());
        match kind {
            Kind::Unbacked => {
                self.frames[frame.index()].lent = false;
                self.holes.put(frame);
            }
            Kind::Free => self.free.put(frame),
            Kind::Spent => self.spent.put(frame),
            Kind::Standby => self.link(frame),
            _ => {}
        }
    }

    /// Returns `n` frames that were taken. The memory of the first `moved` was moved away;
    /// the others are free, or spent, again.
    pub(crate) fn put_moved(&mut self, frame: FrameNumber, n: usize, moved: usize) {
        for (i, frame) in frame.run(n).enumerate() {
            let kind = if i < moved {
                Kind::Unbacked
            } else {
                Kind::Free
            };
            self.put(frame, kind, None);
        }
    }

    /// Queues the page in a frame for writeback, behind those that wait already.
    pub(crate) fn queue_writeback(&mut self, frame: FrameNumber, page: PageNumber) {
        self.put(frame, Kind::PendingWriteback, page);
        self.pending.push_back(frame);
    }

    /// Returns how many frames wait for writeback, at most.
    pub(crate) fn pending_writeback(&self) -> usize {
        self.pending.len()
    }

    /// Takes the frame that has waited longest for writeback. It keeps the kind
    /// `PendingWriteback` until it is given another.
    pub(crate) fn take_pending(&mut self) -> Option<FrameNumber> {
        // A frame may have left the queue and come back, so that it is in the queue twice.
        // Once it has another kind, the second place is skipped.
        loop {
            let frame = self.pending.pop_front()?;
            if self.kind(frame) == Kind::PendingWriteback {
                return Some(frame);
            }
        }
    }

    /// Puts a frame that was taken back to the front of the writeback queue.
    pub(crate) fn put_back_pending(&mut self, frame: FrameNumber) {
        self.put(frame, Kind::PendingWriteback, self.page(frame));
        self.pending.push_front(frame);
    }

    /// Ends the program unless a frame has the kind that the request which used it expects.
    /// Otherwise one page could be taken for another.
    pub(crate) fn must_be(&self, frame: FrameNumber, kind: Kind) {
        if self.kind(frame) != kind {
            crate::sys::say::die(
                "a defect of tmem: a frame is not what it was taken for; the program is ended \
                 before it reads wrong data",
            );
        }
    }

    /// Returns the page that is on standby for longest, with its frame.
    pub(crate) fn oldest(&self) -> Option<(FrameNumber, PageNumber)> {
        let frame = self.oldest?;
        Some((frame, self.page(frame)?))
    }

    /// Iterates over the standby list, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (FrameNumber, PageNumber)> {
        let older = move |frame: &FrameNumber| self.frames[frame.index()].older;
        core::iter::successors(self.newest, older)
            .filter_map(|frame| Some((frame, self.page(frame)?)))
    }

    fn link(&mut self, frame: FrameNumber) {
        let newest = self.newest;
        let f = &mut self.frames[frame.index()];
        (f.older, f.newer) = (newest, None);
        match newest {
            None => self.oldest = Some(frame),
            Some(newest) => self.frames[newest.index()].newer = Some(frame),
        }
        self.newest = Some(frame);
        self.standby += 1;
    }

    fn unlink(&mut self, frame: FrameNumber) {
        let Frame { older, newer, .. } = self.frames[frame.index()];
        match older {
            None => self.oldest = newer,
            Some(older) => self.frames[older.index()].newer = newer,
        }
        match newer {
            None => self.newest = older,
            Some(newer) => self.frames[newer.index()].older = older,
        }
        self.standby -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u64) -> PageNumber {
        PageNumber::new(number)
    }

    #[test]
    fn pages_leave_standby_in_the_order_they_came_unless_taken() {
        let mut pool = Pool::new(64).unwrap();
        let (first, n) = pool.take_holes(4).unwrap();
        assert_eq!(n, 4);
        for i in 0..4 {
            pool.put(first + i, Kind::Standby, page(100 + i as u64));
        }
        assert_eq!((pool.standby(), pool.populated()), (4, 4));
        pool.put(first + 1, Kind::Unbacked, None);
        pool.put(first, Kind::Free, None);
        assert_eq!(pool.oldest(), Some((first + 2, page(102))));
        pool.put(first + 3, Kind::Writeback, page(103));
        pool.put(first + 2, Kind::Free, None);
        assert_eq!(pool.oldest(), None);
        pool.put(first + 3, Kind::Standby, page(103));
        assert_eq!(pool.oldest(), Some((first + 3, page(103))));
        assert_eq!((pool.free(), pool.standby(), pool.populated()), (2, 1, 3));
        assert_eq!(pool.spent(), 0);
        pool.put(first, Kind::Standby, page(100));
        let all: std::vec::Vec<_> = pool.newest_first().collect();
        assert_eq!(all, [(first, page(100)), (first + 3, page(103))]);
    }

    #[test]
    fn a_lent_frame_is_never_free_before_its_memory_was_given_back() {
        let mut pool = Pool::new(64).unwrap();
        let (first, _) = pool.take_holes(3).unwrap();
        pool.put(first, Kind::Standby, page(7));
        pool.set_lent(first);
        pool.put(first + 1, Kind::ReadIn, page(8));
        pool.put(first + 2, Kind::Free, None);
        pool.put(first, Kind::Free, None);
        assert_eq!((pool.free(), pool.spent(), pool.populated()), (1, 1, 3));
        pool.set_all_lent();
        assert_eq!((pool.free(), pool.spent()), (0, 2));
        assert!(pool.take_free(1).is_none());
        // This frame was being read into, so it was written by then.
        pool.put(first + 1, Kind::Free, None);
        assert_eq!((pool.free(), pool.spent()), (1, 2));
        while let Some((frame, n)) = pool.take_spent(1) {
            pool.put_moved(frame, n, n);
        }
        assert_eq!((pool.spent(), pool.populated()), (0, 1));
        // A frame with new memory is not lent.
        let (again, _) = pool.take_holes(1).unwrap();
        pool.put(again, Kind::Free, None);
        assert_eq!(pool.free(), 2);
    }
}
