//! Room within a fixed piece of memory, given out and taken back in about the
//! same order.

use std::collections::VecDeque;

/// Which parts of `size` bytes are in use.
#[derive(Debug)]
pub(crate) struct Ring {
    size: usize,
    /// In the order of allocation: where, how long, and whether it is given back.
    used: VecDeque<(usize, usize, bool)>,
}

impl Ring {
    pub(crate) fn new(size: usize) -> Ring {
        Ring {
            size,
            used: VecDeque::new(),
        }
    }

    /// Where `len` neighbouring bytes are free; they are in use from now on.
    pub(crate) fn take(&mut self, len: usize) -> Option<usize> {
        let at = match (self.used.front(), self.used.back()) {
            (Some(&(oldest, ..)), Some(&(newest, n, _))) => {
                let next = newest + n;
                if newest >= oldest {
                    // Free are the end and the beginning.
                    if self.size - next >= len {
                        next
                    } else if oldest >= len {
                        0
                    } else {
                        return None;
                    }
                } else if oldest - next >= len {
                    next
                } else {
                    return None;
                }
            }
            _ if len <= self.size => 0,
            _ => return None,
        };
        self.used.push_back((at, len, false));
        Some(at)
    }

    /// Gives back what was taken at `at`.
    pub(crate) fn give(&mut self, at: usize) {
        if let Some(part) = self.used.iter_mut().find(|p| p.0 == at && !p.2) {
            part.2 = true;
        }
        while self.used.front().is_some_and(|p| p.2) {
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_in_use_never_overlap_and_all_is_free_again_in_the_end(
            ops in proptest::collection::vec((1usize..40, any::<bool>(), 0usize..4), 1..200),
        ) {
            let mut ring = Ring::new(100);
            let mut held: VecDeque<(usize, usize)> = VecDeque::new();
            for (len, take, which) in ops {
                if take {
                    if let Some(at) = ring.take(len) {
                        prop_assert!(at + len <= 100);
                        for &(other, n) in &held {
                            prop_assert!(at + len <= other || other + n <= at);
                        }
                        held.push_back((at, len));
                    }
                } else if !held.is_empty() {
                    let (at, _) = held.remove(which.min(held.len() - 1)).unwrap();
                    ring.give(at);
                }
            }
            held.into_iter().for_each(|(at, _)| ring.give(at));
            prop_assert_eq!(ring.take(100), Some(0));
        }
    }

    #[test]
    fn what_is_too_long_or_does_not_fit_is_refused() {
        let mut ring = Ring::new(10);
        assert_eq!(ring.take(11), None);
        assert_eq!(ring.take(6), Some(0));
        assert_eq!(ring.take(6), None);
        assert_eq!(ring.take(4), Some(6));
        ring.give(0);
        assert_eq!(ring.take(5), Some(0));
    }
}
