//! `tmem stats`: the figures of one program.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tmem_pager::stats::Totals;

use super::find;
use super::program::{Program, Rates, Sample};
use super::text;

/// Print the statistics of a program while it runs
#[derive(clap::Args)]
pub(crate) struct StatsArgs {
    /// The process, or its `tmem run`
    pid: u32,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Print them again every second, until the program has ended
    #[arg(long)]
    watch: bool,
}

/// What `--json` prints for each process.
#[derive(Serialize)]
struct Figures<'a> {
    pid: u32,
    command: &'a str,
    budget_bytes: u64,
    /// Of all processes that share a budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_budget_bytes: Option<u64>,
    resident_bytes: u64,
    remote_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_set_bytes: Option<u64>,
    faults_per_second: f64,
    bytes_per_second: f64,
    waited_some: f64,
    waited_full: f64,
    /// As in the statistics file.
    statistics: serde_json::Value,
}

pub(super) fn run(args: &StatsArgs) -> Result<(), String> {
    let programs = find::by_number(args.pid)?;
    let pause = match args.watch {
        true => Duration::from_secs(1),
        false => Duration::from_millis(250),
    };
    let mut before: Vec<Option<Sample>> = programs.iter().map(Program::sample).collect();
    loop {
        thread::sleep(pause);
        let mut text = String::new();
        for (program, before) in programs.iter().zip(&mut before) {
            let Some(now) = program.sample() else {
                continue;
            };
            let rates = before.as_ref().map(|before| Rates::between(before, &now));
            *before = Some(now);
            let rates = rates.unwrap_or_default();
            text += &match args.json {
                true => json(program, &now, &rates, args.watch)?,
                false => for_people(program, &now, &rates, &program.totals()),
            };
        }
        let mut out = io::stdout();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|e| format!("the statistics cannot be printed: {e}"))?;
        if !args.watch || programs.iter().all(|program| !program.is_there()) {
            return Ok(());
        }
    }
}

fn json(program: &Program, now: &Sample, rates: &Rates, in_a_line: bool) -> Result<String, String> {
    let mut statistics = String::new();
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    program
        .totals()
        .write_json(&mut statistics)
        .map_err(|e| failed(&e))?;
    let figures = Figures {
        pid: program.pid,
        command: &program.command,
        budget_bytes: now.shown.budget,
        shared_budget_bytes: program.shared_budget(),
        resident_bytes: now.shown.resident,
        remote_bytes: now.shown.remote,
        working_set_bytes: now.shown.working_set,
        faults_per_second: rates.faults,
        bytes_per_second: rates.bytes,
        waited_some: rates.some,
        waited_full: rates.full,
        statistics: serde_json::from_str(&statistics).map_err(|e| failed(&e))?,
    };
    let text = match in_a_line {
        true => serde_json::to_string(&figures),
        false => serde_json::to_string_pretty(&figures),
    };
    text.map(|text| text + "\n").map_err(|e| failed(&e))
}

fn for_people(program: &Program, now: &Sample, rates: &Rates, totals: &Totals) -> String {
    let shown = &now.shown;
    let shared = program.shared_budget().map_or(String::new(), |bytes| {
        format!(" (of {} for all its processes)", text::bytes(bytes))
    });
    let set = shown.working_set.map_or(String::new(), |bytes| {
        format!("; working set about {}", text::bytes(bytes))
    });
    let seconds = |ns: u64| ns as f64 / 1e9;
    format!(
        "{}\n\
         memory:  budget {}{shared}, resident {}, on servers {}{set}\n\
         now:     {} faults/s, {}/s to and from servers; waited {} of the time, all of it {}\n\
         so far:  {} faults, {} pages fetched ({} ahead), {} evicted, {} lost; waited {:.1} s, \
         all of it {:.1} s\n\
         a fault: half within {:.0} us, 99 % within {:.0} us\n",
        program.name(),
        text::bytes(shown.budget),
        text::bytes(shown.resident),
        text::bytes(shown.remote),
        text::count(rates.faults),
        text::bytes(rates.bytes as u64),
        text::percent(rates.some),
        text::percent(rates.full),
        totals.faults,
        totals.fetched_pages,
        totals.prefetched_pages,
        totals.evicted_pages,
        totals.lost_pages,
        seconds(totals.waited_some_ns),
        seconds(totals.waited_full_ns),
        totals.fault_us(0.5),
        totals.fault_us(0.99),
    )
}
