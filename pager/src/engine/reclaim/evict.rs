//! Takes pages out of the program.

use crate::engine::calls::mem_file::wait_for_accesses;
use crate::engine::fault::{addr, sure};
use crate::engine::{Again, Engine};
use crate::net::Lane;
use crate::pages::State;
use crate::pool::{Kind, RUN_FRAMES};
use crate::sys::{mem, now_ns};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use tmem_policy::eviction::{Run, Segment};
use tmem_policy::standby::StandbySample;
use tmem_wire::PAGE_SIZE;

/// After so long it is looked at faults, and at how much is resident, before more
/// is evicted: what has to be zapped, or copied first, may take long; and while a
/// thread waits.
const TURN_NS: u64 = 1_000_000;
const WAITED_FOR_NS: u64 = 100_000;

impl Engine {
    /// Takes about `want` pages out of the program.
    pub(crate) fn evict(&mut self, want: usize) {
        self.look_at_doomed();
        self.follow_asks();
        if self.lenders.are_unknown() {
            self.look_for_code();
        }
        let is_waited_for = self.net.outstanding(Lane::Demand) > 0 || !self.faults.is_empty();
        let turn = if is_waited_for {
            WAITED_FOR_NS
        } else {
            TURN_NS
        };
        let until = now_ns() + turn;
        let mut got = match self.evict_stubborn(want, until) {
            Ok(got) => got,
            Err(why) => {
                self.waited.for_event |= why == Again::Event;
                return;
            }
        };
        // What cannot be evicted now goes to the queue's end; it is not to be
        // looked at over and over.
        let mut looks = want * 4 + RUN_FRAMES;
        while got < want && looks > 0 && now_ns() < until {
            let Some((run, place)) = self.queue.pop() else {
                return;
            };
            looks = looks.saturating_sub(run.n as usize);
            let (mut at, end) = (run.first, run.end());
            if let Err(why) = self.evict_all_of(&mut at, end, Some(run.generation), &mut got) {
                self.waited.for_event |= why == Again::Event;
                let rest = Run {
                    first: at,
                    n: (end - at) as u32,
                    ..run
                };
                self.queue.put_back(rest, place);
                return;
            }
        }
    }

    /// Evicts what can be tried of the pages from `at` on, before `end`, and adds to `got`
    /// how many left. Where it has to stop, `at` is the first that is to be tried again.
    pub(crate) fn evict_all_of(
        &mut self,
        at: &mut u64,
        end: u64,
        generation: Option<u8>,
        got: &mut usize,
    ) -> Result<(), Again> {
        while *at < end {
            let len = self.evictable(*at, end, generation);
            if len > 0 {
                self.evict_run(*at, len, got)?;
            }
            *at += len.max(1) as u64;
        }
        Ok(())
    }

    /// How many pages from `at` on, before `end`, that were queued at `generation`, if that
    /// is known, can be tried together.
    fn evictable(&mut self, at: u64, end: u64, generation: Option<u8>) -> usize {
        // What is registered and not adopted would be missed by a fork.
        let Some(adopted) = self.adopted.around(addr(at)) else {
            self.pages.update(at, |p| p.queued = false);
            return 0;
        };
        let end = end.min(crate::engine::memory::events::page(adopted.end));
        let mut n = 0;
        for page in at..end {
            let entry = self.pages.get(page);
            let is_its =
                entry.queued && generation.is_none_or(|generation| entry.generation == generation);
            if entry.state != State::Local || !is_its || self.must_stay(page) {
                break;
            }
            if self.doomed.around(addr(page)).is_some() {
                if n == 0 {
                    self.stubborn.push(page, 1);
                }
                break;
            }
            n += 1;
        }
        n
    }

