//! `tmem-evict-sim`: compares eviction orders on recorded traces.
//!
//! - `tmem-evict-sim record FILE [MOST]` reads what valgrind's lackey prints from standard
//!   input, and writes a trace of at most `MOST` entries.
//! - `tmem-evict-sim run [--held 50,25,10] [--standby-us 12] [--miss-us 45]
//!   [--only NAME,...] [--summary] TRACE...` runs traces through all policies, or those whose
//!   names begin with one of `--only`, and prints tables; with `--summary` only those over all
//!   traces. A trace is a file, or made up, as in `cyclic:PAGES:USES` (also `zipf`, `mixed`).

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::ExitCode;
use tmem_benches::eviction::catalog::{self, Entry, OPT, TMEM};
use tmem_benches::eviction::report::{self, Found};
use tmem_benches::eviction::simulate::{self, Costs};
use tmem_benches::eviction::trace::{Recorder, Trace};
use tmem_benches::eviction::{lackey, synthetic};
use tmem_config::OutputFile;

const USAGE: &str = "usage: tmem-evict-sim record FILE [MOST] | run [--held PERCENT,...] \
                     [--standby-us US] [--miss-us US] [--only NAME,...] [--summary] TRACE...";

/// The most entries that are recorded and read, unless said otherwise.
const MOST: u64 = 100_000_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("record") => record(&args[1..]),
        Some("run") => Options::read(&args[1..]).and_then(|options| run(&options)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tmem-evict-sim: {message}");
            ExitCode::FAILURE
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn record(args: &[String]) -> Result<(), String> {
    let path = args.first().ok_or(USAGE)?;
    let most = args.get(1).map_or(Ok(MOST), |most| number(most))?;
    let file = OutputFile::create(Path::new(path)).map_err(|e| format!("{path}: {e}"))?;
    let input = BufReader::with_capacity(1 << 18, std::io::stdin().lock());
    let mut recorder = Recorder::new(BufWriter::new(file)).map_err(|e| e.to_string())?;
    lackey::record(input, most, &mut recorder).map_err(|e| e.to_string())?;
    println!("{path}: {} entries", recorder.entries());
    let out = recorder.finish().map_err(|e| e.to_string())?;
    let file = out.into_inner().map_err(|e| format!("{path}: {e}"))?;
    file.finish().map_err(|e| format!("{path}: {e}"))
}

struct Options {
    held: Vec<usize>,
    costs: Costs,
    only: Vec<String>,
    summary: bool,
    traces: Vec<String>,
}

impl Options {
    fn read(args: &[String]) -> Result<Options, String> {
        let mut options = Options {
            held: vec![50, 25, 10],
            costs: Costs {
                standby: 12.0,
                miss: 45.0,
            },
            only: Vec::new(),
            summary: false,
            traces: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(USAGE);
            match &**arg {
                "--held" => {
                    let held = value()?.split(',').map(number);
                    options.held = held.collect::<Result<_, _>>()?;
                }
                "--standby-us" => options.costs.standby = number(value()?)?,
                "--miss-us" => options.costs.miss = number(value()?)?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--summary" => options.summary = true,
                flag if flag.starts_with("--") => return Err(USAGE.to_owned()),
                trace => options.traces.push(trace.to_owned()),
            }
        }
        if options.traces.is_empty() {
            return Err(USAGE.to_owned());
        }
        Ok(options)
    }

    /// The policies that were asked for, and those that all are compared with.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = catalog::all(&self.costs);
        let wanted = |name: &str| self.only.iter().any(|only| name.starts_with(only.as_str()));
        if !self.only.is_empty() {
            entries.retain(|e| e.name == OPT || e.name == TMEM || wanted(&e.name));
        }
        entries
    }
}

fn read(name: &str) -> Result<Trace, String> {
    let told = |e: tmem_benches::Error| format!("{name}: {e}");
    if !Path::new(name).exists() {
        return synthetic::named(name).map_err(told);
    }
    let file = File::open(name).map_err(|e| format!("{name}: {e}"))?;
    Trace::read(BufReader::new(file), MOST as usize).map_err(told)
}

fn run(options: &Options) -> Result<(), String> {
    let entries = options.entries();
    let mut found = Vec::new();
    for name in &options.traces {
        let trace = read(name)?;
        let uses = trace.pages.len() as u64;
        let written = trace.writes * 100 / uses.max(1);
        let distinct = trace.distinct;
        println!("{name}: {uses} entries, {written} % of them writes, {distinct} pages\n");
        for &percent in &options.held {
            let capacity = distinct * percent / 100;
            let counts = |e: &Entry| simulate::run(&trace, &mut *e.policy(&trace, capacity));
            let stem = Path::new(name)
                .file_stem()
                .map(|stem| stem.to_string_lossy());
            let one = Found {
                trace: stem.map_or(name.clone(), |stem| stem.into_owned()),
                uses,
                percent,
                counts: entries.iter().map(counts).collect(),
            };
            if !options.summary {
                println!("{}", report::one(&one, &entries, &options.costs));
            }
            found.push(one);
        }
    }
    for &percent in &options.held {
        let alike: Vec<&Found> = found.iter().filter(|f| f.percent == percent).collect();
        println!("{}", report::all(&alike, &entries, &options.costs));
    }
    Ok(())
}
