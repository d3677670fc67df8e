//! A set of address ranges.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Disjoint ranges. Adjacent ones are merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<usize>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        let near: Vec<(usize, usize)> = self
            .0
            .range(..=end)
            .rev()
            .take_while(|(_, e)| **e >= start)
            .map(|(s, e)| (*s, *e))
            .collect();
        for (s, e) in near {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    /// Removes a range.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let hit: Vec<(usize, usize)> = self
            .0
            .range(..range.end)
            .rev()
            .take_while(|(_, e)| **e > range.start)
            .map(|(s, e)| (*s, *e))
            .collect();
        for (s, e) in hit {
            self.0.remove(&s);
            if s < range.start {
                self.0.insert(s, range.start);
            }
            if e > range.end {
                self.0.insert(range.end, e);
            }
        }
    }

    /// Returns the range that contains `at`.
    pub(crate) fn around(&self, at: usize) -> Option<Range<usize>> {
        let (s, e) = self.0.range(..=at).next_back()?;
        (*e > at).then_some(*s..*e)
    }

    /// Returns the parts of `range` that are in the set, in order.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let first = self.around(range.start).map_or(range.start, |r| r.start);
        self.0
            .range(first..range.end)
            .map(|(s, e)| (*s).max(range.start)..(*e).min(range.end))
            .collect()
    }

    /// Tells whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over all ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().map(|(s, e)| *s..*e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(ops in proptest::collection::vec((any::<bool>(), 0usize..64, 0usize..64), 1..40)) {
            let mut set = Ranges::default();
            let mut model = [false; 64];
            for (add, a, b) in ops {
                let (a, b) = (a.min(b), a.max(b));
                if add { set.insert(a..b) } else { set.remove(a..b) }
                model[a..b].fill(add);
                for (i, there) in model.iter().enumerate() {
                    prop_assert_eq!(set.around(i).is_some(), *there);
                }
                let within: Vec<usize> = set.within(&(a..b)).into_iter().flatten().collect();
                let wanted: Vec<usize> = (a..b).filter(|i| model[*i]).collect();
                prop_assert_eq!(within, wanted);
                prop_assert_eq!(set.is_empty(), model.iter().all(|m| !m));
                let all: Vec<_> = set.iter().collect();
                prop_assert!(all.windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }
}
