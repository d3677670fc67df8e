//! `tmem run --plot`: what the program had and waited for, over its life, as a chart.

mod history;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tmem_benches::svg::{Axis, Chart, Scale, Series, stacked};
use tmem_config::write_file;

use crate::stats::Stats;
use history::{History, Rates, Sample};

/// Between two samples at first; it grows with the program's life.
const INTERVAL: Duration = Duration::from_millis(50);

/// Takes samples, as long as this lives.
pub(crate) struct Plot {
    path: PathBuf,
    name: String,
    /// The thread ends when this is gone.
    ends: Sender<()>,
    thread: JoinHandle<History>,
}

impl Plot {
    /// Begins to take samples of the processes that keep these statistics, in a thread that has
    /// the signal mask of the caller.
    pub(crate) fn begin(path: &Path, name: String, stats: Stats) -> io::Result<Plot> {
        let (ends, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("plot".to_owned())
            .spawn(move || {
                let begun = Instant::now();
                let mut history = History::new(INTERVAL);
                loop {
                    history.push(sample(&stats, begun));
                    let news = ended.recv_timeout(history.interval());
                    if news != Err(RecvTimeoutError::Timeout) {
                        history.push(sample(&stats, begun));
                        return history;
                    }
                }
            })?;
        Ok(Plot {
            path: path.to_owned(),
            name,
            ends,
            thread,
        })
    }

    /// The program has ended: draws.
    ///
    /// # Errors
    /// A message, where the file cannot be written.
    pub(crate) fn end(self) -> Result<(), String> {
        drop(self.ends);
        // A panic there was reported when it happened.
        let history = self.thread.join().unwrap_or(History::new(INTERVAL));
        let svg = stacked(&charts(&self.name, &history));
        let written = write_file(&self.path, svg.as_bytes());
        written.map_err(|e| format!("plot not written to {}: {e}", self.path.display()))
    }
}

fn sample(stats: &Stats, begun: Instant) -> Sample {
    let (now, totals) = (stats.present(), stats.totals());
    Sample {
        at: begun.elapsed(),
        processes: now.processes,
        budget: now.budget,
        resident: now.resident,
        remote: now.remote,
        faults: totals.faults,
        some_ns: totals.waited_some_ns,
        full_ns: totals.waited_full_ns,
    }
}

/// Memory, faults and waiting, one below the other.
fn charts(name: &str, history: &History) -> [Chart; 3] {
    let axis = |label: &str| Axis {
        label: label.to_owned(),
        scale: Scale::Linear,
    };
    let chart = |title: &str, y: &str, series: Vec<Series>| Chart {
        title: title.to_owned(),
        x: axis("seconds"),
        y: axis(y),
        series,
    };
    let line = |name: &str, points| Series {
        name: name.to_owned(),
        points,
        dots: false,
    };
    let mib = |bytes: fn(&Sample) -> u64| {
        history.points(|sample| bytes(sample) as f64 / f64::from(1 << 20))
    };
    let percent = |share: fn(&Rates) -> f64| history.rates(|rates| 100.0 * share(rates));
    [
        chart(
            &format!("{name}: memory"),
            "MiB",
            vec![
                line("resident", mib(|s| s.resident)),
                line("remote", mib(|s| s.remote)),
                line("budget", mib(|s| s.budget)),
            ],
        ),
        chart(
            "Page faults",
            "in a second",
            vec![line("faults", history.rates(|rates| rates.faults))],
        ),
        chart(
            "Time waited for pages",
            "% of the time",
            vec![
                line("some thread", percent(|rates| rates.some)),
                line("all threads", percent(|rates| rates.full)),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_memory_faults_and_waiting() {
        let mut history = History::new(INTERVAL);
        for second in 0..4u64 {
            history.push(Sample {
                at: Duration::from_secs(second),
                processes: 1,
                budget: 64 << 20,
                resident: second << 20,
                remote: second << 21,
                faults: 500 * second,
                some_ns: 250_000_000 * second,
                full_ns: 0,
            });
        }
        let [memory, faults, waited] = charts("app", &history);
        assert_eq!(memory.series[1].points[3], (3.0, 6.0));
        assert_eq!(memory.series[2].points[0], (0.0, 64.0));
        assert_eq!(
            faults.series[0].points,
            [(1.0, 500.0), (2.0, 500.0), (3.0, 500.0)]
        );
        assert_eq!(waited.series[0].points[0], (1.0, 25.0));
        let svg = stacked(&[memory, faults, waited]);
        for text in ["app: memory", "Page faults", "Time waited", "some thread"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_program_that_ends_at_once_has_a_chart_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("life.svg");
        let stats = Stats::new().unwrap();
        let plot = Plot::begin(&path, "app".to_owned(), stats.again().unwrap()).unwrap();
        plot.end().unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg ") && !svg.contains("NaN"), "{svg}");
    }
}
