//! The workloads. Each process runs one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tmem_benches::floors::{Floors, Server, faults_per_second};
use tmem_benches::fresh::Fresh;
use tmem_benches::memory::Memory;
use tmem_benches::outcome::{Outcome, Pager};
use tmem_benches::pattern::Pattern;
use tmem_benches::spawn;
use tmem_benches::walk::{Limits, Span, Walk, read_with_threads};
use tmem_config::read_secret;
use tmem_pager::stats::Totals;

use crate::stats::Stats;

/// One workload, as it is handed to the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Work {
    /// What the machine can do; the answer is a `Floors`.
    Floors {
        address: String,
        secret_file: Option<PathBuf>,
        bytes: u64,
        time: Duration,
    },
    /// Faults of several threads with a pager that does nothing else; the answer is
    /// how many in a second.
    BareFaults { threads: usize, time: Duration },
    /// `/bin/true` with and without the library; the answer is two numbers.
    Start { count: usize, library: PathBuf },
    /// Memory used in an order.
    Pattern {
        name: String,
        bytes: u64,
        pace: Pace,
        /// Each access is timed.
        timed: bool,
    },
    /// Random reads with several threads.
    Threads {
        threads: usize,
        bytes: u64,
        pace: Pace,
    },
    /// Fresh memory, measured after half of it: whole pages are filled.
    Fill { bytes: u64 },
    /// The same, but each page is only touched, and timed.
    Touch { bytes: u64 },
}

/// How long a workload is run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// Before anything is measured.
    pub(super) warm: Duration,
    /// Measured.
    pub(super) measure: Duration,
}

/// Accesses at most, for each thread: what is paged ends by its time.
const ACCESSES: u64 = 20_000_000;

impl Pace {
    fn limits(time: Duration) -> Limits {
        Limits {
            accesses: ACCESSES,
            time,
        }
    }
}

/// The pager's stats of this process, where it has a pager.
struct Gauge(Option<Stats>);

impl Gauge {
    fn of_environment() -> Gauge {
        Gauge(Stats::of_family())
    }

    fn read(&self) -> Option<Totals> {
        self.0.as_ref().map(Stats::totals)
    }

    /// Runs `f`. Returns its result, and what the pager did meanwhile.
    fn around<T, E>(&self, what: impl FnOnce() -> Result<T, E>) -> Result<(T, Option<Pager>), E> {
        let before = self.read();
        let done = what()?;
        let after = self.read();
        let both = before.zip(after);
        Ok((done, both.map(|(b, a)| Pager::between(&b, &a))))
    }
}

/// Runs the workload and returns its line of JSON.
pub(super) fn run(work: &Work) -> Result<String, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    match work {
        Work::Floors {
            address,
            secret_file,
            bytes,
            time,
        } => {
            let secret = secret_file.as_deref().map(read_secret).transpose();
            let server = Server {
                address: address.clone(),
                secret: secret.map_err(|e| text(&e))?,
            };
            let floors = Floors::measure(&server, *bytes as usize, *time).map_err(|e| text(&e))?;
            serde_json::to_string(&floors)
        }
        Work::BareFaults { threads, time } => {
            let rate = faults_per_second(*threads, *time).map_err(|e| text(&e))?;
            serde_json::to_string(&rate)
        }
        Work::Start { count, library } => {
            let times = start(*count, library).map_err(|e| text(&e))?;
            serde_json::to_string(&times)
        }
        other => serde_json::to_string(&measure(other).map_err(|e| text(&e))?),
    }
    .map_err(|e| text(&e))
}

fn start(count: usize, library: &Path) -> std::io::Result<(f64, f64)> {
    let library = library.to_string_lossy();
    let times = spawn::start_up(count, &library, &["/bin/true".to_owned()])?;
    Ok((times.plain, times.preloaded))
}

