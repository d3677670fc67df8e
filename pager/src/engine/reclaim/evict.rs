//! Evicts pages from the program.

use crate::engine::calls::accesses::wait_for_accesses;
use crate::engine::fork;
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::{Again, sure};
use crate::engine::reclaim::Reclaim;
use crate::net::Lane;
use crate::pages::State;
use crate::pool::{Kind, RUN_FRAMES};
use crate::sys::{mem, now_ns};
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_policy::eviction::{Run, Segment};
use tmem_wire::PAGE_SIZE;

/// The longest time for one round of evictions: copying and zapping may take long, and
/// faults have to be served. The second is for when a thread waits.
const TURN_NS: u64 = 1_000_000;
const WAITED_FOR_NS: u64 = 100_000;

impl Reclaim {
    /// Evicts about `want` pages. Returns whether an event has to be read before more can
    /// leave.
    pub(crate) fn evict(&mut self, m: &mut Memory, want: usize) -> bool {
        m.space.check_discards(m.mover.kernel());
        m.follow_advice();
        if self.lending.are_unknown() {
            self.lending.look_for_code(m);
        }
        let is_waited_for = m.backing.net.outstanding(Lane::Demand) > 0 || !m.faults.is_empty();
        let turn = if is_waited_for {
            WAITED_FOR_NS
        } else {
            TURN_NS
        };
        let until = now_ns() + turn;
        let mut got = match self.evict_retried(m, want, until) {
            Ok(got) => got,
            Err(why) => {
                return why == Again::Event;
            }
        };
        // Pages that cannot be evicted now go to the end of the queue. The limit keeps them
        // from being tried over and over.
        let mut looks = want * 4 + RUN_FRAMES;
        while got < want && looks > 0 && now_ns() < until {
            let Some((run, place)) = m.queue.pop() else {
                break;
            };
            looks = looks.saturating_sub(run.n as usize);
            let (mut at, end) = (run.first, run.end());
            if let Err(why) = self.evict_all_of(m, &mut at, end, Some(run.generation), &mut got) {
                let rest = Run {
                    first: at,
                    n: (end - at) as u32,
                    ..run
                };
                m.queue.put_back(rest, place);
                return why == Again::Event;
            }
        }
        false
    }

    /// Evicts up to `want` pages of the retry list, if a try is due, until the time
    /// `until`. Returns how many left.
    fn evict_retried(&mut self, m: &mut Memory, want: usize, until: u64) -> Result<usize, Again> {
        let now = now_ns();
        let most = self.retry.due(now).min(want);
        let (mut tried, mut left) = (0, 0);
        let mut result = Ok(());
        while tried < most && result.is_ok() && (tried == 0 || now_ns() < until) {
            let Some((first, n)) = self.retry.pop(RUN_FRAMES.min(most - tried)) else {
                break;
            };
            tried += n as usize;
            let (mut at, end) = (first, first + n as usize);
            result = self.evict_all_of(m, &mut at, end, None, &mut left);
            if result.is_err() {
                self.retry.push(at, (end - at) as u32);
            }
        }
        if tried > 0 {
            self.retry.tried(now, tried, left);
        }
        result.map(|()| left)
    }

    /// Evicts the pages from `at` up to `end`, as far as they may leave, and adds the
    /// number that left to `got`. On an error `at` is the first page to be tried again.
    fn evict_all_of(
        &mut self,
        m: &mut Memory,
        at: &mut PageNumber,
        end: PageNumber,
        generation: Option<u8>,
        got: &mut usize,
    ) -> Result<(), Again> {
        while *at < end {
            let len = self.evictable(m, *at, end, generation);
            if len > 0 {
                self.evict_run(m, *at, len, got)?;
            }
            *at = *at + len.max(1);
        }
        Ok(())
    }

    /// Counts the pages from `at` up to `end` that can be tried together. With a
    /// `generation`, only pages that were queued in it count.
    fn evictable(
        &mut self,
        m: &mut Memory,
        at: PageNumber,
        end: PageNumber,
        generation: Option<u8>,
    ) -> usize {
        // A fork would miss pages of memory that is registered but not adopted.
        let Some(adopted) = m.space.adopted().around(addr(at)) else {
            m.pages.update(at, |p| p.queued = false);
            return 0;
        };
        let end = end.min(crate::engine::memory::address::page(adopted.end));
        let mut n = 0;
        for page in at.until(end) {
            let entry = m.pages.get(page);
            let is_its =
                entry.queued && generation.is_none_or(|generation| entry.generation == generation);
            if entry.state != State::Local || !is_its || m.must_stay(page) {
                break;
            }
            if m.space.is_discarded(addr(page)) {
                if n == 0 {
                    self.retry.push(page, 1);
                }
                break;
            }
            n += 1;
        }
        n
    }

