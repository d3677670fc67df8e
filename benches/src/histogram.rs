//! Distributions of times in little memory: a workload that kept each time
//! would measure the paging of its own notes.

use serde::{Deserialize, Serialize};

/// Linear steps in each power of two.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.ilog2();
/// Up to 2^41 ns, more than half an hour.
const BUCKETS: usize = (STEPS as usize) * 37;

/// Counts of times in buckets that are at most 1/32 wide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: vec![0; BUCKETS],
            total: 0,
        }
    }
}

fn index(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let power = ns.ilog2();
    let step = (ns >> (power - STEP_BITS)) & (STEPS - 1);
    ((u64::from(power - STEP_BITS + 1) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The lowest time of a bucket, in nanoseconds.
fn lowest(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    (STEPS + index % STEPS) << (index / STEPS - 1)
}

impl Histogram {
    /// Counts one event of `ns` nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.add(ns, 1);
    }

    fn add(&mut self, ns: u64, count: u64) {
        self.buckets[index(ns)] += count;
        self.total += count;
    }

    /// How many events were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The time within which the share `quantile` (0 to 1) of the events was
    /// over, in nanoseconds; 0 without events.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let wanted = (self.total as f64 * quantile) as u64;
        let mut seen = 0;
        let mut last = 0;
        for (at, count) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            last = at;
            seen += count;
            if seen > wanted {
                break;
            }
        }
        lowest(last) as f64
    }

    /// The mean of the events' times, in nanoseconds; 0 without events.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.points().map(|(ns, n)| ns as f64 * n as f64).sum();
        if self.total == 0 {
            0.0
        } else {
            sum / self.total as f64
        }
    }

    /// The events of at least `ns` nanoseconds.
    pub fn from(&self, ns: u64) -> Histogram {
        let mut rest = Histogram::default();
        for (at, count) in self.points().filter(|(at, _)| *at >= ns) {
            rest.add(at, count);
        }
        rest
    }

    /// The quickest of the events, so large a share (0 to 1) of them.
    pub fn quickest(&self, share: f64) -> Histogram {
        let mut left = (self.total as f64 * share.clamp(0.0, 1.0)) as u64;
        let mut some = Histogram::default();
        for (at, count) in self.points() {
            let count = count.min(left);
            some.add(at, count);
            left -= count;
        }
        some
    }

    /// For each time that occurred the share (0 to 1) of events within it, in
    /// ascending order.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let share = |(ns, count): (u64, u64)| {
            seen += count;
            (ns as f64, seen as f64 / self.total as f64)
        };
        self.points().map(share).collect()
    }

    /// Buckets that are not empty: lowest time in nanoseconds, count.
    fn points(&self) -> impl Iterator<Item = (u64, u64)> {
        let count = |(at, n): (usize, &u64)| (*n > 0).then_some((lowest(at), *n));
        self.buckets.iter().enumerate().filter_map(count)
    }
}

impl From<Vec<(u64, u64)>> for Histogram {
    fn from(points: Vec<(u64, u64)>) -> Histogram {
        let mut histogram = Histogram::default();
        points.into_iter().for_each(|(ns, n)| histogram.add(ns, n));
        histogram
    }
}

impl From<Histogram> for Vec<(u64, u64)> {
    fn from(histogram: Histogram) -> Vec<(u64, u64)> {
        histogram.points().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_thirtysecond_wide() {
        for ns in (0..1000).chain((10..40).map(|p| (1u64 << p) + 12_345)) {
            let low = lowest(index(ns));
            assert!(low <= ns && ns - low <= ns / 32, "{ns}: {low}");
        }
    }

    #[test]
    fn quantiles_of_known_times() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0.0);
        (0..1000).for_each(|n| histogram.record(if n < 990 { 10 } else { 4096 }));
        assert_eq!(histogram.quantile(0.5), 10.0);
        assert_eq!(histogram.quantile(0.98), 10.0);
        assert_eq!(histogram.quantile(0.999), 4096.0);
        assert_eq!(histogram.quantile(1.0), 4096.0);
        assert_eq!(histogram.from(1000).total(), 10);
        assert_eq!(histogram.from(1000).mean(), 4096.0);
        assert_eq!(histogram.shares(), [(10.0, 0.99), (4096.0, 1.0)]);
    }

    #[test]
    fn json_and_back() {
        let mut histogram = Histogram::default();
        for ns in [3, 3, 70_000, u64::MAX] {
            histogram.record(ns);
        }
        let text = serde_json::to_string(&histogram).unwrap();
        assert!(text.starts_with("[[3,2],"), "{text}");
        let back: Histogram = serde_json::from_str(&text).unwrap();
        assert_eq!(back, histogram);
    }

    #[test]
    fn the_quickest_are_those_with_the_lowest_times() {
        let mut times = Histogram::default();
        (0..6).for_each(|_| times.record(100));
        (0..4).for_each(|_| times.record(8192));
        let quickest = times.quickest(0.8);
        assert_eq!((quickest.total(), quickest.quantile(0.99)), (8, 8192.0));
        assert_eq!(times.quickest(0.6).quantile(0.99), 100.0);
        assert_eq!(times.quickest(2.0), times);
        assert_eq!(times.quickest(0.0).total(), 0);
    }
}
