//! All that a run of the benchmarks found. Its JSON form is this structure:
//! times are in nanoseconds, sizes in bytes, rates in 10^9 bytes per second.

use serde::Serialize;

use crate::floors::Floors;
use crate::histogram::Histogram;
use crate::outcome::Outcome;
use crate::pattern::Pattern;

/// A whole report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The version of tmem.
    pub version: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Settings,
    /// What the machine could do at best, where that was measured.
    pub floors: Option<Floors>,
    /// Access patterns under budgets.
    pub patterns: Vec<PatternRow>,
    /// Times of single accesses.
    pub latency: Vec<LatencyRow>,
    /// Fresh memory filled beyond the budget, whole pages.
    pub fill: Option<FillRow>,
    /// Random reads of several threads.
    pub threads: Vec<ThreadRow>,
    /// What tmem costs a program that fits into its budget.
    pub fits: Vec<FitsRow>,
    /// Starting a small program.
    pub start: Option<StartRow>,
}

/// The machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Processors that may be used.
    pub cpus: usize,
    /// Bytes of RAM.
    pub ram_bytes: u64,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// Bytes of each workload's memory.
    pub size_bytes: u64,
    /// Shares of it that may be local, in percent.
    pub local_percent: Vec<f64>,
    /// The servers; the embedded one's address where none was named.
    pub servers: Vec<String>,
    /// Whether the server is within the command.
    pub embedded: bool,
    /// Whether it was the short mode.
    pub quick: bool,
}

/// What the pager did for a process in its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Whole {
    /// The budget, in bytes.
    pub budget_bytes: u64,
    /// The most that was resident, in bytes.
    pub peak_resident_bytes: u64,
    /// Faults that the pager took itself; anything but 0 is a defect.
    pub self_faults: u64,
    /// Pages taken out of the program.
    pub evicted_pages: u64,
    /// Half of the faults were served within this, in microseconds.
    pub fault_p50_us: f64,
    /// 99 of 100 faults were served within this, in microseconds.
    pub fault_p99_us: f64,
    /// 999 of 1000 faults were served within this, in microseconds.
    pub fault_p999_us: f64,
}

/// A workload that ran under tmem.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Paged {
    /// Its measured part.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Its whole life.
    pub whole: Whole,
}

/// The result of one pattern with one budget.
#[derive(Clone, Debug, Serialize)]
pub struct PatternRow {
    /// The pattern.
    pub pattern: &'static str,
    /// Share of the memory that may be local, in percent; nothing natively. At
    /// 100 the budget has room to spare.
    pub local_percent: Option<f64>,
    /// Nanoseconds of an access.
    pub ns_per_access: f64,
    /// Rate, of patterns in order only.
    pub gb_per_s: Option<f64>,
    /// Times as long as natively; nothing natively.
    pub slowdown: Option<f64>,
    /// Beside the floor, where there is one: see [`PatternRow::floor`].
    pub to_floor: Option<f64>,
    /// What the process told, and its pager.
    pub run: Paged,
}

impl PatternRow {
    /// Compares with what the machine could do. In order: the time of a byte
    /// beside that of a byte of a plain stream of as many bytes, one way or both. At
    /// random: the time of an access beyond the native one, by the share of accesses
    /// whose page is not local, beside a round trip and a bare fault. Both are 1 where
    /// the pager adds nothing; what is local from one scan to the next, and pages that
    /// wait to be sent and are used again, make it less.
    pub fn floor(&mut self, floors: &Floors, native_ns: f64, pattern: Pattern) {
        let absent = 1.0 - self.local_percent.unwrap_or(100.0) / 100.0;
        if absent <= 0.0 {
            return;
        }
        if pattern.in_order() {
            let best = floors.best_gb_per_s(pattern.writes());
            self.to_floor = Some(best / self.run.outcome.gb_per_s());
        } else if pattern.even() {
            let miss = (self.ns_per_access - native_ns).max(0.0) / absent;
            self.to_floor = Some(miss / floors.miss_ns());
        }
    }
}

