//! `tmem bench`: what tmem costs on the user's own machine.

mod args;
mod progress;
mod runner;
mod suite;
mod work;

use std::path::Path;

use tmem_benches::report::Report;
use tmem_benches::{page, plots};
use tmem_config::{check_output, write_file};

pub(crate) use args::{BenchArgs, WorkloadArgs};
use runner::Stop;

/// The data for `--plots`.
const PLOTS: [&str; 2] = ["slowdown.svg", "latency.svg"];

/// Measures and reports. The exit status is 0 however slow anything was, and 1 if memory did
/// not hold what was written to it.
pub(crate) fn run(args: &BenchArgs) -> i32 {
    let done = places(args).and_then(|()| suite::measure(args));
    progress::clear();
    match done.and_then(|report| write(args, &report)) {
        Ok(()) => 0,
        Err(Stop { status, text }) => {
            if let Some(text) = text {
                eprintln!("tmem: {text}");
            }
            status
        }
    }
}

/// Checks whether results can be written, before minutes are spent on them.
fn places(args: &BenchArgs) -> Result<(), Stop> {
    if let Some(path) = &args.json {
        check_output(path).map_err(|e| Stop::own(format!("--json {}: {e}", path.display())))?;
    }
    if let Some(path) = &args.html {
        check_output(path).map_err(|e| Stop::own(format!("--html {}: {e}", path.display())))?;
    }
    if let Some(folder) = &args.plots {
        std::fs::create_dir_all(folder)
            .and_then(|()| {
                PLOTS
                    .iter()
                    .try_for_each(|name| check_output(&folder.join(name)))
            })
            .map_err(|e| Stop::own(format!("--plots {}: {e}", folder.display())))?;
    }
    Ok(())
}

fn write(args: &BenchArgs, report: &Report) -> Result<(), Stop> {
    let file = |path: &Path, text: String| {
        write_file(path, text.as_bytes()).map_err(|e| Stop::own(format!("{}: {e}", path.display())))
    };
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(report).map_err(Stop::own)?;
        text.push('\n');
        file(path, text)?;
    }
    if let Some(path) = &args.html {
        file(path, page::page(report))?;
    }
    if let Some(folder) = &args.plots {
        let drawn = [plots::slowdown(report), plots::latency(report)];
        for (name, plot) in PLOTS.iter().zip(drawn) {
            file(&folder.join(name), plot.svg())?;
        }
    }
    Ok(())
}

/// What `bench` starts: does the work and prints one line of figures.
pub(crate) fn workload(args: &WorkloadArgs) -> i32 {
    // SAFETY: a plain call. It fails for no signal that there is.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let work = match serde_json::from_str(&args.work) {
        Ok(work) => work,
        Err(error) => {
            eprintln!("tmem: bench-workload is started by `tmem bench` alone: {error}");
            return crate::OWN_FAILURE;
        }
    };
    match work::run(&work) {
        Ok(line) => {
            println!("{line}");
            0
        }
        Err(text) => {
            eprintln!("tmem: bench: {text}");
            1
        }
    }
}
