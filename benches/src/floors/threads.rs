//! Faults of several threads that one other answers, taking a page out for each
//! that it puts in: what threads gain beside one with any pager that has one thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tmem_pager::sys::uffd::{Msg, RawMsg, Uffd};
use tmem_pager::sys::wait::Waiter;
use tmem_wire::PAGE_SIZE;

use super::OneCpu;
use super::fault::{Mapped, watch};
use crate::Error;

/// Pages that each thread goes round in, and how many of them are there at a time.
const PAGES: usize = 1024;
const RESIDENT: usize = 256;

/// Faults in a second of `threads` threads that touch absent pages for about
/// `time`: on all processors or on one, whichever is quicker.
///
/// # Errors
/// Where there is no userfaultfd for this user, or the kernel refuses something.
pub fn faults_per_second(threads: usize, time: Duration) -> Result<f64, Error> {
    let spread = measured(threads, time)?;
    let one_cpu = OneCpu::pin();
    let together = measured(threads, time)?;
    drop(one_cpu);
    Ok(spread.max(together))
}

/// The same, wherever the threads may run.
fn measured(threads: usize, time: Duration) -> Result<f64, Error> {
    // One page more, which is touched at the end only.
    let (region, source) = (Mapped::new(threads * PAGES + 1)?, Mapped::new(1)?);
    source.touch(0);
    let (uffd, waiter) = watch(&region)?;
    let whole = region.region();
    let last = whole.start + threads * PAGES * PAGE_SIZE;
    let (stop, touched) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let serving = Serving {
            uffd: &uffd,
            region: &region,
            from: source.region().start,
            last,
            most: threads * RESIDENT,
        };
        let handler = scope.spawn(move || serving.run(waiter));
        let walkers: Vec<_> = (0..threads)
            .map(|thread| {
                let (region, stop, touched) = (&region, &stop, &touched);
                scope.spawn(move || walk(region, thread, stop, touched))
            })
            .collect();
        // Until everything that is there at a time has come once.
        std::thread::sleep(time / 4);
        let (begin, before) = (Instant::now(), touched.load(Ordering::Relaxed));
        let mut faults = 0;
        while faults == 0 && !walkers.iter().all(|walker| walker.is_finished()) {
            std::thread::sleep(time);
            faults = touched.load(Ordering::Relaxed) - before;
        }
        let seconds = begin.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let ended = walkers.into_iter().all(|walker| walker.join().is_ok());
        // The fault that ends the handler.
        region.touch(threads * PAGES);
        let handled = handler.join().is_ok();
        match ended && handled {
            true => Ok(faults as f64 / seconds),
            false => Err(Error::Thread),
        }
    })
}

/// Touches the pages of one thread, over and over.
fn walk(region: &Mapped, thread: usize, stop: &AtomicBool, touched: &AtomicU64) {
    for page in (0..PAGES).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        region.touch(thread * PAGES + page);
        touched.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the thread that serves faults has to know.
struct Serving<'a> {
    uffd: &'a Uffd,
    region: &'a Mapped,
    /// What each page becomes.
    from: usize,
    /// When this page has been served, it ends.
    last: usize,
    /// Pages that are there at a time.
    most: usize,
}

impl Serving<'_> {
    fn run(&self, mut waiter: Waiter) {
        let (mut ready, mut msgs) = (Vec::new(), [RawMsg::default(); 64]);
        let mut there = VecDeque::new();
        let mut goes_on = true;
        while goes_on {
            // What fails here is an interruption, or that there is nothing yet.
            let _ = waiter.wait(&mut ready);
            let got = self.uffd.read(&mut msgs).unwrap_or(0);
            for msg in &msgs[..got] {
                if let Msg::Fault { addr, .. } = msg.decode() {
                    self.uffd.copy_pages(addr, self.from, PAGE_SIZE, true);
                    there.push_back(addr);
                    goes_on &= addr != self.last;
                }
            }
            while there.len() > self.most {
                if let Some(oldest) = there.pop_front() {
                    // What stays is touched without a fault, and counts all the same.
                    let _ = self.region.region().discard(oldest, PAGE_SIZE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_several_threads_are_counted() {
        match faults_per_second(3, Duration::from_millis(1)) {
            Ok(rate) => assert!(rate > 0.0),
            // Not every user may.
            Err(error) => assert!(matches!(error, Error::Userfaultfd(_)), "{error}"),
        }
    }
}