    /// Evicts pages that lie together, and adds to `left` how many left, also where it has
    /// to stop before the end.
    pub(crate) fn evict_run(&mut self, page: u64, n: usize, left: &mut usize) -> Result<(), Again> {
        if self.copying {
            *left += self.evict_by_zap(page, n)?;
            return Ok(());
        }
        let mut done = 0;
        // The kernel moves what lies in one mapping.
        let mut most = n;
        // It has refused the next page as one that is executable, and as any other.
        let mut refused = (false, false);
        let mut unshared = !crate::engine::fork::has_been() && self.settings.inherit.is_none();
        while done < n {
            let from = addr(page) + done * PAGE_SIZE;
            let by_transit = self.is_executable(from);
            let want = if by_transit {
                most.min(n - done).min(crate::engine::memory::transit::MOST)
            } else {
                most.min(n - done)
            };
            let Some((frame, got)) = self.pool.take_holes(want) else {
                return Err(Again::Memory);
            };
            let to = self.pool.addr(frame);
            // The pool belongs to the same userfaultfd as the program's
            // memory: the kernel refuses while a change of the address space
            // has not been read, so what moves is what this engine thinks.
            let len = got * PAGE_SIZE;
            mem::prefetch(from);
            let t = if by_transit {
                self.move_by_transit(to, from, len)
            } else {
                sure(self.kernel.move_to_holes(to, from, len))
            };
            let moved = t.done / PAGE_SIZE;
            wait_for_accesses(&(from..from + t.done));
            // Only after the move: what was lent before it has been told of by now.
            if self.has_lent() {
                (0..moved as u32).for_each(|i| self.pool.set_lent(frame + i));
            }
            for i in 0..moved {
                let next = (i + 1 < moved).then(|| to + (i + 1) * PAGE_SIZE);
                self.settle(page + (done + i) as u64, frame + i as u32, next);
            }
            *left += moved;
            (moved as u32..got as u32).for_each(|i| self.pool.put(frame + i, Kind::Hole, 0));
            done += moved;
            if moved > 0 || t.stopped.is_none() {
                most = n;
                refused = (false, false);
                continue;
            }
            match t.stopped {
                Some(Errno::AGAIN) => return Err(Again::Event),
                Some(Errno::NOENT | Errno::SRCH) => {
                    // Given up by the program, or never touched; or not mapped
                    // any more, and the event is on its way.
                    self.pages.update(page + done as u64, |p| p.queued = false);
                }
                Some(Errno::INVAL) if got > 1 => {
                    most = got / 2;
                    continue;
                }
                // Not writable, or locked, or executable.
                Some(Errno::INVAL) => {
                    let first = page + done as u64;
                    let alike = self.within_one_mapping(first, n - done)?;
                    let range = from..from + alike * PAGE_SIZE;
                    refused = (refused.0 || by_transit, refused.1 || !by_transit);
                    self.note_executable(range, !refused.0);
                    if refused != (true, true) {
                        continue;
                    }
                    refused = (false, false);
                    let events = self.events;
                    *left += self.evict_by_zap(first, alike)?;
                    done += alike;
                    if self.events != events {
                        // What is mapped there now may be something else.
                        self.enqueue_again(page + done as u64, n - done, Segment::Small);
                        return Ok(());
                    }
                    most = n;
                    continue;
                }
                // Pinned, or shared with a child or parent.
                Some(Errno::BUSY) if !unshared => {
                    unshared = true;
                    let events = self.events;
                    self.unshare(addr(page) + done * PAGE_SIZE..addr(page) + n * PAGE_SIZE);
                    if self.events == events {
                        continue;
                    }
                    // What is mapped there now may be something else.
                    self.enqueue_again(page + done as u64, n - done, Segment::Small);
                    return Ok(());
                }
                _ => self.stubborn.push(page + done as u64, 1),
            }
            done += 1;
        }
        Ok(())
    }

    /// Whether a frame holds something, be it in the kernel's swap.
    pub(crate) fn holds(&self, frame: u32) -> bool {
        let start = self.pool.addr(frame);
        let mut held = Vec::new();
        let asked = self.kernel.occupied(start, start + PAGE_SIZE, &mut held);
        // Without an answer it counts as held.
        asked.is_err() || !held.is_empty()
    }

    /// An evicted page is in a frame: what is to become of it? `next` is the address of
    /// that which is settled next, if it is known.
    pub(crate) fn settle(&mut self, page: u64, frame: u32, next: Option<usize>) {
        self.figures.evicted_pages.fetch_add(1, Relaxed);
        self.growth.known -= 1;
        self.tick();
        let mut entry = self.pages.get(page);
        entry.queued = false;
        entry.hot = false;
        entry.epoch = self.refault.epoch();
        // SAFETY: the frame was taken, and no request uses it.
        let bytes = unsafe { mem::page(self.pool.addr(frame)) };
        if mem::is_zero(bytes) {
            self.figures.zero_evictions.fetch_add(1, Relaxed);
            self.free_slot(entry.slot.take());
            entry.state = State::Local;
            self.pages.set(page, &entry);
            self.pool.put(frame, Kind::Free, 0);
            return;
        }
        let hash = self.digester.digest(bytes, next);
        let keep = self.keeps(page, frame);
        let clean = entry.slot.is_some() && !entry.unsure && hash == entry.hash;
        // From here on only what is in the frame passes for the page: should a
        // server give back an older state of it, the hash tells.
        entry.hash = hash;
        entry.unsure = !clean;
        entry.state = State::Pooled(frame);
        self.pages.set(page, &entry);
        self.count_remote(1);
        if clean {
            self.figures.clean_evictions.fetch_add(1, Relaxed);
            self.pool.put(frame, Kind::Standby, page);
        } else {
            self.unplace(frame, page);
        }
        if keep {
            self.put_back(page, frame);
        }
    }