/// An access slower than this found its page absent: no fault is faster, and
/// next to no other access is as slow.
pub const ABSENT_NS: u64 = 2048;

/// Times of single accesses at 50 % local, or a little less than all, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyRow {
    /// What was done.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// Half took no longer.
    pub p50_ns: f64,
    /// 99 of 100 took no longer.
    pub p99_ns: f64,
    /// 999 of 1000 took no longer.
    pub p999_ns: f64,
    /// Share (0 to 1) of accesses of at least [`ABSENT_NS`].
    pub absent_share: f64,
    /// Half of these took no longer.
    pub absent_p50_ns: f64,
    /// 99 of 100 of these took no longer.
    pub absent_p99_ns: f64,
    /// The mean of these.
    pub absent_mean_ns: f64,
    /// The mean of these beside a round trip and a bare fault, or beside a bare
    /// fault alone where there was no round trip; of random places only.
    pub to_floor: Option<f64>,
    /// What the process told, and its pager.
    pub run: Paged,
}

impl LatencyRow {
    /// From the times of a run; `floor_ns` where it is known.
    pub fn new(kind: &'static str, run: Paged, floor_ns: Option<f64>) -> LatencyRow {
        LatencyRow::with(kind, run, floor_ns, 1.0)
    }

    /// Those alone that found their page absent and resting in the pool: of all that
    /// found it absent the quickest, as many as the pager counted.
    pub fn standby_refaults(run: Paged, floor_ns: Option<f64>) -> LatencyRow {
        let pager = run.outcome.pager.unwrap_or_default();
        let share = pager.standby_refaults as f64 / pager.faults.max(1) as f64;
        LatencyRow::with("standby hit", run, floor_ns, share)
    }

    /// Takes the quickest `share` of the accesses that found their page absent.
    fn with(kind: &'static str, run: Paged, floor_ns: Option<f64>, share: f64) -> LatencyRow {
        let all = run.outcome.latency.clone().unwrap_or_default();
        let absent: Histogram = all.from(ABSENT_NS).quickest(share);
        let mean = absent.mean();
        LatencyRow {
            kind,
            count: all.total(),
            p50_ns: all.quantile(0.5),
            p99_ns: all.quantile(0.99),
            p999_ns: all.quantile(0.999),
            absent_share: absent.total() as f64 / all.total().max(1) as f64,
            absent_p50_ns: absent.quantile(0.5),
            absent_p99_ns: absent.quantile(0.99),
            absent_mean_ns: mean,
            to_floor: floor_ns.filter(|_| mean > 0.0).map(|floor| mean / floor),
            run,
        }
    }
}

/// Fresh memory filled beyond the budget.
#[derive(Clone, Debug, Serialize)]
pub struct FillRow {
    /// Natively.
    pub native_gb_per_s: f64,
    /// Under tmem, once the budget was used.
    pub gb_per_s: f64,
    /// The plain stream's rate by this one, where it was measured: at least 1,
    /// for all that is filled has to be sent.
    pub to_floor: Option<f64>,
    /// What the process told, and its pager.
    pub run: Paged,
}

/// Random reads at 50 % local.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadRow {
    /// Threads at once.
    pub threads: usize,
    /// Accesses per second, of all threads together, natively.
    pub native_per_s: f64,
    /// The same under tmem.
    pub per_s: f64,
    /// Beside one thread.
    pub speedup: f64,
    /// Faults per second of as many threads, with a pager of one thread and without a network
    /// that evicts a page for each fault.
    pub bare_per_s: f64,
    /// Beside those of one thread.
    pub bare_speedup: f64,
    /// What the process told, and its pager.
    pub run: Paged,
}

/// The same work natively and with a budget that it fits into: medians of
/// runs by turns.
#[derive(Clone, Debug, Serialize)]
pub struct FitsRow {
    /// What was done.
    pub work: &'static str,
    /// Nanoseconds of an access natively; of a page when filling.
    pub native_ns: f64,
    /// The same under tmem.
    pub tmem_ns: f64,
    /// Runs of each.
    pub rounds: usize,
}

