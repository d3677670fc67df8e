//! What a program had over its life, in bounded memory.

use std::time::Duration;

/// Samples that are kept. When they are full, two become one.
const MOST: usize = 1024;

/// What rates are taken over. Engines publish the time waited ten times a second, so that a
/// shorter time has all of it or none.
const WINDOW: Duration = Duration::from_secs(1);

/// What there was at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Since the beginning.
    pub(super) at: Duration,
    /// Processes that lived.
    pub(super) processes: u64,
    /// In bytes, as the next two.
    pub(super) budget: u64,
    pub(super) resident: u64,
    pub(super) remote: u64,
    /// Counted since the beginning, as the next two.
    pub(super) faults: u64,
    pub(super) some_ns: u64,
    pub(super) full_ns: u64,
}

/// What happened between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// In a second.
    pub(super) faults: f64,
    /// Shares of the time of a process, 0 to 1.
    pub(super) some: f64,
    pub(super) full: f64,
}

/// Samples in the order of time.
#[derive(Clone, Debug)]
pub(super) struct History {
    samples: Vec<Sample>,
    interval: Duration,
}

impl Sample {
    /// Both as one: the most memory of either, and the later counts.
    fn with(self, later: Sample) -> Sample {
        Sample {
            processes: self.processes.max(later.processes),
            budget: self.budget.max(later.budget),
            resident: self.resident.max(later.resident),
            remote: self.remote.max(later.remote),
            ..later
        }
    }
}

impl History {
    /// Begins, with a sample at each `interval` for now.
    pub(super) fn new(interval: Duration) -> History {
        History {
            samples: Vec::with_capacity(MOST),
            interval,
        }
    }

    /// When the next sample is due, after the one before.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes a sample that is later than all before. The interval doubles when there is no
    /// more room.
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() == MOST {
            let pairs = self.samples.chunks(2);
            let halved = pairs.map(|pair| match pair {
                [one, other] => one.with(*other),
                _ => pair[0],
            });
            self.samples = halved.collect();
            self.interval *= 2;
        }
        self.samples.push(sample);
    }

    /// A point for each sample, by seconds.
    pub(super) fn points(&self, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
        let point = |sample: &Sample| (sample.at.as_secs_f64(), value(sample));
        self.samples.iter().map(point).collect()
    }

    /// A point for each sample but the first: what happened in the [`WINDOW`] before it, or since
    /// the sample before where these lie further apart.
    pub(super) fn rates(&self, value: impl Fn(&Rates) -> f64) -> Vec<(f64, f64)> {
        let mut from = 0;
        let point = |at: usize| {
            let now = &self.samples[at];
            let is_window = |before: &Sample| now.at.saturating_sub(before.at) >= WINDOW;
            while from + 1 < at && is_window(&self.samples[from + 1]) {
                from += 1;
            }
            let rates = between(&self.samples[from], now)?;
            Some((now.at.as_secs_f64(), value(&rates)))
        };
        (1..self.samples.len()).filter_map(point).collect()
    }
}

/// What happened between two samples; nothing where no time passed.
fn between(before: &Sample, now: &Sample) -> Option<Rates> {
    let seconds = now.at.checked_sub(before.at)?.as_secs_f64();
    let by_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    // Times of several processes add up.
    let processes = before.processes.max(now.processes).max(1) as f64;
    let share = |before, now| (by_second(before, now) / 1e9 / processes).min(1.0);
    (seconds > 0.0).then(|| Rates {
        faults: by_second(before.faults, now.faults),
        some: share(before.some_ns, now.some_ns),
        full: share(before.full_ns, now.full_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Sample {
        Sample {
            at: Duration::from_millis(ms),
            processes: 1,
            faults: ms,
            some_ns: ms * 500_000,
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_by_the_second_and_by_process() {
        let mut history = History::new(Duration::from_millis(100));
        history.push(at(0));
        history.push(at(0));
        history.push(at(2000));
        let two = Sample {
            processes: 2,
            ..at(4000)
        };
        history.push(two);
        // The first two are one moment.
        assert_eq!(history.rates(|r| r.faults), [(2.0, 1000.0), (4.0, 1000.0)]);
        assert_eq!(history.rates(|r| r.some), [(2.0, 0.5), (4.0, 0.25)]);
        assert_eq!(history.rates(|r| r.full), [(2.0, 0.0), (4.0, 0.0)]);
    }

    #[test]
    fn what_is_published_in_bursts_is_drawn_level() {
        let mut history = History::new(Duration::from_millis(50));
        for ms in (0..=10_000).step_by(50) {
            // A thread waits half of the time, which is told every 100 ms.
            let some_ns = ms / 100 * 50_000_000;
            history.push(Sample { some_ns, ..at(ms) });
        }
        let shares = history.rates(|rates| rates.some);
        let whole = shares.iter().filter(|(at, _)| *at >= 1.0);
        for (at, share) in whole {
            assert!((0.45..=0.55).contains(share), "{share} at {at} s");
        }
        // What was long ago does not count.
        history.push(Sample {
            some_ns: 5_000_000_000,
            ..at(11_000)
        });
        history.push(Sample {
            some_ns: 5_000_000_000,
            ..at(12_000)
        });
        assert_eq!(history.rates(|rates| rates.some).last(), Some(&(12.0, 0.0)));
    }

    #[test]
    fn a_long_life_has_as_many_samples_and_keeps_its_peaks_and_counts() {
        let mut history = History::new(Duration::from_secs(1));
        let last = 5000 * MOST as u64;
        for ms in (0..=last).step_by(1000) {
            let resident = if ms == 7000 { 1 << 30 } else { 1 << 20 };
            history.push(Sample { resident, ..at(ms) });
        }
        assert!(history.samples.len() <= MOST);
        assert!(history.interval() > Duration::from_secs(1));
        assert!(history.samples.is_sorted_by_key(|sample| sample.at));
        let peaks = history.points(|sample| sample.resident as f64);
        let high = peaks.iter().filter(|(_, bytes)| *bytes > 1e9);
        assert_eq!(high.count(), 1);
        assert_eq!(
            history.samples.last(),
            Some(&Sample {
                resident: 1 << 20,
                ..at(last)
            })
        );
        // By now samples lie as far apart as the window: all is told that was counted.
        let ends: Vec<f64> = history
            .points(|s| s.faults as f64)
            .iter()
            .map(|p| p.1)
            .collect();
        let (first, last) = (ends[0], ends[ends.len() - 1]);
        let seconds = |rates: Vec<(f64, f64)>| -> f64 {
            let mut before = history.samples[0].at.as_secs_f64();
            let mut sum = 0.0;
            for (at, rate) in rates {
                sum += rate * (at - before);
                before = at;
            }
            sum
        };
        let told = seconds(history.rates(|r| r.faults));
        assert!((told - (last - first)).abs() < 1e-6, "{told}");
    }
}
