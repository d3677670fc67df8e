//! How long requests take, for metrics. Measured only where somebody is to see it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tmem_wire::Op;

/// Upper bounds of the buckets: powers of two, from 1 microsecond to half a second.
const BUCKETS: usize = 20;

/// The requests that are told apart.
pub(crate) const OPS: [&str; 3] = ["read", "write", "other"];

/// Counts requests by how long they took, from the moment that they were received to the
/// moment that the answer was ready. The payload of a WRITE counts, and the network does not.
#[derive(Debug)]
pub(crate) struct Latency {
    is_on: bool,
    of: [Histogram; OPS.len()],
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// Those beyond the last bound.
    beyond: AtomicU64,
    sum_ns: AtomicU64,
}

/// The requests of one kind so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// What they ask for, `read`, `write` or `other`.
    pub op: &'static str,
    /// Upper bounds in seconds, and how many took no longer, but longer than the bound before.
    /// The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum: f64,
}

impl Latency {
    /// Measures, if it is on.
    pub(crate) fn new(is_on: bool) -> Latency {
        Latency {
            is_on,
            of: Default::default(),
        }
    }

    /// A request was received.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.is_on.then(Instant::now)
    }

    /// Its answer is ready.
    pub(crate) fn end(&self, op: Op, begun: Option<Instant>) {
        if let Some(begun) = begun {
            self.record(op, begun.elapsed());
        }
    }

    fn record(&self, op: Op, took: Duration) {
        let histogram = match op {
            Op::Read => &self.of[0],
            Op::Write => &self.of[1],
            _ => &self.of[2],
        };
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = histogram.buckets.get(bucket(ns));
        bucket.unwrap_or(&histogram.beyond).fetch_add(1, Relaxed);
        histogram.sum_ns.fetch_add(ns, Relaxed);
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Requests> {
        OPS.into_iter()
            .zip(&self.of)
            .map(Histogram::requests)
            .collect()
    }
}

/// The first bucket whose bound is not below `ns` nanoseconds.
fn bucket(ns: u64) -> usize {
    ns.div_ceil(1000).max(1).next_power_of_two().ilog2() as usize
}

impl Histogram {
    fn requests((op, histogram): (&'static str, &Histogram)) -> Requests {
        let counts = histogram.buckets.iter().map(|count| count.load(Relaxed));
        let bounds = (0..BUCKETS as u32).map(|n| f64::from(1u32 << n) * 1e-6);
        let mut buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        buckets.push((f64::INFINITY, histogram.beyond.load(Relaxed)));
        Requests {
            op,
            count: buckets.iter().map(|bucket| bucket.1).sum(),
            buckets,
            sum: histogram.sum_ns.load(Relaxed) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_the_first_bucket_that_holds_it() {
        let us = |us| Duration::from_micros(us);
        let latency = Latency::new(true);
        for took in [us(0), us(1), us(2), us(3), Duration::from_secs(2)] {
            latency.record(Op::Read, took);
        }
        let read = &latency.requests()[0];
        assert_eq!((read.op, read.count), ("read", 5));
        assert_eq!(read.buckets[..3], [(1e-6, 2), (2e-6, 1), (4e-6, 1)]);
        assert_eq!(read.buckets[BUCKETS], (f64::INFINITY, 1));
        assert!((read.sum - 2.000_006).abs() < 1e-9);
        assert_eq!(latency.requests()[1].count, 0);
    }

    #[test]
    fn without_anybody_to_see_it_nothing_is_measured() {
        let latency = Latency::new(false);
        assert!(latency.begin().is_none());
        latency.end(Op::Read, latency.begin());
        assert_eq!(latency.requests()[0].count, 0);
    }
}
