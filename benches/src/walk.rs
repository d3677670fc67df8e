//! A workload: memory used in the order of a pattern, for a while, and checked.

use std::time::{Duration, Instant};

use crate::Error;
use crate::histogram::Histogram;
use crate::memory::{Memory, PAGE, WORDS, word};
use crate::pattern::{Order, Pattern};

/// When a measurement ends: at the limit that is reached first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most accesses of each thread.
    pub accesses: u64,
    /// The longest time.
    pub time: Duration,
}

/// What was done, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Accesses: pages of patterns in order, words of all others.
    pub accesses: u64,
    /// Bytes that were read or written.
    pub bytes: u64,
    /// Nanoseconds, beginning to end.
    pub ns: f64,
}

/// Accesses from one look at the clock to the next.
const BATCH: u64 = 64;

/// Memory, and how far a pattern has come in it.
pub struct Walk {
    memory: Memory,
    pattern: Pattern,
    order: Order,
    /// Number of the next access.
    next: u64,
    /// How often each page was written; empty when the pattern writes nothing.
    written: Vec<u32>,
}

impl Walk {
    /// Fills `bytes` of memory, at least a page.
    pub fn new(pattern: Pattern, bytes: usize) -> Walk {
        let memory = Memory::filled(bytes.max(PAGE));
        let pages = memory.pages();
        Walk {
            order: Order::new(pattern, pages, 1),
            written: vec![0; if pattern.writes() { pages } else { 0 }],
            memory,
            pattern,
            next: 0,
        }
    }

    /// The addresses of its memory.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.memory.range()
    }

    /// Pages of its memory.
    pub fn pages(&self) -> u64 {
        self.memory.pages() as u64
    }

    /// Goes on within `limits`, timing only the whole.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn go(&mut self, limits: Limits) -> Result<Span, Error> {
        self.within(limits, |walk, n| walk.access(n))
    }

    /// Goes on within `limits`, timing each access: the time of the whole
    /// has some 50 ns more for each.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn go_timed(&mut self, limits: Limits) -> Result<(Span, Histogram), Error> {
        let mut histogram = Histogram::default();
        let span = self.within(limits, |walk, n| {
            let start = Instant::now();
            walk.access(n)?;
            histogram.record(start.elapsed().as_nanos() as u64);
            Ok(())
        })?;
        Ok((span, histogram))
    }

    fn within(
        &mut self,
        limits: Limits,
        mut access: impl FnMut(&mut Walk, u64) -> Result<(), Error>,
    ) -> Result<Span, Error> {
        let first = self.next;
        let start = Instant::now();
        // Some at least, however long it takes until this thread runs.
        loop {
            let end = (self.next + BATCH).min(first + limits.accesses);
            while self.next < end {
                access(self, self.next)?;
                self.next += 1;
            }
            if self.next - first >= limits.accesses || start.elapsed() >= limits.time {
                break;
            }
        }
        let accesses = self.next - first;
        let each = if self.pattern.in_order() { PAGE } else { 8 };
        Ok(Span {
            accesses,
            bytes: accesses * each as u64,
            ns: start.elapsed().as_nanos() as f64,
        })
    }

    fn access(&mut self, n: u64) -> Result<(), Error> {
        let (page, at) = self.order.place(n);
        let right = match self.pattern {
            Pattern::SeqRead => {
                let words = self.memory.page(page);
                let sum = words.iter().fold(0u64, |sum, w| sum.wrapping_add(*w));
                // Looking at the sum keeps the reads; the words prove the page.
                words[at] == word(page, at) && sum != 0
            }
            Pattern::SeqRmw => {
                let version = u64::from(self.written[page]);
                self.written[page] += 1;
                let words = self.memory.page_mut(page);
                let right = words[at] == word(page, at).wrapping_add(version);
                words.iter_mut().for_each(|w| *w = w.wrapping_add(1));
                right
            }
            Pattern::RandomWrite => {
                self.written[page] += 1;
                let (at, value) = mark(page, self.written[page]);
                self.memory.page_mut(page)[at] = value;
                true
            }
            Pattern::Strided | Pattern::RandomRead | Pattern::Zipf => {
                self.memory.page(page)[at] == word(page, at)
            }
        };
        if right {
            Ok(())
        } else {
            Err(Error::Corrupt { page })
        }
    }

    /// Looks at every word, where the pattern writes; what is only read has
    /// been checked as it was read.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn verify(&self) -> Result<(), Error> {
        for (page, version) in self.written.iter().enumerate() {
            let marked = mark(page, *version);
            for (at, found) in self.memory.page(page).iter().enumerate() {
                let wanted = match self.pattern {
                    Pattern::SeqRmw => word(page, at).wrapping_add(u64::from(*version)),
                    _ if *version > 0 && at == marked.0 => marked.1,
                    _ => word(page, at),
                };
                if *found != wanted {
                    return Err(Error::Corrupt { page });
                }
            }
        }
        Ok(())
    }
}

