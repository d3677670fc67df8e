//! Reads pages from servers: those that threads wait for, and those that they
//! will want next.

use crate::engine::fault::{Fault, Stop};
use crate::engine::servers::requests::{Op, Read};
use crate::engine::{Again, Engine};
use crate::net::{At, Lane, RequestError};
use crate::pages::{Page, State};
use crate::pool::Kind;
use crate::slots::Slot;
use crate::sys::{mem, now_ns};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::readahead;

/// The most pages of one read ahead: the first can be used while the others
/// are still on their way, and those of one are put into the program by one move.
const READ_AHEAD: usize = crate::pool::RUN_FRAMES;

/// Pages that are neighbours, in frames that are.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    page: u64,
    frame: u32,
    n: usize,
}

impl Run {
    /// Adds a page at either end, if it belongs there.
    fn add(&mut self, page: u64, frame: u32) -> bool {
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

impl Engine {
    /// The fault's page is on a server.
    pub(crate) fn demand(&mut self, fault: &Fault, entry: &Page) -> Result<(), Again> {
        let Some((frame, _)) = self.take_frames(1, true) else {
            return Err(Again::Memory);
        };
        let hot = self.refault.is_hot(entry.epoch);
        self.pages.update(fault.page, |p| p.hot = hot);
        if self.unpack_copy(fault, entry, frame) {
            // SAFETY: a frame on standby, which nobody writes to.
            let bytes = unsafe { mem::page(self.pool.addr(frame)) };
            self.note_pointer_page(fault.page, bytes);
            return self.give(fault, frame, true);
        }
        let Some(slot) = entry.slot else {
            // Its server was lost, and its copy is gone.
            self.lose(fault.page, frame);
            return self.poison(fault);
        };
        self.pages.update(fault.page, |p| p.wanted = true);
        let prompt = self.pace.asks(fault.read_ns);
        self.net.set_prompt(prompt);
        self.read(&[(fault.page, slot, frame)], fault.read_ns, 0);
        self.net.set_prompt(false);
        self.fetch_ahead(fault);
        self.fetch_behind(fault);
        self.follow_pointers(fault, true);
        Ok(())
    }

    /// Fetches the page behind one that was missed in no order, if what was missed is
    /// likely to end there.
    fn fetch_behind(&mut self, fault: &Fault) {
        let next = fault.page + 1;
        if fault.window().count == 0
            && self
                .straddle
                .missed(fault.tid, fault.at, self.is_elsewhere(next))
        {
            self.fetch_pages(&[next], 0);
        }
    }

    /// Fetches what a thread will want next, and leaves one page of it out of
    /// the program, so that touching it asks for more.
    pub(crate) fn fetch_ahead(&mut self, fault: &Fault) {
        let window = fault.window();
        // Never at the price of what is on its way out.
        let room = (self.pool.free() + self.pool.standby()) / 2;
        // Nor are pages to leave again before they are used.
        let most = room.min(self.most_ahead());
        let count = i64::from(window.count).min(most as i64);
        if count < i64::from(window.count) {
            self.prefetch.cut(fault.tid, window, count as u32);
        }
        self.note_read(fault.tid, window, count as u32);
        let mut pages: Vec<(i64, u64)> = (0..count)
            .filter_map(|i| Some((i, window.page(i)?)))
            .filter(|(_, page)| self.is_elsewhere(*page))
            .collect();
        let late = |p: &&(i64, u64)| p.0 >= count * 3 / 4;
        let marker = pages.iter().find(late).or(pages.last()).map_or(0, |p| p.1);
        // What lies together left together, in ascending order.
        if window.stride < 0 {
            pages.chunks_mut(READ_AHEAD).for_each(<[_]>::reverse);
        }
        let pages: Vec<u64> = pages.into_iter().map(|p| p.1).collect();
        self.fetch_pages(&pages, marker);
    }

    /// Fetches pages ahead, each once, and leaves the one that is the marker out of the
    /// program.
    pub(crate) fn fetch_pages(&mut self, pages: &[u64], marker: u64) {
        let mut run: Vec<(u64, Slot)> = Vec::new();
        let mut resting = Run::default();
        for &page in pages {
            // Frames may have been reclaimed on the way here.
            let entry = self.pages.get(page);
            match (entry.state, entry.slot) {
                (State::Pooled(_), _) if page == marker => {
                    self.pages.update(page, |p| p.ahead = true);
                }
                (State::Pooled(frame), _) => {
                    if !matches!(self.pool.kind(frame), Kind::Standby | Kind::Unplaced) {
                        continue;
                    }
                    if !resting.add(page, frame) {
                        self.install_resting(&mut resting);
                        // What is named twice was among these.
                        if self.pages.get(page).state == entry.state {
                            resting.add(page, frame);
                        }
                    }
                }
                (State::Remote, Some(slot)) => {
                    self.install_resting(&mut resting);
                    let follows = run.last().is_none_or(|(_, last)| last.is_before(slot));
                    let sends = !follows || run.len() >= READ_AHEAD;
                    if sends && !self.read_ahead(&mut run, marker) {
                        break;
                    }
                    // What is named twice was among these, and is not to be read into two
                    // frames.
                    if !sends || self.pages.get(page).state == State::Remote {
                        run.push((page, slot));
                    }
                }
                _ => {}
            }
        }
        self.install_resting(&mut resting);
        self.read_ahead(&mut run, marker);
    }

    /// The most pages that are fetched ahead of a thread at a time.
    pub(crate) fn most_ahead(&self) -> usize {
        let evictable = self.queue.pages() as usize;
        readahead::longest_window(self.budget.evict, self.resident(), evictable)
    }

    /// Asks for a run of slots, for as many of them as there are frames; whether
    /// there were for all.
    fn read_ahead(&mut self, run: &mut Vec<(u64, Slot)>, marker: u64) -> bool {
        let mut reads = Vec::with_capacity(run.len());
        let mut left = &run[..];
        while !left.is_empty() {
            let Some((frame, n)) = self.take_frames(left.len(), false) else {
                break;
            };
            let (now, later) = left.split_at(n);
            for (&(page, slot), frame) in now.iter().zip(frame..) {
                self.pages.update(page, |p| p.ahead = true);
                reads.push((page, slot, frame));
            }
            left = later;
        }
        let all = left.is_empty();
        run.clear();
        self.read(&reads, 0, marker);
        all
    }

    /// Puts pages that rest in the pool into the program, ahead of their use.
    fn install_resting(&mut self, run: &mut Run) {
        let Run { page, frame, n } = core::mem::take(run);
        if n > 0 {
            // What stops it shows when the page is touched.
            let _ = self.install(page, frame, n);
        }
    }

    /// Asks for a run of slots that follow one another.
    fn read(&mut self, run: &[(u64, Slot, u32)], asked_ns: u64, marker: u64) {
        if asked_ns == 0 {
            let ahead = &self.figures.prefetched_pages;
            ahead.fetch_add(run.len() as u64, Relaxed);
        }
        self.ask_for(run, asked_ns, marker, 0);
    }

    /// The same, after so many tries.
    pub(crate) fn ask_for(
        &mut self,
        run: &[(u64, Slot, u32)],
        asked_ns: u64,
        marker: u64,
        tries: u8,
    ) {
        let Some(&(_, slot, _)) = run.first() else {
            return;
        };
        for &(page, _, frame) in run {
            self.pool.put(frame, Kind::Fetching, page);
            self.pages
                .update(page, |p| p.state = State::Fetching(frame));
        }
        let frames: Vec<u32> = run.iter().map(|r| r.2).collect();
        let addrs: Vec<usize> = frames.iter().map(|f| self.pool.addr(*f)).collect();
        let server = slot.server();
        let token = self.ops.add(Op::Read(Read {
            frames,
            marker,
            asked_ns,
            server,
            tries,
        }));
        let (slab, page) = self.slots.address(slot).unwrap_or((u32::MAX, 0));
        let at = At { server, slab, page };
        // SAFETY: frames of kind `Fetching` are used by nobody until the read
        // has ended.
        unsafe { self.net.read(Lane::Demand, token, at, &addrs) };
    }

    /// A read has ended.
    pub(crate) fn fetched(&mut self, read: &Read, result: Result<(), RequestError>) {
        if let Err(error) = result {
            return self.not_fetched(read, error);
        }
        let fetched = &self.figures.fetched_pages;
        fetched.fetch_add(read.frames.len() as u64, Relaxed);
        let mut wrong = Vec::new();
        let mut run = Run::default();
        for &frame in &read.frames {
            self.must_be(frame, Kind::Fetching);
            let page = self.pool.page(frame);
            if page == 0 {
                // Given up by the program in the meantime.
                self.pool.put(frame, Kind::Free, 0);
                continue;
            }
            let entry = self.pages.get(page);
            // SAFETY: the read has ended, and nobody else knows the frame.
            let bytes = unsafe { mem::page(self.pool.addr(frame)) };
            if self.digester.digest(bytes, None) != entry.hash {
                wrong.push(frame);
                continue;
            }
            if read.asked_ns > 0 {
                self.note_pointer_page(page, bytes);
            }
            self.pages.update(page, |p| p.state = State::Pooled(frame));
            if self.leave_slow(entry.slot) {
                self.pages.update(page, |p| p.slot = None);
                self.unplace(frame, page);
            } else if entry.slot.is_some() {
                self.pool.put(frame, Kind::Standby, page);
            } else {
                // Its server was given up while the answer was on its way.
                self.unplace(frame, page);
            }
            if page == read.marker && !entry.wanted {
                continue;
            }
            if !run.add(page, frame) {
                self.install_fetched(run);
                run = Run { page, frame, n: 1 };
            }
        }
        self.install_fetched(run);
        if read.asked_ns > 0 {
            let took = now_ns().saturating_sub(read.asked_ns);
            self.pace.answered(took);
            self.copies.seen.asked.add(took);
            self.net.waited_for(read.server, took);
            self.served_one = true;
            self.served(read.asked_ns);
        }
        if !wrong.is_empty() {
            self.fetch_again(read, &wrong, Some("it answered with other bytes"), true);
        }
    }

    /// Puts fetched pages into the program.
    fn install_fetched(&mut self, run: Run) {
        let Run { page, frame, n } = run;
        let mut done = 0;
        while done < n {
            let (moved, stop) = self.install(page + done as u64, frame + done as u32, n - done);
            done += moved;
            let Some(stop) = stop else { continue };
            let at = page + done as u64;
            if stop == Stop::Again {
                // They rest in the pool. Who waits is served from there.
                for number in at..page + n as u64 {
                    if self.pages.get(number).wanted {
                        self.recall(number);
                    }
                }
                return;
            }
            self.not_installed(at, stop);
            done += 1;
        }
    }

    /// A page cannot be had back from its server, and is lost if there is no copy of it.
    pub(crate) fn lose(&mut self, page: u64, frame: u32) {
        let mut entry = self.pages.get(page);
        self.free_slot(entry.slot.take());
        self.pages.set(page, &entry);
        let wanted = entry.wanted;
        if self.restore(page, &entry, frame).is_some() {
            if wanted {
                self.recall(page);
            }
            return;
        }
        self.pool.put(frame, Kind::Free, 0);
        entry.state = State::Lost;
        entry.wanted = false;
        self.pages.set(page, &entry);
        // Before it counts as gone: a child that is forked must not take it for
        // one that never was.
        self.lost_some(1);
        self.count_remote(-1);
        if wanted {
            // Who waits comes again and is told.
            self.kernel
                .wake(crate::engine::fault::addr(page), tmem_wire::PAGE_SIZE);
        }
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
