//! Fills memory that the program touches for the first time.

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::faults::Fault;
use crate::engine::memory::outcome::{Again, sure};
use crate::engine::reclaim::Reclaim;
use crate::pages::{Page, State};
use crate::sys::mem;
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_policy::zero_fill::ZeroFillAhead;
use tmem_wire::PAGE_SIZE;

/// Fills pages with zeros, ahead of threads that touch new memory in order.
#[derive(Debug, Default)]
pub(crate) struct ZeroFill {
    ahead: ZeroFillAhead,
}

impl ZeroFill {
    /// Fills a page that was never touched, or whose contents the program has discarded.
    pub(crate) fn zero_fill(
        &mut self,
        m: &mut Memory,
        reclaim: &mut Reclaim,
        fault: &mut Fault,
    ) -> Result<(), Again> {
        let start = addr(fault.page);
        let n = match fault.fill {
            0 => self.ahead.size(fault.page),
            n => n,
        };
        fault.fill = n;
        let mut n = untouched(m, fault.page, n);
        if fault.write && !m.mover.copies() && !m.mover.is_executable(start) {
            return self.fill_with_frames(m, reclaim, fault, n);
        }
        if fault.write && reclaim.must_wait(m) {
            return Err(Again::Memory);
        }
        let t = loop {
            let kernel = m.mover.kernel();
            let t = kernel.zero_pages(start, n * PAGE_SIZE, fault.write);
            // The kernel fills only one mapping per call. To wake the thread here, so that
            // it faults again, would not end: other threads that touch the next pages would
            // have lengthened the stream by then.
            if t.stopped != Some(Errno::NOENT) || n == 1 {
                break t;
            }
            n /= 2;
        };
        let done = t.done / PAGE_SIZE;
        m.note_zeros(fault.page, done);
        if fault.write {
            // Each of these pages gets memory when it is written, which is soon.
            m.residency.count_put(done as i64);
        } else if done > 0 {
            // The zeros are write-protected: a program that reads before it writes would
            // otherwise gain memory without a fault. If an event blocks the call, these
            // pages go unprotected.
            let _ = m.mover.kernel().protect(start, done * PAGE_SIZE);
            m.mover.kernel().wake(start, done * PAGE_SIZE);
        }
        self.ahead.filled(fault.page, fault.fill, done.max(1));
        match t.stopped {
            Some(Errno::AGAIN) if done == 0 => return Err(Again::Event),
            Some(_) if done == 0 => m.mover.kernel().wake(start, PAGE_SIZE),
            _ => {}
        }
        m.report.served(fault.read_ns);
        Ok(())
    }

    /// Unprotects zeros that so far were only read and now need memory, or a page that was
    /// about to be copied.
    pub(crate) fn unprotect(
        &mut self,
        m: &mut Memory,
        reclaim: &mut Reclaim,
        fault: &mut Fault,
    ) -> Result<(), Again> {
        if reclaim.must_wait(m) {
            return Err(Again::Memory);
        }
        if fault.fill == 0 {
            fault.fill = self.ahead.size(fault.page);
        }
        let room = m.residency.marks().throttle.saturating_sub(m.resident());
        let mut n = local(m, fault.page, fault.fill.min(room.max(1)));
        let unprotected = loop {
            match m.mover.kernel().unprotect(addr(fault.page), n * PAGE_SIZE) {
                // Older kernels, such as 6.1, unprotect only one mapping per call.
                Err(Errno::NOENT) if n > 1 => n /= 2,
                result => break result,
            }
        };
        match unprotected {
            Err(Errno::AGAIN) => return Err(Again::Event),
            // The page is not mapped any more. The thread finds out when it goes on.
            Err(_) => m.mover.kernel().wake(addr(fault.page), PAGE_SIZE),
            Ok(()) => m.residency.count_put(n as i64),
        }
        self.ahead.filled(fault.page, fault.fill, n);
        m.report.served(fault.read_ns);
        Ok(())
    }

    /// Moves zeroed frames into the program, so that the kernel allocates nothing.
    fn fill_with_frames(
        &mut self,
        m: &mut Memory,
        reclaim: &mut Reclaim,
        fault: &Fault,
        n: usize,
    ) -> Result<(), Again> {
        let mut done = 0;
        while done < n {
            let Some((frame, got)) = reclaim.take_frames(m, n - done, done == 0) else {
                if done == 0 {
                    return Err(Again::Memory);
                }
                break;
            };
            for frame in frame.run(got) {
                // SAFETY: frames that were just taken belong to nobody else.
                unsafe { mem::zero_page(m.pool.addr(frame)) };
            }
            let to = addr(fault.page) + done * PAGE_SIZE;
            let src = m.pool.addr(frame);
            let len = got * PAGE_SIZE;
            let t = m.mover.kernel().move_present(to, src, len);
            let t = sure(t);
            let moved = t.done / PAGE_SIZE;
            m.pool.put_moved(frame, got, moved);
            m.note_zeros(fault.page + done, moved);
            m.residency.count_put(moved as i64);
            done += moved;
            if moved < got {
                match t.stopped {
                    Some(Errno::AGAIN) if done == 0 => return Err(Again::Event),
                    Some(Errno::INVAL) if done == 0 => {
                        // The page is not writable any more, so zeros for reading are
                        // enough.
                        let t = m.mover.kernel().zero_pages(to, PAGE_SIZE, true);
                        match t.stopped {
                            Some(Errno::AGAIN) => return Err(Again::Event),
                            Some(_) => m.mover.kernel().wake(to, PAGE_SIZE),
                            None => m.note_zeros(fault.page, 1),
                        }
                    }
                    _ if done == 0 => m.mover.kernel().wake(to, PAGE_SIZE),
                    _ => {}
                }
                break;
            }
        }
        self.ahead.filled(fault.page, fault.fill, done.max(1));
        m.report.served(fault.read_ns);
        Ok(())
    }
}

/// Counts up to `most` pages from `page` on that were never touched, as far as is known.
/// Returns at least 1, for the first.
fn untouched(m: &mut Memory, page: PageNumber, most: usize) -> usize {
    alike(m, page, most, |p| p.state == State::Local && !p.queued)
}

/// Counts up to `most` pages from `page` on that are only in the program. Returns at least
/// 1, for the first.
fn local(m: &mut Memory, page: PageNumber, most: usize) -> usize {
    alike(m, page, most, |p| p.state == State::Local)
}

/// Counts up to `most` pages from `page` on that are adopted and satisfy `fit`. Returns at
/// least 1, for the first.
fn alike(m: &mut Memory, page: PageNumber, most: usize, fit: impl Fn(&Page) -> bool) -> usize {
    let Some(range) = m.space.adopted().around(addr(page)) else {
        // A mapping grew or was moved: the list of mappings has to be read.
        m.space.set_stale(true);
        return 1;
    };
    let most = most.min(PageNumber::containing(range.end) - page);
    page.run(most)
        .skip(1)
        .find(|p| !fit(&m.pages.get(*p)))
        .map_or(most, |p| p - page)
}
