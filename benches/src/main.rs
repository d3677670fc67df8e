//! `tmem-workload`: one benchmark program, run natively and paged by scripts.
//!
//! - `tmem-workload seq MIB PASSES` fills memory, reads it in order once, then
//!   `PASSES` times measured.
//! - `tmem-workload random MIB ACCESSES` fills memory, reads half as many words
//!   at random, then `ACCESSES` measured.
//! - `tmem-workload start COUNT LIBRARY COMMAND...` starts a command with and
//!   without a library preloaded.
//!
//! Each prints one line of two numbers: GB/s and ns per access, or the median
//! microseconds without and with the library.

use std::process::ExitCode;
use tmem_benches::memory::{Measured, Memory};
use tmem_benches::spawn;

const USAGE: &str = "usage: tmem-workload seq MIB PASSES | random MIB ACCESSES | \
                     start COUNT LIBRARY COMMAND...";

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
        Some("seq") => {
            let memory = Memory::filled(number(1)? << 20);
            memory.read_in_order(1)?;
            Ok(line(memory.read_in_order(number(2)?)?))
        }
        Some("random") => {
            let (memory, accesses) = (Memory::filled(number(1)? << 20), number(2)?);
            memory.read_at_random(accesses / 2, 1)?;
            Ok(line(memory.read_at_random(accesses, 1 << 40)?))
        }
        Some("start") => {
            let library = args.get(2).ok_or(USAGE)?;
            let times = spawn::start_up(number(1)?, library, &args[3..]);
            let times = times.map_err(|e| e.to_string())?;
            Ok(format!("{:.1} {:.1}", times.plain, times.preloaded))
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn line(measured: Measured) -> String {
    format!("{:.3} {:.1}", measured.gb_per_s, measured.ns_per_access)
}
