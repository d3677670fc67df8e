//! Working set: estimates how much memory a program uses again and again, from the pages that
//! it has to wait for.
//!
//! A page that is asked for again after so many other pages have left (its *refault distance*,
//! Linux `mm/workingset.c`) would have stayed in memory had the budget been larger by as many.
//! The budget and the distance of nearly all refaults together are the working set. Distances
//! are known in epochs of an eighth of the budget ([`crate::refault`]).
//!
//! Invariants, tested below:
//! - the estimate is the budget at least, and never more than all memory of the program;
//! - a program that goes through its memory in order has a working set of that memory, to
//!   within an epoch.

/// Epochs in the evictions of as many pages as the budget has.
const EPOCHS: u64 = 8;

/// Counts refaults by their distance.
#[derive(Clone, Debug)]
pub struct WorkingSet {
    /// By age, in epochs.
    refaults: [u32; 256],
}

impl WorkingSet {
    /// Nothing is known.
    pub fn new() -> WorkingSet {
        WorkingSet { refaults: [0; 256] }
    }

    /// A thread waits for a page that left so many epochs ago.
    pub fn refault(&mut self, age: u8) {
        let count = &mut self.refaults[usize::from(age)];
        *count = count.saturating_add(1);
    }

    /// The working set in pages, of a program with this budget and so many pages elsewhere;
    /// `None` without refaults. Counts anew from here on.
    pub fn take(&mut self, budget: u64, elsewhere: u64) -> Option<u64> {
        let refaults = core::mem::replace(&mut self.refaults, [0; 256]);
        let all: u64 = refaults.iter().map(|n| u64::from(*n)).sum();
        if all == 0 {
            return None;
        }
        let mut seen = 0;
        // Nine of ten: the last ones are of pages that are hardly used.
        let age = refaults.iter().position(|n| {
            seen += u64::from(*n);
            seen * 10 >= all * 9
        });
        // A page of this epoch left half an epoch ago, on average.
        let distance = budget * (2 * age.unwrap_or(255) as u64 + 1) / (2 * EPOCHS);
        Some(budget + distance.min(elsewhere))
    }
}

impl Default for WorkingSet {
    fn default() -> WorkingSet {
        WorkingSet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refault::RefaultClock;
    use proptest::prelude::*;

    #[test]
    fn without_refaults_nothing_is_known() {
        assert_eq!(WorkingSet::new().take(1000, 1000), None);
    }

    proptest! {
        #[test]
        fn of_a_loop_it_is_the_loop(budget in 800u64..5000, eighths in 9u64..30) {
            let pages = budget * eighths / 8;
            let (mut clock, mut set) = (RefaultClock::default(), WorkingSet::new());
            let mut left = std::vec![None; pages as usize];
            // First in, first out: what leaves came `budget` accesses ago.
            for at in 0..pages * 4 {
                if let Some(epoch) = left[(at % pages) as usize] {
                    set.refault(clock.age(epoch));
                }
                if at >= budget {
                    left[((at - budget) % pages) as usize] = Some(clock.epoch());
                    clock.evicted(budget as usize);
                }
            }
            let found = set.take(budget, pages - budget).unwrap();
            prop_assert!(found <= pages);
            prop_assert!(found + budget / 8 >= pages, "{} of {}", found, pages);
            prop_assert_eq!(set.take(budget, pages), None);
        }

        #[test]
        fn it_lies_between_the_budget_and_all(
            budget in 0u64..1 << 30, elsewhere in 0u64..1 << 30,
            ages in proptest::collection::vec(any::<u8>(), 1..100),
        ) {
            let mut set = WorkingSet::new();
            ages.into_iter().for_each(|age| set.refault(age));
            let found = set.take(budget, elsewhere).unwrap();
            prop_assert!(found >= budget && found <= budget + elsewhere);
        }
    }
}
