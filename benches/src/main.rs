//! `tmem-workload`: one benchmark program, run natively and paged by scripts.
//!
//! - `tmem-workload PATTERN MIB COUNT` fills memory and uses it. Patterns in order go through it
//!   once, and then `COUNT` times while the time is taken. All others make half of `COUNT`
//!   accesses, and then `COUNT` while the time is taken.
//! - `tmem-workload start COUNT LIBRARY COMMAND...` starts a command with and without a library
//!   preloaded.
//!
//! Each prints one line of numbers: GB/s, ns per access and GB/s of filling; or the median
//! microseconds without and with the library.

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tmem_benches::pattern::Pattern;
use tmem_benches::spawn;
use tmem_benches::walk::{Limits, Walk};

const USAGE: &str =
    "usage: tmem-workload PATTERN MIB COUNT | tmem-workload start COUNT LIBRARY COMMAND...";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("tmem-workload: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<String, String> {
    let number = |at: usize| {
        args.get(at)
            .and_then(|a| a.parse().ok())
            .ok_or(USAGE.to_owned())
    };
    match args.first().map(String::as_str) {
        Some("start") => {
            let library = args.get(2).ok_or(USAGE)?;
            let times = spawn::start_up(number(1)?, library, &args[3..]);
            let times = times.map_err(|e| e.to_string())?;
            Ok(format!("{:.1} {:.1}", times.plain, times.preloaded))
        }
        Some(name) => walk(name.parse()?, number(1)? << 20, number(2)? as u64),
        None => Err(USAGE.to_owned()),
    }
}

fn walk(pattern: Pattern, bytes: usize, count: u64) -> Result<String, String> {
    let start = Instant::now();
    let mut walk = Walk::new(pattern, bytes);
    let fill_ns = start.elapsed().as_nanos() as f64;
    let (before, measured) = match pattern.in_order() {
        true => (walk.pages(), walk.pages() * count),
        false => (count / 2, count),
    };
    let mut go = |accesses| {
        let limits = Limits {
            accesses,
            time: Duration::MAX,
        };
        walk.go(limits).map_err(|e| e.to_string())
    };
    go(before)?;
    let span = go(measured)?;
    walk.verify().map_err(|e| e.to_string())?;
    Ok(format!(
        "{:.3} {:.1} {:.3}",
        span.bytes as f64 / span.ns,
        span.ns / span.accesses as f64,
        bytes as f64 / fill_ns
    ))
}
