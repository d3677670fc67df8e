//! Tells the events of the engine's own zap from those of the program.

use alloc::vec::Vec;
use core::ops::Range;

/// The engine's zap that is under way.
#[derive(Debug, Default)]
pub(crate) struct OwnZap {
    /// The range being zapped, empty if there is none.
    now: Range<usize>,
    /// Events within the range since the zap began.
    seen: Vec<Range<usize>>,
}

impl OwnZap {
    /// Begins a zap of a range.
    pub(crate) fn begin(&mut self, range: Range<usize>) {
        self.now = range;
        self.seen.clear();
    }

    /// Tells whether an event may be the engine's own, and records it. [`OwnZap::foreign`]
    /// decides when the zap is over.
    pub(crate) fn is_own(&mut self, range: &Range<usize>) -> bool {
        let own = self.now.start <= range.start && range.end <= self.now.end;
        if own {
            self.seen.push(range.clone());
        }
        own
    }

    /// Ends the zap. Returns the events that were the program's.
    pub(crate) fn foreign(&mut self) -> Vec<Range<usize>> {
        let range = core::mem::replace(&mut self.now, 0..0);
        foreign(core::mem::take(&mut self.seen), range)
    }
}

/// Returns the events of `seen` that do not belong to the zap of `range`.
///
/// The kernel reports the zap once for each mapping. If a mapping is split between its
/// event and its zap, the part that was split off is reported again. So the zap's own
/// events form a row: the first begins where the range begins, each other begins within the
/// one before or at its end, and the last ends where the range ends. If several rows are
/// possible, the longest is taken: to take an own event for the program's would lose the
/// zapped pages.
fn foreign(mut seen: Vec<Range<usize>>, range: Range<usize>) -> Vec<Range<usize>> {
    // For each event, the longest row that ends with it, and the event before it in that
    // row.
    let mut rows: Vec<(usize, Option<usize>)> = Vec::new();
    for (i, report) in seen.iter().enumerate() {
        let first = (usize::from(report.start == range.start), None);
        let longest = (0..i)
            .filter(|&b| rows[b].0 > 0)
            .filter(|&b| seen[b].start < report.start && report.start <= seen[b].end)
            .map(|b| (rows[b].0 + 1, Some(b)))
            .fold(first, |best, row| if row.0 > best.0 { row } else { best });
        rows.push(longest);
    }
    let mut last = None;
    for i in (0..rows.len()).filter(|&i| rows[i].0 > 0) {
        let rank = |i: usize| (seen[i].end, rows[i].0);
        if last.is_none_or(|l| rank(i) > rank(l)) {
            last = Some(i);
        }
    }
    let mut own = Vec::new();
    while let Some(i) = last {
        own.push(i);
        last = rows[i].1;
    }
    // The row was collected backwards, so removal keeps the other indices valid.
    for i in own {
        seen.remove(i);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_zaps_beside_a_zap_is_told_apart() {
        assert_eq!(foreign(vec(&[(0, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (0, 8)]), 0..8), vec(&[(0, 3)]));
        assert_eq!(foreign(vec(&[(0, 8), (0, 8)]), 0..8), vec(&[(0, 8)]));
        assert_eq!(
            foreign(vec(&[(4, 5), (0, 3), (3, 8)]), 0..8),
            vec(&[(4, 5)])
        );
        assert_eq!(
            foreign(vec(&[(0, 2), (0, 3), (3, 8)]), 0..8),
            vec(&[(0, 2)])
        );
        assert_eq!(foreign(vec(&[(0, 8), (3, 5)]), 0..8), vec(&[(3, 5)]));
        // The mapping was split in the meantime, once and twice.
        assert_eq!(foreign(vec(&[(0, 8), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 8), (3, 5), (5, 8)]), 0..8), vec(&[]));
        assert_eq!(
            foreign(vec(&[(0, 4), (2, 4), (0, 1), (4, 8)]), 0..8),
            vec(&[(0, 1)])
        );
        // A zap that was refused reports nothing.
        assert_eq!(foreign(vec(&[(2, 3)]), 0..8), vec(&[(2, 3)]));
    }

    fn vec(ranges: &[(usize, usize)]) -> Vec<Range<usize>> {
        ranges.iter().map(|(a, b)| *a..*b).collect()
    }
}
