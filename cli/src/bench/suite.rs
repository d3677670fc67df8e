//! What is measured, in which order, under which budgets.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use tmem_benches::floors::Floors;
use tmem_benches::median;
use tmem_benches::outcome::Outcome;
use tmem_benches::pattern::Pattern;
use tmem_benches::report::{
    FillRow, FitsRow, LatencyRow, Machine, Paged, PatternRow, Report, Settings, StartRow, ThreadRow,
};
use tmem_benches::tables;
use tmem_benches::units;
use tmem_config::{Layer, Memory, check_local};

use super::args::{BenchArgs, Part};
use super::progress;
use super::runner::{Runner, Stop, options};
use super::work::{Pace, Work};

/// The share for measurements of latencies and threads, in percent.
const HALF: f64 = 50.0;
/// The share at which most absent pages are still on standby, in percent.
const NEARLY_ALL: f64 = 97.0;

/// How much is measured.
struct Amount {
    pace: Pace,
    /// For each floor.
    floor: Duration,
    /// Runs of each side, where two are compared by turns.
    rounds: usize,
    /// Starts of a small program.
    starts: usize,
    threads: &'static [usize],
}

impl Amount {
    fn new(quick: bool) -> Amount {
        let ms = Duration::from_millis;
        let (warm, measure, floor) = match quick {
            true => (ms(250), ms(400), ms(150)),
            false => (ms(2000), ms(3000), ms(1000)),
        };
        Amount {
            pace: Pace { warm, measure },
            floor,
            rounds: 3,
            starts: if quick { 40 } else { 200 },
            threads: if quick { &[1, 4] } else { &[1, 2, 4, 8] },
        }
    }

    /// Natively, where everything is warm once it was filled, and nothing
    /// takes long.
    fn native(&self) -> Pace {
        Pace {
            warm: self.pace.warm / 4,
            measure: self.pace.measure / 2,
        }
    }
}

/// Measures what is wanted. See [`Suite::all`].
pub(super) fn measure(args: &BenchArgs) -> Result<Report, Stop> {
    let memory = Memory::get().map_err(Stop::own)?;
    let (bytes, shares) = (args.bytes(memory.most()), args.shares());
    check_budgets(args, bytes, &shares, &memory)?;
    let runner = Runner::new(
        options(Layer {
            servers: (!args.server.is_empty()).then(|| args.server.clone()),
            secret_file: args.secret_file.clone(),
            ..Layer::default()
        })?,
        &memory,
    )?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine {
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            cpus,
            ram_bytes: memory.ram,
        },
        settings: Settings {
            size_bytes: bytes,
            local_percent: shares.clone(),
            servers: runner.servers(),
            embedded: runner.is_embedded(),
            quick: args.quick,
        },
        ..Report::default()
    };
    let mut suite = Suite {
        runner,
        amount: Amount::new(args.quick),
        bytes,
        report: report.clone(),
    };
    // The same twice: first only to see what there is to do.
    suite.all(args, &shares)?;
    suite.report = report;
    suite.runner.progress.begin();
    suite.say(&format!("{}\n", tables::heading(&suite.report)))?;
    suite.all(args, &shares)?;
    Ok(suite.report)
}

/// The budget in bytes for a share of `bytes`. For 100 % it has headroom, since the program
/// has more memory than its workload.
fn budget(bytes: u64, percent: f64) -> u64 {
    if percent >= 100.0 {
        bytes + bytes / 4 + (32 << 20)
    } else {
        (bytes as f64 * percent / 100.0) as u64
    }
}

/// Refuses flags for which nothing could be measured.
fn check_budgets(
    args: &BenchArgs,
    bytes: u64,
    shares: &[f64],
    memory: &Memory,
) -> Result<(), Stop> {
    let halves = args.wants(Part::Latency) || args.wants(Part::Threads);
    let mut shares = shares.to_vec();
    shares.extend(halves.then_some(HALF));
    if args.patterns().is_empty() && !halves {
        shares.clear();
    }
    for share in shares {
        let local = budget(bytes, share);
        let (allowed, _) = check_local(local, memory);
        if allowed > local {
            return Err(Stop::own(format!(
                "{} of {} is a local budget of {}; at least {} are needed: use a larger --size",
                units::percent(share),
                units::bytes(bytes),
                units::bytes(local),
                units::bytes(allowed),
            )));
        }
    }
    if budget(bytes, 100.0) > memory.most() {
        return Err(Stop::own(format!(
            "workloads of {} have no room in this machine's {}: use a smaller --size",
            units::bytes(bytes),
            units::bytes(memory.most()),
        )));
    }
    Ok(())
}