impl FitsRow {
    /// What tmem adds, in percent.
    pub fn added_percent(&self) -> f64 {
        100.0 * (self.tmem_ns / self.native_ns - 1.0)
    }
}

/// Start to end of `/bin/true`: medians.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StartRow {
    /// Microseconds without the library.
    pub plain_us: f64,
    /// Microseconds with it.
    pub preloaded_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floors::Times;

    fn row(local: Option<f64>, ns: f64) -> PatternRow {
        PatternRow {
            pattern: "random-read",
            local_percent: local,
            ns_per_access: ns,
            gb_per_s: None,
            slowdown: None,
            to_floor: None,
            run: Paged {
                outcome: Outcome {
                    accesses: 1,
                    bytes: 4096,
                    ns,
                    ..Outcome::default()
                },
                whole: Whole::default(),
            },
        }
    }

    #[test]
    fn floors_of_patterns() {
        let floors = Floors {
            echo: Times {
                mean_ns: 900.0,
                ..Times::default()
            },
            echo_one_cpu: Times {
                mean_ns: 1000.0,
                ..Times::default()
            },
            stream_once_gb_per_s: 8.0,
            stream_both_gb_per_s: 6.0,
            server_is_local: true,
            ..Floors::default()
        };
        let mut random = row(Some(75.0), 550.0);
        random.floor(&floors, 100.0, Pattern::RandomRead);
        assert_eq!(random.to_floor, Some(2.0));
        let mut ordered = row(Some(75.0), 1024.0);
        ordered.floor(&floors, 100.0, Pattern::SeqRead);
        assert_eq!(ordered.to_floor, Some(2.0));
        ordered.floor(&floors, 100.0, Pattern::SeqRmw);
        assert_eq!(ordered.to_floor, Some(1.5));
        let mut fits = row(Some(100.0), 1024.0);
        fits.floor(&floors, 100.0, Pattern::SeqRead);
        assert_eq!(fits.to_floor, None);
    }

    #[test]
    fn absent_pages_are_told_apart() {
        let mut latency = Histogram::default();
        (0..60).for_each(|_| latency.record(100));
        (0..40).for_each(|_| latency.record(8192));
        let run = Paged {
            outcome: Outcome {
                latency: Some(latency),
                ..Outcome::default()
            },
            whole: Whole::default(),
        };
        let row = LatencyRow::new("random-read", run, Some(4096.0));
        assert_eq!((row.count, row.absent_share), (100, 0.4));
        assert_eq!((row.p99_ns, row.absent_p50_ns), (8192.0, 8192.0));
        assert_eq!(row.to_floor, Some(2.0));
    }

    #[test]
    fn standby_hits_are_told_from_misses() {
        let mut latency = Histogram::default();
        (0..40).for_each(|_| latency.record(100));
        (0..45).for_each(|_| latency.record(4096));
        (0..15).for_each(|_| latency.record(16384));
        let pager = crate::outcome::Pager {
            faults: 60,
            standby_refaults: 45,
            ..Default::default()
        };
        let run = Paged {
            outcome: Outcome {
                latency: Some(latency),
                pager: Some(pager),
                ..Outcome::default()
            },
            whole: Whole::default(),
        };
        let row = LatencyRow::standby_refaults(run, Some(2048.0));
        assert_eq!((row.count, row.absent_share), (100, 0.45));
        assert_eq!((row.absent_p99_ns, row.to_floor), (4096.0, Some(2.0)));
    }

    #[test]
    fn json_has_the_parts() {
        let report = Report {
            patterns: vec![row(None, 5.0)],
            ..Report::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["patterns"][0]["pattern"], "random-read");
        assert_eq!(json["patterns"][0]["run"]["bytes"], 4096);
        assert!(json["floors"].is_null());
        for part in ["machine", "settings", "latency", "threads", "fits", "start"] {
            assert!(json.get(part).is_some(), "{part}");
        }
    }
}
