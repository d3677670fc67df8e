//! Distributions of times in little memory: a workload that kept each time would measure the
//! paging of its own notes.

use serde::{Deserialize, Serialize};

/// The longest time that is told from longer ones: more than half an hour.
const LONGEST_NS: u64 = 1 << 41;
/// Decimal digits of each time that are kept.
const DIGITS: u8 = 2;

/// Counts of times, each to within a hundredth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Histogram {
        let empty = hdrhistogram::Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Histogram(empty.expect("the bounds and digits are within those allowed"))
    }
}

impl Histogram {
    /// Counts one event of `ns` nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.add(ns, 1);
    }

    fn add(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    /// How many events were counted.
    pub fn total(&self) -> u64 {
        self.0.len()
    }

    /// The time in nanoseconds within which the share `quantile` (0 to 1) of the events was
    /// over; 0 without events.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let within = self.0.value_at_quantile(quantile);
        self.0.lowest_equivalent(within) as f64
    }

    /// The mean time of the events in nanoseconds; 0 without events.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.points().map(|(ns, n)| ns as f64 * n as f64).sum();
        if self.total() == 0 {
            0.0
        } else {
            sum / self.total() as f64
        }
    }

    /// The events of at least `ns` nanoseconds.
    pub fn from(&self, ns: u64) -> Histogram {
        self.points().filter(|(at, _)| *at >= ns).collect()
    }

    /// The quickest of the events, as large a share (0 to 1) of them as given.
    pub fn quickest(&self, share: f64) -> Histogram {
        let mut left = (self.total() as f64 * share.clamp(0.0, 1.0)) as u64;
        let some = self.points().map(|(ns, count)| {
            let count = count.min(left);
            left -= count;
            (ns, count)
        });
        some.collect()
    }

    /// For each time that occurred the share (0 to 1) of events within it, in ascending order.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let share = |(ns, count): (u64, u64)| {
            seen += count;
            (ns as f64, seen as f64 / self.total() as f64)
        };
        self.points().map(share).collect()
    }

    /// Times that occurred, in nanoseconds, and how often.
    fn points(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|at| {
            let ns = self.0.lowest_equivalent(at.value_iterated_to());
            (ns, at.count_at_value())
        })
    }
}

impl FromIterator<(u64, u64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(points: I) -> Histogram {
        let mut histogram = Histogram::default();
        points.into_iter().for_each(|(ns, n)| histogram.add(ns, n));
        histogram
    }
}

impl From<Vec<(u64, u64)>> for Histogram {
    fn from(points: Vec<(u64, u64)>) -> Histogram {
        points.into_iter().collect()
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
    fn a_time_is_told_to_one_percent() {
        for ns in (0..1000).chain((10..40).map(|p| (1u64 << p) + 12_345)) {
            let mut histogram = Histogram::default();
            histogram.record(ns);
            let told = histogram.quantile(0.5) as u64;
            assert!(told <= ns && ns - told <= ns / 100, "{ns}: {told}");
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