    fn tick(&mut self) {
        self.copies.tick();
        if let Some(left) = self.refault.evicted(self.budget.evict) {
            let seen = StandbySample {
                refaults: self.figures.standby_refaults.load(Relaxed),
                faults: self.figures.faults.load(Relaxed),
            };
            self.standby.update(self.budget.pool, left, seen);
            self.size_copies();
        }
    }

    /// Gives up `n` pages on standby: their frames are free, and touching them
    /// asks a server.
    ///
    /// While pages stream, what has just left is as unlikely to be asked for soon as
    /// any other, and its frame is still in the processor's cache. What was left out of
    /// the program to be noticed when the stream comes there is wanted.
    pub(crate) fn reclaim(&mut self, n: usize) {
        let mut left = n;
        if self.pace.streams() {
            let is_left_out = |page: u64| self.pages.get(page).ahead;
            let newest = self.pool.newest_first();
            let least_wanted = newest.filter(|(_, page)| !is_left_out(*page));
            let least_wanted: Vec<_> = least_wanted.take(n).collect();
            left -= least_wanted.len();
            for (frame, page) in least_wanted {
                self.give_up(frame, page);
            }
        }
        for _ in 0..left {
            let Some((frame, page)) = self.pool.oldest() else {
                return;
            };
            self.give_up(frame, page);
        }
    }

    /// A page on standby is on a server only from here on.
    fn give_up(&mut self, frame: u32, page: u64) {
        let copy = self.keep_copy(frame, page);
        self.pages.update(page, |p| {
            p.state = State::Remote;
            p.ahead = false;
            p.copy = copy;
        });
        self.pool.put(frame, Kind::Free, 0);
    }

    /// Gives the memory of `n` free frames back to the kernel.
    pub(crate) fn release(&mut self, n: usize) {
        let mut left = n;
        while left > 0 {
            let Some((frame, got)) = self.pool.take_free(left) else {
                return;
            };
            let gone = self.give_back(frame, got);
            if gone == 0 {
                return;
            }
            left -= gone.min(left);
        }
    }

    /// Gives the memory of all spent frames back to the kernel, which keeps what it still
    /// shows to others.
    pub(crate) fn release_spent(&mut self) {
        while let Some((frame, got)) = self.pool.take_spent(RUN_FRAMES) {
            if self.give_back(frame, got) == 0 {
                return;
            }
        }
    }

    /// Gives the memory of frames that were taken back to the kernel; of how many.
    fn give_back(&mut self, frame: u32, n: usize) -> usize {
        let start = self.pool.addr(frame);
        let len = n * PAGE_SIZE;
        let gone = match &self.bin {
            Some(bin) => {
                let t = sure(self.kernel.move_to_bin(bin.start, start, len));
                // Its pages are nobody's; what stays is given up later.
                let _ = self.kernel.discard(bin, bin.start, bin.len);
                t.done / PAGE_SIZE
            }
            None => match self.kernel.discard(&self.pool.region(), start, len) {
                Ok(()) => n,
                Err(_) => 0,
            },
        };
        self.pool.put_moved(frame, n, gone);
        gone
    }

    /// Whether pages may leave: there is, or will soon be, room for them.
    pub(crate) fn may_evict(&self) -> bool {
        self.may_evict_but_for_reads() && !(self.copying && crate::engine::exclusion::is_read())
    }

    /// The same, were nobody reading directly. Those who are about to are kept from it
    /// for that only: where nothing leaves anyway they would wait for nothing.
    pub(crate) fn may_evict_but_for_reads(&self) -> bool {
        !self.grants.full
            && !self.is_forking()
            && !self.is_held_up()
            && !crate::engine::calls::advice::others_stay()
            && self.net.any_up()
            && self.unplaced.len() < self.budget.pool
            && self.pool.holes() >= RUN_FRAMES
    }

    /// Whether nothing can be zapped for the moment.
    fn is_held_up(&self) -> bool {
        let crowded = self.crowded && crate::engine::exclusion::is_changed();
        crowded || self.copying && self.devices.write
    }

    /// Whether less memory will be resident by itself: some rests, is being
    /// written, or is about to leave. A thread waits for that; were it to wait
    /// for anything else, it could wait for ever.
    pub(crate) fn can_shrink(&self) -> bool {
        let resting = self.pool.free() + self.pool.spent() + self.pool.standby() > 0;
        let leaving = self.net.queued_bytes(Lane::Bulk) > 0
            || !self.unplaced.is_empty() && !self.grants.full && self.net.any_up();
        !self.was_up
            || resting
            || leaving
            || self.may_evict() && (self.plan().evict > 0 || self.stubborn.come_free(now_ns()))
    }
}
