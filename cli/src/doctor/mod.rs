//! `tmem doctor`: whether programs can be paged here, and what to do where they cannot.

mod finding;
mod kernel;
mod limits;
mod network;
mod permission;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;
use tmem_config::{ServerAddr, read_secret};

use finding::{Finding, State};

/// Check what this machine, this user and the servers need for paging
///
/// Says what works and what does not, and for each thing that does not the exact remedy.
#[derive(clap::Args)]
#[command(after_help = format!(
    "{}\n  tmem doctor\n  tmem doctor --server node1:7070 --secret-file secret\n  \
     sudo tmem doctor --fix\n\n{}\n  0    programs can be paged\n  1    something keeps them from \
     it\n  125  the doctor itself failed, or a flag is wrong",
    crate::help::heading("Examples"),
    crate::help::heading("Exit status"),
))]
pub(crate) struct DoctorArgs {
    /// A memory server to ask, host:port; may be given several times
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "TMEM_SERVERS")]
    server: Vec<ServerAddr>,
    /// File with the secret that the servers know
    #[arg(long, value_name = "FILE", env = "TMEM_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// Carry out the remedies, which takes root; each command is printed first
    #[arg(long)]
    fix: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// All findings, as `--json` prints them.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether programs can be paged.
    ok: bool,
    findings: &'a [Finding],
}

/// Looks, tells, and mends where that is asked for; the exit status.
pub(crate) fn run(args: &DoctorArgs) -> i32 {
    match examine(args) {
        Ok(status) => status,
        Err(text) => {
            eprintln!("tmem: {text}");
            crate::OWN_FAILURE
        }
    }
}

fn examine(args: &DoctorArgs) -> Result<i32, String> {
    let secret = args.secret_file.as_deref().map(read_secret).transpose();
    let secret = secret.map_err(|e| e.to_string())?;
    let look = || all(&args.server, secret.as_deref());
    let mut found = look();
    if args.fix {
        fix(&found)?;
        found = look();
    }
    let is_ok = found.iter().all(|finding| finding.state != State::Problem);
    let text = match args.json {
        true => json(&found, is_ok)?,
        false => {
            let is_coloured = io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            for_people(&found, is_ok, is_coloured)
        }
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|e| format!("the findings cannot be printed: {e}"))?;
    Ok(i32::from(!is_ok))
}

fn all(servers: &[ServerAddr], secret: Option<&[u8]>) -> Vec<Finding> {
    let mut found = kernel::look();
    let permission = permission::look();
    let may_page = permission.iter().all(|f| f.state != State::Problem);
    found.extend(permission);
    found.extend(limits::look());
    found.push(network::library());
    found.push(network::rdma());
    found.extend(network::servers(servers, secret, may_page));
    found
}

/// Runs the commands of what is wrong. What is only worth a note is left as it is.
fn fix(found: &[Finding]) -> Result<(), String> {
    let wrong = found.iter().filter(|f| f.state >= State::Warning);
    let commands: Vec<&String> = wrong.flat_map(|f| &f.commands).collect();
    if commands.is_empty() {
        eprintln!("tmem: there is nothing that --fix can mend");
        return Ok(());
    }
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } != 0 {
        return Err(
            "--fix changes the machine: run it as root (sudo tmem doctor --fix)".to_owned(),
        );
    }
    for command in commands {
        eprintln!("tmem: {command}");
        let status = Command::new("sh")
            .args(["-c", command])
            .status()
            .map_err(|e| format!("sh cannot be run: {e}"))?;
        if !status.success() {
            eprintln!("tmem: this failed ({status}); going on with the others");
        }
    }
    Ok(())
}

fn json(found: &[Finding], ok: bool) -> Result<String, String> {
    let report = Report {
        ok,
        findings: found,
    };
    let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
    Ok(text + "\n")
}

fn for_people(found: &[Finding], is_ok: bool, is_coloured: bool) -> String {
    let width = found.iter().map(|f| f.about.chars().count()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for Finding {
        about,
        state,
        text: what,
        remedy,
        commands,
    } in found
    {
        let (mark, colour) = match state {
            State::Ok => ("ok  ", "32"),
            State::Note => ("note", "36"),
            State::Warning => ("warn", "33"),
            State::Problem => ("FAIL", "31"),
        };
        let mark = match is_coloured {
            true => format!("\x1b[{colour}m{mark}\x1b[0m"),
            false => mark.to_owned(),
        };
        text += &format!("{mark}  {about:width$}  {what}\n");
        let indent = " ".repeat(width + 8);
        if let Some(remedy) = remedy {
            text += &format!("{indent}-> {remedy}\n");
        }
        for command in commands {
            text += &format!("{indent}   # {command}\n");
        }
    }
    text += match is_ok {
        true => "\nPrograms can be paged.",
        false => {
            "\nPrograms cannot be paged until what is marked FAIL is mended. `sudo tmem doctor \
             --fix` runs the commands (#) above."
        }
    };
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Finding> {
        vec![
            Finding::new("kernel", State::Ok, "Linux"),
            Finding::new("userfaultfd", State::Problem, "no permission")
                .remedy("do this")
                .commands(["sysctl x"]),
        ]
    }

    #[test]
    fn people_see_the_remedy_below_the_finding() {
        let text = for_people(&found(), false, false);
        assert!(text.contains("ok    kernel       Linux\n"), "{text}");
        let lines = "FAIL  userfaultfd  no permission\n                   -> do this\n";
        assert!(text.contains(lines), "{text}");
        assert!(text.contains("   # sysctl x\n"), "{text}");
        assert!(for_people(&found(), false, true).contains("\x1b[31mFAIL\x1b[0m"));
    }

    #[test]
    fn scripts_get_the_same_as_json() {
        let value: serde_json::Value =
            serde_json::from_str(&json(&found(), false).unwrap()).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][1]["state"], "problem");
        assert_eq!(value["findings"][1]["commands"][0], "sysctl x");
        assert!(value["findings"][0].get("remedy").is_none());
    }
}
