//! A fault that another thread answers at once: the least cost of any pager in user space.

use std::time::{Duration, Instant};

use tmem_pager::sys::mem::Region;
use tmem_pager::sys::uffd::{Msg, REGISTER_MISSING, RawMsg, Uffd};
use tmem_pager::sys::wait::{Interest, Waiter};
use tmem_wire::PAGE_SIZE;

use super::Times;
use crate::Error;
use crate::histogram::Histogram;

/// Pages that are touched before they are emptied again.
const PAGES: usize = 256;

/// A mapping, given back when dropped.
pub(super) struct Mapped(Region);

impl Mapped {
    pub(super) fn new(pages: usize) -> Result<Mapped, Error> {
        let region = Region::new(pages * PAGE_SIZE);
        region.map(Mapped).map_err(|e| refused(e.raw_os_error()))
    }

    pub(super) fn region(&self) -> &Region {
        &self.0
    }

    /// Writes a byte to a page.
    pub(super) fn touch(&self, page: usize) {
        let at = (self.0.start + page * PAGE_SIZE) as *mut u8;
        // SAFETY: within the mapping, which is readable and writable; other
        // threads only have the kernel fill absent pages of it.
        unsafe { at.write_volatile(1) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.0.unmap();
    }
}

fn refused(code: i32) -> Error {
    Error::io("a bare userfaultfd")(std::io::Error::from_raw_os_error(code))
}

/// Has faults in a mapping reported, and what waits for them.
pub(super) fn watch(mapped: &Mapped) -> Result<(Uffd, Waiter), Error> {
    let uffd = Uffd::open(0).map_err(Error::Userfaultfd)?;
    let Region { start, len } = mapped.0;
    let registered = uffd.register(start, len, REGISTER_MISSING);
    registered.map_err(|e| refused(e.raw_os_error()))?;
    let mut waiter = Waiter::new().map_err(|e| refused(e.raw_os_error()))?;
    let interest = Interest {
        fd: uffd.raw(),
        serial: 1,
        write: false,
    };
    let watched = waiter.watch(&[interest]);
    watched.map_err(|e| refused(e.raw_os_error()))?;
    Ok((uffd, waiter))
}

/// Touches absent pages for about `time`. A thread that waits for faults fills each of them.
pub(super) fn faults(time: Duration) -> Result<Times, Error> {
    // One page more, which is touched at the end only.
    let (region, source) = (Mapped::new(PAGES + 1)?, Mapped::new(1)?);
    source.touch(0);
    let (uffd, waiter) = watch(&region)?;
    let last = region.0.start + PAGES * PAGE_SIZE;
    std::thread::scope(|scope| {
        let handler = scope.spawn(|| handle(&uffd, waiter, source.0.start, last));
        let times = touch_all(&region, time);
        // The fault that ends the other thread.
        region.touch(PAGES);
        handler.join().map_err(|_| Error::Thread)?;
        times
    })
}

fn touch_all(region: &Mapped, time: Duration) -> Result<Times, Error> {
    let mut histogram = Histogram::default();
    let start = Instant::now();
    // The first round is not measured.
    for round in 0u64.. {
        for page in 0..PAGES {
            let before = Instant::now();
            region.touch(page);
            if round > 0 {
                histogram.record(before.elapsed().as_nanos() as u64);
            }
        }
        let emptied = region.0.discard(region.0.start, PAGES * PAGE_SIZE);
        emptied.map_err(|e| refused(e.raw_os_error()))?;
        if round > 0 && start.elapsed() >= time {
            break;
        }
    }
    Ok(Times::from(&histogram))
}

/// Serves faults, until it has served that of the page at `last`.
fn handle(uffd: &Uffd, mut waiter: Waiter, from: usize, last: usize) {
    let mut ready = Vec::new();
    let mut msgs = [RawMsg::default(); 8];
    let mut goes_on = true;
    while goes_on {
        // What fails here is an interruption, or that there is nothing yet.
        let _ = waiter.wait(&mut ready);
        let got = uffd.read(&mut msgs).unwrap_or(0);
        for msg in &msgs[..got] {
            if let Msg::Fault { addr, .. } = msg.decode() {
                uffd.copy_pages(addr, from, PAGE_SIZE, true);
                goes_on &= addr != last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_answered() {
        match faults(Duration::from_millis(20)) {
            Ok(times) => assert!(times.mean_ns > 0.0),
            // Not every user may.
            Err(error) => assert!(matches!(error, Error::Userfaultfd(_)), "{error}"),
        }
    }
}
