//! `tmem set`, `tmem evict`, `tmem recall`: what is asked of a program while it runs.

use std::thread;
use std::time::{Duration, Instant};

use tmem_config::{Memory, Size, available_bytes, check_local};
use tmem_pager::live::Request;

use super::find;
use super::program::Program;
use super::text;

/// Between two looks whether something is done.
const LOOK: Duration = Duration::from_millis(50);
/// An engine looks ten times a second; one that has not begun by then is stopped.
const PATIENCE: Duration = Duration::from_secs(600);

/// Change the budget of a program while it runs
///
/// More memory may be used at once. Where it is to use less, pages leave as fast as they can, and
/// the program goes on meanwhile. Processes under one `tmem run` share a budget, which is changed
/// for all of them.
#[derive(clap::Args)]
#[command(after_help = format!(
    "{}\n  tmem set 4711 --local 3G\n  tmem set 4711 --local 512M --wait",
    crate::help::heading("Examples")
))]
pub(crate) struct SetArgs {
    /// The process, or its `tmem run`
    pid: u32,
    /// Memory that may stay in local RAM
    #[arg(long, value_name = "SIZE")]
    local: Size,
    /// Return when the program uses no more than that
    #[arg(long)]
    wait: bool,
}

/// Have a program's memory leave, as far as it can
///
/// What the program touches comes back. Its budget stays as it is.
#[derive(clap::Args)]
pub(crate) struct EvictArgs {
    /// The process, or its `tmem run`
    pid: u32,
}

/// Bring a program's memory back from the servers, as far as its budget allows
#[derive(clap::Args)]
pub(crate) struct RecallArgs {
    /// The process, or its `tmem run`
    pid: u32,
    /// Bring all of it back: the budget is raised to hold it
    #[arg(long)]
    all: bool,
}

pub(super) fn set(args: &SetArgs) -> Result<(), String> {
    let programs = find::by_number(args.pid)?;
    let memory = Memory::get().map_err(|e| e.to_string())?;
    let (bytes, warning) = check_local(args.local.bytes(memory.most()), &memory);
    if let Some(text) = warning {
        eprintln!("tmem: {text}");
    }
    for program in &programs {
        let before = program.allowed();
        if before == bytes {
            continue;
        }
        program.allow(bytes);
        let whose = match program.shared_budget() {
            Some(_) => format!("{} and all under its `tmem run`", program.name()),
            None => program.name(),
        };
        println!(
            "{whose}: budget {} -> {}",
            text::bytes(before),
            text::bytes(bytes)
        );
    }
    if args.wait {
        let most = bytes + bytes / 20 + (16 << 20);
        let resident = || {
            let samples = programs.iter().filter_map(Program::sample);
            samples.map(|sample| sample.shown.resident).sum::<u64>()
        };
        until(|| resident() <= most)?;
    }
    Ok(())
}

pub(super) fn evict(args: &EvictArgs) -> Result<(), String> {
    let programs = find::by_number(args.pid)?;
    ask(&programs, Request::Evict, |before, now, name| {
        println!("{name}: {before} resident -> {now}");
    })
}

pub(super) fn recall(args: &RecallArgs) -> Result<(), String> {
    let programs = find::by_number(args.pid)?;
    if args.all {
        make_room(&programs)?;
    }
    ask(&programs, Request::Recall, |before, now, name| {
        println!("{name}: {before} resident -> {now}");
    })
}

/// Raises budgets so that everything fits.
fn make_room(programs: &[Program]) -> Result<(), String> {
    let samples: Vec<_> = programs.iter().filter_map(Program::sample).collect();
    let remote: u64 = samples.iter().map(|sample| sample.shown.remote).sum();
    let free = available_bytes().unwrap_or(u64::MAX);
    if remote > free {
        return Err(format!(
            "{} would come back, and this machine has {} left: give the program less to bring \
             back, or free memory",
            text::bytes(remote),
            text::bytes(free)
        ));
    }
    // What a budget leaves unused, and what the engine itself needs.
    let enough = |bytes: u64| bytes + bytes / 16 + (32 << 20);
    for program in programs {
        let bytes = match program.shared_budget() {
            Some(_) => samples
                .iter()
                .map(|s| s.shown.resident + s.shown.remote)
                .sum(),
            None => match program.sample() {
                Some(sample) => sample.shown.resident + sample.shown.remote,
                None => continue,
            },
        };
        program.allow(program.allowed().max(enough(bytes)));
    }
    Ok(())
}

/// Asks all programs for something, waits until it is done, and tells what it has led to.
fn ask(
    programs: &[Program],
    request: Request,
    tell: impl Fn(String, String, String),
) -> Result<(), String> {
    let resident = |program: &Program| {
        let sample = program.sample();
        sample.map_or(0, |sample| sample.shown.resident)
    };
    let asked: Vec<_> = programs
        .iter()
        .filter_map(|program| Some((program, resident(program), program.ask(request)?)))
        .collect();
    until(|| {
        asked
            .iter()
            .all(|(program, _, number)| program.has_done(*number))
    })?;
    for (program, before, _) in asked {
        let now = resident(program);
        tell(text::bytes(before), text::bytes(now), program.name());
    }
    Ok(())
}

/// Waits until something is so.
fn until(is_so: impl Fn() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return Err("the program has not followed yet; it goes on".to_owned());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
