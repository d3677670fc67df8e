//! What `tmem` says of itself: how to begin, the commands by groups, the nearest command to
//! one that does not exist.

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// What `tmem` alone says.
pub(crate) const WELCOME: &str = "\
tmem runs a program that needs more memory than this machine has: its cold pages live in
the memory of other machines.

To begin:
  tmem doctor                                          what works here, and how to get the rest
  tmem run --local 512M --summary -- PROGRAM           try it, on this machine alone
  tmem-memserver --listen 0.0.0.0:7070 --capacity 8G   on a machine that has memory to give
  tmem run --local 2G --server HOST:7070 -- PROGRAM    on the machine that lacks it

All commands: tmem --help
";

/// The commands by what they are for. `help` is clap's own.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run", &["run", "doctor"]),
    ("Watch", &["ps", "top", "stats"]),
    ("Change while it runs", &["set", "evict", "recall"]),
    ("Set up", &["keygen", "agent"]),
    ("Debug and measure", &["debug", "bench"]),
];

const EXAMPLES: [&str; 4] = [
    "tmem doctor --server node1:7070",
    "tmem run --local 2G --server node1:7070 -- ./app --flag-of-app",
    "tmem set 4711 --local 3G",
    "tmem run --local 64M --summary -- sort big.txt    # without --server: only to try tmem",
];

const EXIT_STATUS: &str = "  0    done
  1    tmem doctor: something keeps programs from being paged
  125  tmem itself failed, or a flag is wrong: a message says why
  tmem run: that of the program; see tmem run --help";

/// The help of `tmem`, with its commands in groups.
pub(crate) fn describe(command: Command) -> Command {
    let groups = GROUPS.iter().map(|(title, names)| {
        let lines = names.iter().filter_map(|name| {
            let about = command.find_subcommand(name)?.get_about()?;
            Some(format!("  {name:<9}{about}\n"))
        });
        let lines: String = lines.collect();
        format!("{}\n{lines}\n", heading(title))
    });
    let groups: String = groups.collect();
    let examples: String = EXAMPLES.iter().map(|e| format!("  {e}\n")).collect();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{}\n{{options}}\n\n{}\n\
         {examples}\n{}\n{EXIT_STATUS}\n\nMore of each: tmem COMMAND --help\n",
        heading("Options"),
        heading("Examples"),
        heading("Exit status"),
    );
    command.help_template(template)
}

/// A heading as clap writes its own: marked where the terminal can show that.
pub(crate) fn heading(title: &str) -> String {
    format!("\x1b[1m\x1b[4m{title}:\x1b[0m")
}

/// Adds the command that was meant to the error of one that does not exist.
pub(crate) fn with_nearest(mut error: Error, command: &Command) -> Error {
    let given = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(given))) => given.clone(),
        _ => return error,
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let visible = command.get_subcommands().filter(|c| !c.is_hide_set());
    let names = visible.map(|c| c.get_name().to_owned());
    if let Some(name) = nearest(&given, names) {
        let suggested = ContextValue::Strings(vec![name]);
        error.insert(ContextKind::SuggestedSubcommand, suggested);
    } else if given.contains('/') || given.contains('.') {
        let usage = format!("tmem run --local SIZE -- {given}");
        let text = clap::builder::StyledStr::from(format!("to run a program: {usage}"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![text]));
    }
    error
}

/// The name that at most two slips lead to, if there is one.
fn nearest(given: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let most = if given.chars().count() < 4 { 1 } else { 2 };
    names
        .map(|name| (slips(given, &name), name))
        .filter(|(slips, _)| *slips <= most)
        .min()
        .map(|(_, name)| name)
}

/// Letters left out, added, mistaken or exchanged with their neighbours (Damerau's distance,
/// each place changed once).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i.max(j)
            } else {
                let mistaken = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = mistaken.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if exchanged {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_in_one_group() {
        let command = crate::args::Args::command();
        let visible = command.get_subcommands().filter(|c| !c.is_hide_set());
        for name in visible.map(Command::get_name) {
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name));
            assert_eq!(groups.count(), 1, "{name}");
        }
        for (_, names) in GROUPS {
            for name in names {
                assert!(command.find_subcommand(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_slip_is_found() {
        let names = || ["run", "doctor", "bench"].map(str::to_owned).into_iter();
        for (given, meant) in [
            ("rnu", Some("run")),
            ("doktor", Some("doctor")),
            ("bnehc", Some("bench")),
            ("fly", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, names()).as_deref(), meant, "{given}");
        }
    }
}
