//! Messages that a process of the program has printed already. A message that each of a
//! thousand processes would print is printed once.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most messages that are remembered. Further ones are not printed at all: there were
/// enough.
const LINES: usize = 128;

/// Digests of messages. All zeros is its initial state.
#[repr(C)]
pub struct Told {
    digests: [AtomicU64; LINES],
}

impl Told {
    /// Starts with no message.
    pub const fn new() -> Told {
        Told {
            digests: [const { AtomicU64::new(0) }; LINES],
        }
    }

    /// Suppresses every message.
    pub const fn closed() -> Told {
        Told {
            digests: [const { AtomicU64::new(u64::MAX) }; LINES],
        }
    }

    /// Tells whether no process has printed this line, and notes it.
    pub fn is_news(&self, line: &str) -> bool {
        let digest = digest(line.as_bytes());
        for place in &self.digests {
            match place.compare_exchange(0, digest, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(there) if there == digest => return false,
                Err(_) => {}
            }
        }
        false
    }
}

impl Default for Told {
    fn default() -> Told {
        Told::new()
    }
}

/// Computes a digest (FNV-1a) that is never 0, which stands for a free place.
fn digest(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(BASIS, hash).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_line_is_news_once() {
        let told = Told::new();
        assert!(told.is_news("a") && told.is_news("b"));
        assert!(!told.is_news("a") && !told.is_news("b"));
    }

    #[test]
    fn beyond_the_last_place_nothing_is_news() {
        let told = Told::new();
        assert!((0..LINES).all(|n| told.is_news(&format!("line {n}"))));
        assert!(!told.is_news("one more") && !told.is_news("line 3"));
    }

    #[test]
    fn where_everything_has_been_said_nothing_is_news() {
        assert!(!Told::closed().is_news("a"));
    }

    #[test]
    fn of_many_threads_one_says_it() {
        let told = Told::new();
        let news = std::thread::scope(|scope| {
            let asked: std::vec::Vec<_> =
                (0..8).map(|_| scope.spawn(|| told.is_news("x"))).collect();
            asked
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter(|n| *n)
                .count()
        });
        assert_eq!(news, 1);
    }
}