struct Suite {
    runner: Runner,
    amount: Amount,
    bytes: u64,
    report: Report,
}

impl Suite {
    /// Measures what is wanted, and prints each table once it is whole.
    fn all(&mut self, args: &BenchArgs, shares: &[f64]) -> Result<(), Stop> {
        if args.wants(Part::Floors) {
            self.floors()?;
        }
        let patterns = args.patterns();
        if !patterns.is_empty() {
            self.patterns(&patterns, shares)?;
        }
        if args.wants(Part::Latency) {
            self.latency()?;
        }
        if args.wants(Part::Threads) {
            self.threads()?;
        }
        if args.wants(Part::Fits) {
            self.fits()?;
        }
        if args.wants(Part::Start) {
            self.start()?;
        }
        if args.wants(Part::Fits) || args.wants(Part::Start) {
            let (fits, start) = (&self.report.fits, self.report.start.as_ref());
            self.say(&tables::fits(fits, start))?;
        }
        Ok(())
    }

    /// Prints on stdout.
    fn say(&self, what: &impl Display) -> Result<(), Stop> {
        if self.runner.progress.plans() {
            return Ok(());
        }
        progress::clear();
        writeln!(std::io::stdout(), "{what}").map_err(|e| Stop::own(format!("stdout: {e}")))
    }

    /// Shows what is measured next.
    fn show(&self, what: &str) {
        self.runner.progress.show(what);
    }

    fn paged(&self, what: &str, work: &Work, percent: f64) -> Result<Paged, Stop> {
        self.show(&format!("{what} at {}", units::percent(percent)));
        let paged = self.runner.paged(work, budget(self.bytes, percent))?;
        let ran = !self.runner.progress.plans();
        if let Some(text) = tables::oddity(&paged.whole, percent).filter(|_| ran) {
            progress::clear();
            eprintln!("tmem: {what} at {}: {text}", units::percent(percent));
        }
        Ok(paged)
    }

    fn native(&self, what: &str, work: &Work) -> Result<Outcome, Stop> {
        self.show(&format!("{what} natively"));
        self.runner.native(work)
    }

    fn pattern(&self, pattern: Pattern, pace: Pace, timed: bool) -> Work {
        Work::Pattern {
            name: pattern.name().to_owned(),
            bytes: self.bytes,
            pace,
            timed,
        }
    }

    fn floors(&mut self) -> Result<(), Stop> {
        self.show("floors");
        let Some(work) = self.runner.floors(self.bytes, self.amount.floor) else {
            return Ok(());
        };
        let floors: Floors = self.runner.native(&work)?;
        self.say(&tables::floors(&floors))?;
        self.report.floors = Some(floors);
        Ok(())
    }

    fn patterns(&mut self, patterns: &[Pattern], shares: &[f64]) -> Result<(), Stop> {
        for pattern in patterns {
            let work = self.pattern(*pattern, self.amount.native(), false);
            let native = self.native(pattern.name(), &work)?;
            let native_ns = native.ns_per_access();
            let run = Paged {
                outcome: native,
                ..Paged::default()
            };
            self.report.patterns.push(row(*pattern, None, run));
            let work = self.pattern(*pattern, self.amount.pace, false);
            for share in shares {
                let run = self.paged(pattern.name(), &work, *share)?;
                let mut row = row(*pattern, Some(*share), run);
                row.slowdown = Some(row.ns_per_access / native_ns);
                if let Some(floors) = &self.report.floors {
                    row.floor(floors, native_ns, *pattern);
                }
                self.report.patterns.push(row);
            }
        }
        self.say(&tables::patterns(&self.report.patterns))
    }

