//! Memory used for the first time.

use std::hint::black_box;
use std::time::Instant;

use crate::Error;
use crate::histogram::Histogram;
use crate::memory::{PAGE, WORDS};
use crate::walk::Span;

/// Memory that was not touched yet.
pub struct Fresh {
    words: Vec<u64>,
    /// Pages used so far.
    used: usize,
}

fn value(page: usize, at: usize) -> u64 {
    ((page as u64) << 16) + at as u64 + 1
}

impl Fresh {
    /// Maps `bytes` bytes, rounded down to pages.
    pub fn new(bytes: usize) -> Fresh {
        // Zeroed by the allocator: large memory comes from the kernel untouched.
        Fresh {
            words: vec![0; bytes / PAGE * WORDS],
            used: 0,
        }
    }

    /// Pages not used yet.
    pub fn left(&self) -> usize {
        self.words.len() / WORDS - self.used
    }

    fn next(&mut self) -> (usize, &mut [u64]) {
        let page = self.used;
        self.used += 1;
        (page, &mut self.words[page * WORDS..][..WORDS])
    }

    /// Writes whole pages, the next `pages` of them.
    pub fn fill(&mut self, pages: usize) -> Span {
        let pages = pages.min(self.left());
        let start = Instant::now();
        for _ in 0..pages {
            let (page, words) = self.next();
            let first = value(page, 0);
            for (at, w) in words.iter_mut().enumerate() {
                *w = first + at as u64;
            }
        }
        black_box(&mut self.words);
        span(pages, PAGE, start)
    }

    /// Writes one word to each of the next `pages` pages and times each.
    pub fn touch(&mut self, pages: usize) -> (Span, Histogram) {
        let pages = pages.min(self.left());
        let mut histogram = Histogram::default();
        let start = Instant::now();
        for _ in 0..pages {
            let (page, words) = self.next();
            let before = Instant::now();
            words[0] = value(page, 0);
            black_box(&mut *words);
            histogram.record(before.elapsed().as_nanos() as u64);
        }
        (span(pages, 8, start), histogram)
    }

    /// Looks at what was used: every word is what was written, or zero where
    /// nothing was.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn verify(&self) -> Result<(), Error> {
        for (page, words) in self.words.chunks_exact(WORDS).take(self.used).enumerate() {
            let filled = words[1] != 0;
            let wanted = |at| {
                if at == 0 || filled {
                    value(page, at)
                } else {
                    0
                }
            };
            if words.iter().enumerate().any(|(at, w)| *w != wanted(at)) {
                return Err(Error::Corrupt { page });
            }
        }
        Ok(())
    }
}

fn span(pages: usize, each: usize, start: Instant) -> Span {
    Span {
        accesses: pages as u64,
        bytes: (pages * each) as u64,
        ns: start.elapsed().as_nanos() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_and_no_more() {
        let mut fresh = Fresh::new(10 * PAGE + 5);
        assert_eq!(fresh.fill(3).bytes, 3 * PAGE as u64);
        let (span, histogram) = fresh.touch(4);
        assert_eq!((span.accesses, histogram.total()), (4, 4));
        assert_eq!(fresh.left(), 3);
        assert_eq!(fresh.touch(100).0.accesses, 3);
        fresh.verify().unwrap();
        fresh.words[4 * WORDS + 9] = 1;
        assert!(matches!(fresh.verify(), Err(Error::Corrupt { page: 4 })));
    }
}