fn measure(work: &Work) -> Result<Outcome, tmem_benches::Error> {
    let gauge = Gauge::of_environment();
    match work {
        Work::Pattern {
            name,
            bytes,
            pace,
            timed,
        } => {
            let pattern: Pattern = name.parse().map_err(tmem_benches::Error::Server)?;
            let start = Instant::now();
            let mut walk = Walk::new(pattern, *bytes as usize);
            let fill_ns = start.elapsed().as_nanos() as f64;
            walk.go(Pace::limits(pace.warm))?;
            let limits = Pace::limits(pace.measure);
            let ((span, latency), pager) = gauge.around(|| match timed {
                true => walk
                    .go_timed(limits)
                    .map(|(span, times)| (span, Some(times))),
                false => walk.go(limits).map(|span| (span, None)),
            })?;
            walk.verify()?;
            Ok(Outcome {
                fill_ns,
                latency,
                pager,
                ..Outcome::of(span)
            })
        }
        Work::Threads {
            threads,
            bytes,
            pace,
        } => {
            let start = Instant::now();
            let memory = Memory::filled(*bytes as usize);
            let fill_ns = start.elapsed().as_nanos() as f64;
            read_with_threads(&memory, *threads, Pace::limits(pace.warm), 1)?;
            let limits = Pace::limits(pace.measure);
            let read = || read_with_threads(&memory, *threads, limits, 2);
            let (span, pager) = gauge.around(read)?;
            Ok(Outcome {
                fill_ns,
                pager,
                ..Outcome::of(span)
            })
        }
        Work::Fill { bytes } => fresh(&gauge, *bytes, |fresh, pages| (fresh.fill(pages), None)),
        Work::Touch { bytes } => fresh(&gauge, *bytes, |fresh, pages| {
            let (span, latency) = fresh.touch(pages);
            (span, Some(latency))
        }),
        // These have answers of another kind.
        Work::Floors { .. } | Work::BareFaults { .. } | Work::Start { .. } => {
            Ok(Outcome::default())
        }
    }
}

type Times = tmem_benches::histogram::Histogram;

fn fresh(
    gauge: &Gauge,
    bytes: u64,
    mut go_on: impl FnMut(&mut Fresh, usize) -> (Span, Option<Times>),
) -> Result<Outcome, tmem_benches::Error> {
    let mut fresh = Fresh::new(bytes as usize);
    let half = fresh.left() / 2;
    let (before, _) = go_on(&mut fresh, half);
    let measured = || Ok::<_, tmem_benches::Error>(go_on(&mut fresh, usize::MAX));
    let ((span, latency), pager) = gauge.around(measured)?;
    fresh.verify()?;
    Ok(Outcome {
        fill_ns: before.ns,
        latency,
        pager,
        ..Outcome::of(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_survive_the_command_line_and_can_be_done() {
        let soon = Duration::from_millis(2);
        let pace = Pace {
            warm: soon,
            measure: soon,
        };
        let bytes = 1 << 20;
        for work in [
            Work::Pattern {
                name: "zipf".to_owned(),
                bytes,
                pace,
                timed: true,
            },
            Work::Threads {
                threads: 2,
                bytes,
                pace,
            },
            Work::Fill { bytes },
            Work::Touch { bytes },
        ] {
            let text = serde_json::to_string(&work).unwrap();
            assert_eq!(serde_json::from_str::<Work>(&text).unwrap(), work);
            let line = run(&work).unwrap();
            let outcome: Outcome = serde_json::from_str(&line).unwrap();
            assert!(outcome.accesses > 0 && outcome.ns > 0.0, "{text}");
            let timed = matches!(work, Work::Pattern { .. } | Work::Touch { .. });
            assert_eq!(outcome.latency.is_some(), timed);
        }
    }

    #[test]
    fn an_unknown_pattern_is_an_error() {
        let soon = Duration::from_millis(1);
        let work = Work::Pattern {
            name: "none".to_owned(),
            bytes: 4096,
            pace: Pace {
                warm: soon,
                measure: soon,
            },
            timed: false,
        };
        assert!(run(&work).is_err());
    }
}
