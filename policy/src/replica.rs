//! Choice of a replica: which of several servers with the same page is asked for it, and
//! when another is asked as well.
//!
//! A page is asked of the server that has answered soonest of late. Servers that take about
//! as long share the load. A read that takes longer than nearly all reads of that server is
//! asked of another server too, and the first answer counts (hedged requests: Dean and
//! Barroso, *The Tail at Scale*, CACM 2013).
//!
//! Invariants, tested below:
//! - no server is chosen that takes twice as long as another, but for looking again;
//! - a server that was slow is tried again;
//! - the estimate of the 99th percentile lies within what was measured;
//! - the time after which a read is late is bounded.

/// A server is passed over that takes longer than the quickest by this factor, in quarters.
const EVEN_QUARTERS: u64 = 6;

/// One read of so many goes to a server that is passed over, to see how it does now.
const LOOK_AGAIN: u64 = 256;

/// A read is late no sooner, and no later, than after these nanoseconds.
const LATE_NS: core::ops::RangeInclusive<u64> = 1_000_000..=500_000_000;

/// When a read is late of a server that little is known of, in nanoseconds.
const LATE_UNKNOWN_NS: u64 = 50_000_000;

/// So many reads tell the 99th percentile.
const KNOWN: u32 = 100;

/// An estimate of the 99th percentile of how long reads take, by stochastic approximation:
/// it goes up by 99 steps where a read took longer, else down by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail {
    ns: u64,
    seen: u32,
}

impl Tail {
    /// Takes in that a read took `ns` nanoseconds.
    pub fn add(&mut self, ns: u64) {
        if self.seen < KNOWN {
            self.seen += 1;
            self.ns = self.ns.max(ns);
            return;
        }
        let step = self.ns / 1024 + 1;
        self.ns = match ns > self.ns {
            true => self.ns.saturating_add(step.saturating_mul(99)).min(ns),
            false => self.ns.saturating_sub(step).max(ns),
        };
    }

    /// The estimate, in nanoseconds; `None` before there were enough reads.
    pub fn ns(&self) -> Option<u64> {
        (self.seen >= KNOWN).then_some(self.ns)
    }

    /// After how many nanoseconds a read is late.
    pub fn late_ns(&self) -> u64 {
        let late = self.ns().unwrap_or(LATE_UNKNOWN_NS);
        late.clamp(*LATE_NS.start(), *LATE_NS.end())
    }
}

/// Which of the servers with a page is asked for it. `waits` are their average times in
/// nanoseconds, of which unknown ones count as quick; `turn` grows with each call, and
/// `spread` is the same for pages that are read together.
pub fn choose(waits: &[Option<u64>], turn: u64, spread: u64) -> usize {
    let count = waits.len().max(1) as u64;
    if turn.is_multiple_of(LOOK_AGAIN) {
        return (turn / LOOK_AGAIN % count) as usize;
    }
    let quickest = waits.iter().map(|w| w.unwrap_or(0)).min().unwrap_or(0);
    let most = quickest.saturating_mul(EVEN_QUARTERS) / 4;
    let is_quick = |at: &usize| {
        let wait = waits.get(*at).copied().flatten();
        wait.is_none_or(|wait| wait <= most)
    };
    let from = (spread % count) as usize;
    let turns = (from..waits.len()).chain(0..from);
    turns.into_iter().find(is_quick).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn equals_share_and_a_slow_server_is_passed_over() {
        let even = [Some(100), Some(140)];
        assert_eq!(choose(&even, 1, 0), 0);
        assert_eq!(choose(&even, 1, 1), 1);
        let uneven = [Some(1000), Some(140)];
        assert!((1..LOOK_AGAIN).all(|turn| choose(&uneven, turn, turn) == 1));
        assert_eq!(choose(&[Some(7)], 1, 9), 0);
        assert_eq!(choose(&[], 0, 0), 0);
    }

    #[test]
    fn a_slow_server_is_tried_again() {
        let waits = [Some(1000), Some(10)];
        let tried = (0..LOOK_AGAIN * 4).filter(|turn| choose(&waits, *turn, 1) == 0);
        assert_eq!(tried.count(), 2);
    }

    #[test]
    fn a_read_is_late_within_bounds() {
        let mut tail = Tail::default();
        assert_eq!(tail.late_ns(), LATE_UNKNOWN_NS);
        (0..KNOWN).for_each(|_| tail.add(10));
        assert_eq!(tail.late_ns(), *LATE_NS.start());
        (0..100_000).for_each(|_| tail.add(u64::MAX / 2));
        assert_eq!(tail.late_ns(), *LATE_NS.end());
    }

    #[test]
    fn the_estimate_comes_near_the_percentile() {
        let mut tail = Tail::default();
        // Of the values up to 1000 µs, in no order.
        (0..200_000u64).for_each(|i| tail.add(i * 7919 % 1000 * 1000));
        let ns = tail.ns().expect("many were seen");
        assert!((930_000..=1_000_000).contains(&ns), "{ns}");
    }

    proptest! {
        #[test]
        fn the_estimate_stays_within_what_was_measured(
            reads in proptest::collection::vec(1u64..1 << 40, 1..300),
        ) {
            let mut tail = Tail::default();
            reads.iter().for_each(|ns| tail.add(*ns));
            let (least, most) = (reads.iter().min().unwrap(), reads.iter().max().unwrap());
            prop_assert!(tail.ns().is_none_or(|ns| ns >= *least && ns <= *most));
        }

        #[test]
        fn nobody_is_chosen_that_takes_twice_as_long(
            waits in proptest::collection::vec(proptest::option::of(1u64..1 << 40), 1..4),
            turn in 1u64..LOOK_AGAIN,
            spread in 0u64..100,
        ) {
            let chosen = choose(&waits, turn, spread);
            prop_assert!(chosen < waits.len());
            let known: Vec<u64> = waits.iter().map(|w| w.unwrap_or(0)).collect();
            let quickest = known.iter().min().unwrap();
            prop_assert!(known[chosen] <= quickest * 2);
        }
    }
}