    /// Evicts `n` neighbouring pages, and adds the number that left to `left`, also on an
    /// error.
    pub(crate) fn evict_run(
        &mut self,
        m: &mut Memory,
        page: PageNumber,
        n: usize,
        left: &mut usize,
    ) -> Result<(), Again> {
        if m.mover.copies() {
            *left += self.evict_by_zap(m, page, n)?;
            return Ok(());
        }
        let mut done = 0;
        // The kernel moves pages of one mapping per call.
        let mut most = n;
        // The kernel has refused the next page: by way of the transit, and directly.
        let mut refused = (false, false);
        let mut unshared = false;
        while done < n {
            let from = addr(page) + done * PAGE_SIZE;
            let by_transit = m.mover.is_executable(from);
            let want = if by_transit {
                most.min(n - done).min(crate::engine::memory::transit::MOST)
            } else {
                most.min(n - done)
            };
            let Some((frame, got)) = m.pool.take_holes(want) else {
                return Err(Again::Memory);
            };
            let to = m.pool.addr(frame);
            // The pool belongs to the same userfaultfd as the program's memory. So the
            // kernel refuses the move while an event is outstanding. Otherwise it moves
            // exactly the pages that the engine expects there.
            let len = got * PAGE_SIZE;
            mem::prefetch(from);
            let t = if by_transit {
                m.mover.move_by_transit(to, from, len)
            } else {
                sure(m.mover.kernel().move_to_holes(to, from, len))
            };
            let moved = t.done / PAGE_SIZE;
            wait_for_accesses(&(from..from + t.done));
            // The check must come after the move: whatever was lent before the move was
            // announced by now.
            if self.lending.has_lent() {
                frame.run(moved).for_each(|frame| m.pool.set_lent(frame));
            }
            for i in 0..moved {
                let next = (i + 1 < moved).then(|| to + (i + 1) * PAGE_SIZE);
                self.classify_evicted(m, page + done + i, frame + i, next);
            }
            *left += moved;
            (moved..got).for_each(|i| m.pool.put(frame + i, Kind::Unbacked, None));
            done += moved;
            if moved > 0 || t.stopped.is_none() {
                most = n;
                refused = (false, false);
                continue;
            }
            match t.stopped {
                Some(Errno::AGAIN) => return Err(Again::Event),
                Some(Errno::NOENT | Errno::SRCH) => {
                    // The program has given the page up, or never touched it. Or it is not
                    // mapped any more, and the event is on its way.
                    m.pages.update(page + done, |p| p.queued = false);
                }
                Some(Errno::INVAL) if got > 1 => {
                    most = got / 2;
                    continue;
                }
                // The page is not writable, or locked, or executable.
                Some(Errno::INVAL) => {
                    let first = page + done;
                    let alike = m.mover.within_one_mapping(first, n - done)?;
                    let range = from..from + alike * PAGE_SIZE;
                    refused = (refused.0 || by_transit, refused.1 || !by_transit);
                    m.mover.note_executable(range, !refused.0);
                    if refused != (true, true) {
                        continue;
                    }
                    refused = (false, false);
                    let events = m.space.changes();
                    *left += self.evict_by_zap(m, first, alike)?;
                    done += alike;
                    if m.space.changes() != events {
                        // Another mapping may be there now.
                        m.enqueue_again(page + done, n - done, Segment::Small);
                        return Ok(());
                    }
                    most = n;
                    continue;
                }
                // The page is pinned, or shared with a child or the parent, or merged.
                Some(Errno::BUSY) if !unshared && fork::state::may_share() => {
                    unshared = true;
                    let events = m.space.changes();
                    self.unshare(m, addr(page) + done * PAGE_SIZE..addr(page) + n * PAGE_SIZE);
                    if m.space.changes() == events {
                        continue;
                    }
                    // Another mapping may be there now.
                    m.enqueue_again(page + done, n - done, Segment::Small);
                    return Ok(());
                }
                _ => self.retry.push(page + done, 1),
            }
            done += 1;
        }
        Ok(())
    }

    /// Puts the pages of the retry list back into the queue, from time to time.
    pub(crate) fn requeue_retried(&mut self, m: &mut Memory, now: u64) {
        if !self.retry.are_all_due(now) {
            return;
        }
        while let Some((first, n)) = self.retry.pop(usize::MAX) {
            m.enqueue_again(first, n as usize, Segment::Main);
        }
    }
}
