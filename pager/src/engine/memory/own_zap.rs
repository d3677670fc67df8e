//! Tells the reports of the engine's own zap from those of the program's.

use alloc::vec::Vec;
use core::ops::Range;

/// The zap under way.
#[derive(Debug, Default)]
pub(crate) struct OwnZap {
    /// The range, while a zap is under way.
    now: Range<usize>,
    /// Reports within the range since the zap began.
    seen: Vec<Range<usize>>,
}

impl OwnZap {
    /// The engine has a range zapped.
    pub(crate) fn begin(&mut self, range: Range<usize>) {
        self.now = range;
        self.seen.clear();
    }

    /// Whether a report may be about the zap under way. Which of them were is seen
    /// when it is done.
    pub(crate) fn is_own(&mut self, range: &Range<usize>) -> bool {
        let own = self.now.start <= range.start && range.end <= self.now.end;
        if own {
            self.seen.push(range.clone());
        }
        own
    }

    /// The zap is over: what of its reports was the program's.
    pub(crate) fn foreign(&mut self) -> Vec<Range<usize>> {
        let range = core::mem::replace(&mut self.now, 0..0);
        foreign(core::mem::take(&mut self.seen), range)
    }
}

/// Of the reports `seen`, those that are not about the zap of `range`. That one
/// is reported piece by piece, each mapping for itself; where a mapping was split
/// between its report and its zap, what was split off is reported once more. So
/// its reports begin with the range, each of the others begins within the one
/// before or at its end, and the last ends where it ends. Of several such rows
/// the longest is taken: to take the zap for the program's would lose what is
/// zapped.
fn foreign(mut seen: Vec<Range<usize>>, range: Range<usize>) -> Vec<Range<usize>> {
    // For each report the longest row that ends with it, and what comes before
    // it there.
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
    // The last comes first here.
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