/// Where and what [`Pattern::RandomWrite`] writes the `version`th time.
fn mark(page: usize, version: u32) -> (usize, u64) {
    let at = page % WORDS;
    (at, word(page, at).wrapping_add(u64::from(version)))
}

/// Reads words at random places with several threads at once; `seed` chooses
/// the places. The times of threads are not added up.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn read_with_threads(
    memory: &Memory,
    threads: usize,
    limits: Limits,
    seed: u64,
) -> Result<Span, Error> {
    let start = Instant::now();
    let one = |thread: usize| -> Result<u64, Error> {
        let order = Order::new(
            Pattern::RandomRead,
            memory.pages(),
            seed + ((thread as u64) << 32),
        );
        let mut n = 0;
        // As above: to start a thread may take longer than all that is measured.
        loop {
            for _ in 0..BATCH {
                let (page, at) = order.place(n);
                if memory.page(page)[at] != word(page, at) {
                    return Err(Error::Corrupt { page });
                }
                n += 1;
            }
            if n >= limits.accesses || start.elapsed() >= limits.time {
                break;
            }
        }
        Ok(n)
    };
    let done: Result<Vec<u64>, Error> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::Thread)?)
            .collect()
    });
    let accesses = done?.into_iter().sum();
    Ok(Span {
        accesses,
        bytes: accesses * 8,
        ns: start.elapsed().as_nanos() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Limits = Limits {
        accesses: 1000,
        time: Duration::from_secs(60),
    };

    #[test]
    fn every_pattern_finds_what_it_wrote() {
        for pattern in Pattern::ALL {
            let mut walk = Walk::new(pattern, 64 * PAGE);
            let span = walk.go(SOON).unwrap();
            assert_eq!(span.accesses, 1000);
            let (span, histogram) = walk.go_timed(SOON).unwrap();
            assert_eq!(span.accesses, 1000);
            assert_eq!(histogram.total(), 1000);
            walk.verify().unwrap();
        }
    }

    #[test]
    fn time_ends_a_walk() {
        let limits = Limits {
            accesses: u64::MAX / 2,
            time: Duration::from_millis(1),
        };
        assert!(Walk::new(Pattern::Zipf, PAGE).go(limits).is_ok());
    }

    #[test]
    fn every_pattern_finds_a_wrong_page() {
        for pattern in Pattern::ALL {
            let mut walk = Walk::new(pattern, 4 * PAGE);
            walk.go(SOON).unwrap();
            walk.memory.page_mut(2).iter_mut().for_each(|w| *w ^= 1);
            let found = walk.go(SOON).and_then(|_| walk.verify());
            assert!(
                matches!(found, Err(Error::Corrupt { page: 2 })),
                "{pattern}"
            );
        }
    }

    #[test]
    fn something_is_measured_however_little_time_there_is() {
        let none = Limits {
            time: Duration::ZERO,
            ..SOON
        };
        let memory = Memory::filled(16 * PAGE);
        assert!(read_with_threads(&memory, 3, none, 1).unwrap().accesses > 0);
        let mut walk = Walk::new(Pattern::Zipf, 16 * PAGE);
        assert!(walk.go(none).unwrap().accesses > 0);
    }

    #[test]
    fn threads_read_what_is_there() {
        let mut memory = Memory::filled(16 * PAGE);
        let limits = Limits {
            accesses: 640,
            ..SOON
        };
        let span = read_with_threads(&memory, 3, limits, 1).unwrap();
        assert_eq!(span.accesses, 3 * 640);
        memory.page_mut(5).fill(0);
        assert!(read_with_threads(&memory, 3, limits, 1).is_err());
    }
}