    fn latency(&mut self) -> Result<(), Stop> {
        let floors = self.report.floors.clone();
        let miss = floors.as_ref().map(Floors::miss_ns);
        for pattern in [Pattern::RandomRead, Pattern::RandomWrite, Pattern::SeqRead] {
            let work = self.pattern(pattern, self.amount.pace, true);
            let run = self.paged(pattern.name(), &work, HALF)?;
            // In order few pages are waited for as long as a miss is.
            let floor = miss.filter(|_| pattern.even());
            let row = LatencyRow::new(pattern.name(), run, floor);
            self.report.latency.push(row);
        }
        let work = self.pattern(Pattern::RandomRead, self.amount.pace, true);
        let run = self.paged("random-read", &work, NEARLY_ALL)?;
        let bare = floors.as_ref().map(Floors::fault_ns);
        let row = LatencyRow::standby_refaults(run, bare);
        self.report.latency.push(row);
        let bytes = self.bytes;
        let run = self.paged("zero-fill", &Work::Touch { bytes }, HALF)?;
        // Such a wait is for room, which none of the floors measures.
        let row = LatencyRow::new("zero-fill", run, None);
        self.report.latency.push(row);
        self.say(&tables::latency(&self.report.latency))?;

        let native = self.native("filling", &Work::Fill { bytes })?;
        let run = self.paged("filling", &Work::Fill { bytes }, HALF)?;
        let gb_per_s = run.outcome.gb_per_s();
        self.report.fill = Some(FillRow {
            native_gb_per_s: native.gb_per_s(),
            gb_per_s,
            to_floor: floors.map(|f| f.best_gb_per_s(false) / gb_per_s),
            run,
        });
        match tables::fill(&self.report) {
            Some(line) => self.say(&format!("{line}\n")),
            None => Ok(()),
        }
    }

    fn threads(&mut self) -> Result<(), Stop> {
        let bytes = self.bytes;
        let per_s = |o: &Outcome| 1e9 / o.ns_per_access();
        for threads in self.amount.threads.iter().copied() {
            let what = format!("{threads} thread(s)");
            let work = |pace| Work::Threads {
                threads,
                bytes,
                pace,
            };
            let native = self.native(&what, &work(self.amount.native()))?;
            let run = self.paged(&what, &work(self.amount.pace), HALF)?;
            let time = self.amount.floor;
            let bare: f64 = self.runner.native(&Work::BareFaults { threads, time })?;
            let now = per_s(&run.outcome);
            let first = self.report.threads.first();
            let first = first.map_or((now, bare), |row| (row.per_s, row.bare_per_s));
            self.report.threads.push(ThreadRow {
                threads,
                native_per_s: per_s(&native),
                per_s: now,
                speedup: now / first.0,
                bare_per_s: bare,
                bare_speedup: bare / first.1,
                run,
            });
        }
        self.say(&tables::threads(&self.report.threads))
    }

    /// Measures workloads that fit their budget, natively and under tmem by turns.
    fn fits(&mut self) -> Result<(), Stop> {
        let mut fill = [vec![], vec![]];
        for pattern in [Pattern::SeqRead, Pattern::RandomRead] {
            let work = self.pattern(pattern, self.amount.native(), false);
            let mut access = [vec![], vec![]];
            for _ in 0..self.amount.rounds {
                let native = self.native(pattern.name(), &work)?;
                let paged = self.paged(pattern.name(), &work, 100.0)?.outcome;
                for (side, outcome) in [native, paged].iter().enumerate() {
                    access[side].push(outcome.ns_per_access());
                    fill[side].push(outcome.fill_ns / (self.bytes / 4096) as f64);
                }
            }
            self.compared(pattern.name(), access);
        }
        self.compared("filling a page", fill);
        Ok(())
    }

    fn compared(&mut self, work: &'static str, [mut native, mut tmem]: [Vec<f64>; 2]) {
        self.report.fits.push(FitsRow {
            work,
            rounds: native.len(),
            native_ns: median(&mut native),
            tmem_ns: median(&mut tmem),
        });
    }

    fn start(&mut self) -> Result<(), Stop> {
        self.show("starting /bin/true");
        let local = budget(self.bytes, 100.0);
        let (plain_us, preloaded_us) = self.runner.starts(self.amount.starts, local)?;
        self.report.start = Some(StartRow {
            plain_us,
            preloaded_us,
        });
        Ok(())
    }
}

fn row(pattern: Pattern, local_percent: Option<f64>, run: Paged) -> PatternRow {
    PatternRow {
        pattern: pattern.name(),
        local_percent,
        ns_per_access: run.outcome.ns_per_access(),
        gb_per_s: pattern.in_order().then(|| run.outcome.gb_per_s()),
        slowdown: None,
        to_floor: None,
        run,
    }
}
