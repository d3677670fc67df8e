//! Refault clock: tells whether a page that is used again left only recently, so that its
//! eviction was a mistake and the page is *hot*.
//!
//! This is the refault distance of Linux (`mm/workingset.c`), and replaces the ghost queue
//! of S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023)
//! with one byte per page: an *epoch* is the time in which an eighth of the budget is
//! evicted, and each page keeps the epoch in which it left.
//!
//! Invariants, tested below:
//! - a page that left in the current epoch is hot;
//! - a page that left more than [`HOT_AGE`] + 1 epochs ago is not hot, until 256 epochs
//!   have passed and the number of its epoch is used again.

/// Epochs in which as many pages are evicted as the budget has.
const EPOCHS: u64 = 8;
/// The most epochs since its eviction for a page to be hot.
pub const HOT_AGE: u8 = 4;

/// The clock, which counts evictions.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefaultClock {
    epoch: u8,
    /// Evictions in this epoch.
    evictions: u64,
}

impl RefaultClock {
    /// Counts one eviction, with a budget of `target` pages. If that ends the epoch,
    /// returns the number of evictions in it.
    pub fn evicted(&mut self, target: usize) -> Option<u64> {
        self.evictions += 1;
        if self.evictions < (target as u64 / EPOCHS).max(1) {
            return None;
        }
        self.epoch = self.epoch.wrapping_add(1);
        Some(core::mem::take(&mut self.evictions))
    }

    /// Returns the current epoch, for a page that leaves now.
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// Returns how many epochs ago a page left in epoch `left`, modulo 256.
    pub fn age(&self, left: u8) -> u8 {
        self.epoch.wrapping_sub(left)
    }

    /// Tells whether a page that left in epoch `left` is hot if it is used now.
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
