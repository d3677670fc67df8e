//! How far the suite is, and how long it still takes.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::work::Work;

/// What a process takes beside its workload.
const START: Duration = Duration::from_millis(200);

/// How fast memory is filled and checked, in bytes per second, natively or paged: a guess, which
/// the time that passed corrects.
const RATE: f64 = 1e9;

/// What there is to do, and what is done.
#[derive(Debug)]
pub(super) struct Progress {
    /// Nothing is run yet: works are only counted.
    plans: Cell<bool>,
    /// What all works take, as expected.
    total: Cell<Duration>,
    /// What those took that are done, as expected.
    done: Cell<Duration>,
    begun: Cell<Instant>,
}

impl Progress {
    /// Begins to plan.
    pub(super) fn new() -> Progress {
        Progress {
            plans: Cell::new(true),
            total: Cell::new(Duration::ZERO),
            done: Cell::new(Duration::ZERO),
            begun: Cell::new(Instant::now()),
        }
    }

    /// All is planned: begins to run.
    pub(super) fn begin(&self) {
        self.plans.set(false);
        self.begun.set(Instant::now());
    }

    /// Whether works are only counted.
    pub(super) fn plans(&self) -> bool {
        self.plans.get()
    }

    /// There is this to do.
    pub(super) fn plan(&self, work: &Work) {
        self.total.set(self.total.get() + expected(work));
    }

    /// This is done.
    pub(super) fn done(&self, work: &Work) {
        self.done.set(self.done.get() + expected(work));
    }

    /// Prints what is being measured, if stderr is a terminal.
    pub(super) fn show(&self, what: &str) {
        if self.plans() || !io::stderr().is_terminal() {
            return;
        }
        let elapsed = self.begun.get().elapsed();
        let rest = left(self.total.get(), self.done.get(), elapsed);
        eprint!("\r\x1b[K{what} ({})", text(rest));
    }
}

/// Clears the line that [`Progress::show`] has printed.
pub(super) fn clear() {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// How long a work takes, without the network.
fn expected(work: &Work) -> Duration {
    let filled = |bytes: u64| Duration::from_secs_f64(2.0 * bytes as f64 / RATE);
    START
        + match work {
            // There are thirteen floors.
            Work::Floors { bytes, time, .. } => filled(*bytes) + *time * 13,
            Work::BareFaults { time, .. } => *time * 2,
            Work::Start { count, .. } => Duration::from_millis(2) * *count as u32,
            Work::Pattern { bytes, pace, .. } | Work::Threads { bytes, pace, .. } => {
                filled(*bytes) + pace.warm + pace.measure
            }
            Work::Fill { bytes } | Work::Touch { bytes } => filled(*bytes),
        }
}

/// How long the rest takes, where all that was expected to take `done` took `elapsed`.
fn left(total: Duration, done: Duration, elapsed: Duration) -> Duration {
    let rest = total.saturating_sub(done);
    if done.is_zero() {
        return rest;
    }
    rest.mul_f64(elapsed.as_secs_f64() / done.as_secs_f64())
}

/// A time as people say it, since it is an estimate.
fn text(left: Duration) -> String {
    let seconds = left.as_secs_f64();
    match seconds {
        ..5.0 => "nearly done".to_owned(),
        5.0..90.0 => format!("about {:.0} s left", (seconds / 5.0).ceil() * 5.0),
        _ => format!("about {:.0} min left", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_slow_as_what_is_done_was() {
        let s = Duration::from_secs;
        assert_eq!(left(s(60), s(0), s(1)), s(60));
        assert_eq!(left(s(60), s(20), s(40)), s(80));
        assert_eq!(left(s(60), s(60), s(40)), s(0));
        // More was done than was planned.
        assert_eq!(left(s(60), s(70), s(40)), s(0));
        let texts = [0, 7, 60, 89, 100, 600].map(|n| text(s(n)));
        let wanted = [
            "nearly done",
            "about 10 s left",
            "about 60 s left",
            "about 90 s left",
        ];
        assert_eq!(texts[..4], wanted);
        assert_eq!(texts[4..], ["about 2 min left", "about 10 min left"]);
    }

    #[test]
    fn what_is_planned_and_done_leaves_nothing() {
        let progress = Progress::new();
        let works = [
            Work::Fill { bytes: 1 << 30 },
            Work::Touch { bytes: 1 << 20 },
        ];
        works.iter().for_each(|work| progress.plan(work));
        progress.begin();
        works.iter().for_each(|work| progress.done(work));
        assert_eq!(progress.total.get(), progress.done.get());
    }
}
