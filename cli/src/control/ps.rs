//! `tmem ps`: the paged programs.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::find;
use super::program::{Program, Rates, Sample};
use super::text;

/// Between the two looks that rates are taken from.
const MOMENT: Duration = Duration::from_millis(250);

/// List the paged programs of this user
///
/// Root sees those of all users.
#[derive(clap::Args)]
pub(crate) struct PsArgs {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) pid: u32,
    pub(crate) command: String,
    /// What it may have now of what all may have together, in bytes.
    pub(crate) budget_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) remote_bytes: u64,
    pub(crate) faults_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// Shares of the time, 0 to 1.
    pub(crate) waited_some: f64,
    pub(crate) waited_full: f64,
}

impl Line {
    /// What people see of it before the command: `tmem ps` and `tmem top` have the same columns.
    pub(crate) fn cells(&self) -> [String; 8] {
        [
            self.pid.to_string(),
            text::bytes(self.budget_bytes),
            text::bytes(self.resident_bytes),
            text::bytes(self.remote_bytes),
            text::count(self.faults_per_second),
            text::bytes(self.bytes_per_second as u64),
            text::percent(self.waited_some),
            text::percent(self.waited_full),
        ]
    }
}

impl Line {
    /// Of a program and what happened of late.
    pub(crate) fn new(program: &Program, now: &Sample, rates: &Rates) -> Line {
        Line {
            pid: program.pid,
            command: program.command.clone(),
            budget_bytes: now.shown.budget,
            resident_bytes: now.shown.resident,
            remote_bytes: now.shown.remote,
            faults_per_second: rates.faults,
            bytes_per_second: rates.bytes,
            waited_some: rates.some,
            waited_full: rates.full,
        }
    }
}

pub(super) fn run(args: &PsArgs) -> Result<(), String> {
    let programs = find::all();
    let before: Vec<_> = programs.iter().map(Program::sample).collect();
    if !programs.is_empty() {
        thread::sleep(MOMENT);
    }
    let lines: Vec<Line> = programs
        .iter()
        .zip(&before)
        .filter_map(|(program, before)| {
            let now = program.sample()?;
            let rates = Rates::between(before.as_ref()?, &now);
            Some(Line::new(program, &now, &rates))
        })
        .collect();
    let text = match args.json {
        true => serde_json::to_string_pretty(&lines).map_err(|e| e.to_string())? + "\n",
        false => table(&lines, io::stdout().is_terminal().then_some(columns())),
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|e| format!("the list cannot be printed: {e}"))
}

/// Columns of the terminal.
fn columns() -> usize {
    // SAFETY: all zeros is a value of this plain structure.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills in the structure.
    let got = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if got == 0 && size.ws_col > 0 {
        usize::from(size.ws_col)
    } else {
        80
    }
}

/// The lines for people; commands are cut where the terminal ends.
fn table(lines: &[Line], width: Option<usize>) -> String {
    if lines.is_empty() {
        return "no paged programs that you may look at\n".to_owned();
    }
    const HEAD: usize = 62;
    let mut text =
        "    PID   BUDGET RESIDENT   REMOTE FAULTS/S    NET/S WAIT FULL  COMMAND\n".to_owned();
    for line in lines {
        let command = match width {
            Some(width) => text::cut(&line.command, width.saturating_sub(HEAD + 2).max(8)),
            None => line.command.clone(),
        };
        let [pid, budget, resident, remote, faults, net, some, full] = line.cells();
        text += &format!(
            "{pid:>7} {budget:>8} {resident:>8} {remote:>8} {faults:>8} {net:>8} {some:>4} \
             {full:>4}  {command}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let line = Line {
            pid: 12,
            command: "./app --with many words".to_owned(),
            budget_bytes: 64 << 20,
            resident_bytes: 60 << 20,
            remote_bytes: 2 << 30,
            faults_per_second: 1234.0,
            bytes_per_second: 1e8,
            waited_some: 0.5,
            waited_full: 0.25,
        };
        let text = table(&[line], Some(80));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "     12      64M      60M     2.0G     1.2k      95M  50%  25%  ./app --with ma…"
        );
        assert_eq!(lines[0].find("COMMAND"), lines[1].find("./app"));
        assert!(table(&[], None).contains("no paged programs"));
    }
}
