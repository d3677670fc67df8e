//! Refault clock: tells whether a page that is asked for left only recently, so that
//! taking it out was a mistake and it is *hot*.
//!
//! This is the refault distance of Linux (`mm/workingset.c`), and does the work of the
//! ghost queue of S3-FIFO (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023) in one byte for each page: an eighth of the budget in
//! evictions is an *epoch*, and each page keeps the epoch in which it left.
//!
//! Invariants, tested below:
//! - a page that left in this epoch is hot;
//! - a page is not hot once more than [`HOT_AGE`] + 1 epochs of evictions have passed,
//!   until 256 have, after which the number of its epoch comes again.

/// Epochs in the evictions of as many pages as the budget has.
const EPOCHS: u64 = 8;
/// A page is hot if it left no more than this many epochs ago.
pub const HOT_AGE: u8 = 4;

/// Counts evictions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefaultClock {
    epoch: u8,
    /// Evictions in this epoch.
    evictions: u64,
}

impl RefaultClock {
    /// Counts one eviction, with a budget of `target` pages. Returns how many there were in
    /// the epoch, if that has ended.
    pub fn evicted(&mut self, target: usize) -> Option<u64> {
        self.evictions += 1;
        if self.evictions < (target as u64 / EPOCHS).max(1) {
            return None;
        }
        self.epoch = self.epoch.wrapping_add(1);
        Some(core::mem::take(&mut self.evictions))
    }

    /// The epoch, for a page that leaves now.
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// Epochs since a page left in epoch `left`; less by 256 for one that left very long
    /// ago.
    pub fn age(&self, left: u8) -> u8 {
        self.epoch.wrapping_sub(left)
    }

    /// Whether a page that left in epoch `left` is hot now that it is asked for.
    pub fn is_hot(&self, left: u8) -> bool {
        self.age(left) <= HOT_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_is_hot_for_half_of_memory_and_not_for_twice_that(
            target in 8usize..10_000, before in 0usize..20_000, later in 0usize..80_000,
        ) {
            let mut clock = RefaultClock::default();
            let evict = |n: usize, clock: &mut RefaultClock| {
                (0..n).for_each(|_| _ = clock.evicted(target));
            };
            evict(before, &mut clock);
            let left = clock.epoch();
            prop_assert!(clock.is_hot(left));
            evict(later.min(target * 8), &mut clock);
            let later = later.min(target * 8);
            let epoch = target / EPOCHS as usize;
            if later < epoch * usize::from(HOT_AGE) {
                prop_assert!(clock.is_hot(left));
            }
            if later >= epoch * (usize::from(HOT_AGE) + 1) {
                prop_assert!(!clock.is_hot(left));
            }
        }

        #[test]
        fn epochs_tell_all_evictions(target in 0usize..5000, n in 0u64..20_000) {
            let mut clock = RefaultClock::default();
            let told: u64 = (0..n).filter_map(|_| clock.evicted(target)).sum();
            prop_assert_eq!(told + clock.evictions, n);
            prop_assert!(clock.evictions < (target as u64 / EPOCHS).max(1));
        }
    }
}
