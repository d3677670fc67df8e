//! The orders in which workloads use their memory.

use std::fmt;
use std::str::FromStr;

use crate::memory::{WORDS, mix};
use crate::zipf::Zipf;

/// A way to use memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Every word of every page is read, in order.
    SeqRead,
    /// Every word of every page is increased by one, in order.
    SeqRmw,
    /// A word of every seventh page is read, lap after lap.
    Strided,
    /// Words at random places are read.
    RandomRead,
    /// Words at random places are written.
    RandomWrite,
    /// Words of random pages are read, few pages often and many rarely: Zipf's
    /// law with exponent 0.99.
    Zipf,
}

/// Pages from one access to the next of [`Pattern::Strided`].
const STRIDE: u64 = 7;
/// Exponent of [`Pattern::Zipf`].
const EXPONENT: f64 = 0.99;
/// A prime larger than any number of pages, so that multiples of it go
/// through all pages: hot pages are not neighbours.
const SPREAD: u64 = 2_305_843_009_213_693_951;

impl Pattern {
    /// All patterns.
    pub const ALL: [Pattern; 6] = [
        Pattern::SeqRead,
        Pattern::SeqRmw,
        Pattern::Strided,
        Pattern::RandomRead,
        Pattern::RandomWrite,
        Pattern::Zipf,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::SeqRead => "seq-read",
            Pattern::SeqRmw => "seq-rmw",
            Pattern::Strided => "strided",
            Pattern::RandomRead => "random-read",
            Pattern::RandomWrite => "random-write",
            Pattern::Zipf => "zipf",
        }
    }

    /// Whether whole pages are used in order, so that bandwidth is what counts.
    pub fn in_order(self) -> bool {
        matches!(self, Pattern::SeqRead | Pattern::SeqRmw)
    }

    /// Whether every page is as likely as any other to be used next, so that
    /// the share of accesses that find their page absent is known.
    pub fn even(self) -> bool {
        matches!(self, Pattern::RandomRead | Pattern::RandomWrite)
    }

    /// Whether memory is written.
    pub fn writes(self) -> bool {
        matches!(self, Pattern::SeqRmw | Pattern::RandomWrite)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        let found = Pattern::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| format!("no access pattern has the name {text}"))
    }
}

/// The places of a pattern's accesses, each computed from its number alone.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pattern: Pattern,
    pages: u64,
    zipf: Zipf,
    seed: u64,
}

impl Order {
    /// The order for memory of `pages` pages, at least one. `seed` chooses random places.
    pub fn new(pattern: Pattern, pages: usize, seed: u64) -> Order {
        Order {
            pattern,
            pages: pages as u64,
            zipf: Zipf::new(pages, EXPONENT),
            seed: mix(seed),
        }
    }

    /// Page and word of the access number `n`.
    pub fn place(&self, n: u64) -> (usize, usize) {
        let random = mix(self.seed.wrapping_add(n));
        let page = match self.pattern {
            Pattern::SeqRead | Pattern::SeqRmw => n % self.pages,
            Pattern::Strided => {
                let lap = self.pages.div_ceil(STRIDE);
                // Each lap begins one page further, for all pages to be used.
                ((n % lap) * STRIDE + (n / lap) % STRIDE) % self.pages
            }
            Pattern::RandomRead | Pattern::RandomWrite => random % self.pages,
            Pattern::Zipf => {
                let mut state = random;
                let rank = self.zipf.rank(|| {
                    state = mix(state);
                    state
                });
                (rank as u128 * u128::from(SPREAD) % u128::from(self.pages)) as u64
            }
        };
        (page as usize, (random >> 48) as usize % WORDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_read_back() {
        for pattern in Pattern::ALL {
            assert_eq!(pattern.name().parse(), Ok(pattern));
        }
        assert!("sequential".parse::<Pattern>().is_err());
    }

    #[test]
    fn orders_reach_all_pages_and_no_others() {
        for pages in [1usize, 7, 64, 100] {
            for pattern in Pattern::ALL {
                let order = Order::new(pattern, pages, 1);
                let used: HashSet<usize> = (0..20_000).map(|n| order.place(n).0).collect();
                assert!(used.iter().all(|page| *page < pages));
                assert_eq!(used.len(), pages, "{pattern} of {pages}");
                assert!((0..1000).all(|n| order.place(n).1 < WORDS));
            }
        }
    }

    #[test]
    fn strides_are_of_seven_pages() {
        let order = Order::new(Pattern::Strided, 100, 1);
        let pages: Vec<usize> = (0..16).map(|n| order.place(n).0).collect();
        assert_eq!(pages[..4], [0, 7, 14, 21]);
        assert_eq!(pages[14..], [98, 1]);
    }
}
