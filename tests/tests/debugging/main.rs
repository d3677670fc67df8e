//! Debuggers see all memory of a paged program, also what is elsewhere.

mod cores;
mod scripts;
mod tracers;

use scripts::{GDB, LLDB, Script};
use std::path::{Path, PathBuf};
use tmem_tests::cc::program_with;
use tmem_tests::{MIB, Outcome, Run, Running, artefacts, process, software};

/// MiB of the program, and how much of it stays.
const SIZE: u64 = 64;
const LOCAL: u64 = SIZE / 10 * MIB + 2 * MIB;
const PAGES: u64 = SIZE * MIB / 4096;

/// A tool of Debian's, or a line that it is missing.
fn tool(name: &str, package: &str) -> Option<PathBuf> {
    let found = software::look_for(name);
    if found.is_none() {
        eprintln!("skipped: {name} is not installed (apt-get install {package})");
    }
    found
}

/// `debugged`, which goes on as `what` says.
fn program(tmem: bool, what: &str) -> Run {
    let run = Run::new(program_with("debugged", &[])).args([&SIZE.to_string(), what]);
    if tmem { run.local(LOCAL) } else { run }
}

/// A debugger that sees what is elsewhere, or one as it is.
fn debugger(path: &Path, tmem: bool) -> Run {
    let run = match tmem {
        true => Run::new(artefacts::tmem())
            .args(["debug", "--"])
            .args([path]),
        false => Run::new(path),
    };
    run.env("DEBUGINFOD_URLS", "")
}

/// A program that waits to be looked at; it, and its process.
fn waiting(run: &Run, tmem: bool) -> (Running, i32) {
    let mut running = run.spawn();
    running.wait_until("a line", |running| running.stdout_so_far().contains(&b'\n'));
    let pid = match tmem {
        true => process::in_tree(running.pid(), "debugged").expect("the program runs"),
        false => running.pid(),
    };
    (running, pid)
}

/// What a debugger that follows `script` has told of a program that it is attached to.
fn attached(path: &Path, script: &Script, tmem: bool, debugs: bool) -> (Outcome, Outcome) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (running, pid) = waiting(&program(tmem, "wait"), tmem);
    let file = script.write(folder.path(), false);
    let run = debugger(path, debugs).args(script.flags);
    let run = run.args([&file]).args(["-p", &pid.to_string()]);
    let told = run.run();
    if script.only_values {
        process::signal(pid, libc::SIGKILL);
    }
    (told, running.wait())
}

fn attached_sees_all(name: &str, script: &Script) {
    let Some(path) = tool(name, name) else {
        return;
    };
    let [native, paged] = [false, true].map(|tmem| {
        let (outcome, ended) = attached(&path, script, tmem, tmem);
        let (outcome, ended) = (outcome.ok(), ended.ok());
        assert!(ended.stdout().ends_with("right\n"), "{}", ended.describe());
        if tmem {
            assert!(ended.figures().evicted_pages > 0, "{}", ended.describe());
        }
        script.told(&outcome)
    });
    assert_eq!(native, paged);
}

/// `tmem run -- debugger program`: both are paged.
fn starter_sees_all(name: &str, script: &Script) {
    let Some(path) = tool(name, name) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = script.write(folder.path(), true);
    let [native, paged] = [false, true].map(|tmem| {
        let run = Run::new(&path).env("DEBUGINFOD_URLS", "");
        let run = run.args(script.flags).args([&file]).args([script.program]);
        let run = run
            .args([program_with("debugged", &[])])
            .args([SIZE.to_string()]);
        let outcome = if tmem { run.local(LOCAL) } else { run }.run().ok();
        let right = outcome.stdout().lines().any(|line| line == "right");
        assert!(right, "{}{}", outcome.stdout(), outcome.describe());
        script.told(&outcome)
    });
    assert_eq!(native, paged);
}

#[test]
fn gdb_that_is_attached_sees_all_memory() {
    attached_sees_all("gdb", &GDB);
}

#[test]
fn gdb_that_starts_a_program_sees_all_memory() {
    starter_sees_all("gdb", &GDB);
}

#[test]
fn lldb_that_is_attached_sees_all_memory() {
    attached_sees_all("lldb", &LLDB);
}

#[test]
fn lldb_that_starts_a_program_sees_all_memory() {
    starter_sees_all("lldb", &LLDB);
}

/// Without `tmem debug` the kernel says that nothing is there: no debugger shows zeros.
#[test]
fn gdb_alone_gets_an_error_and_nothing_wrong() {
    let Some(path) = tool("gdb", "gdb") else {
        return;
    };
    let values = GDB.values_only();
    let [native, alone] = [false, true].map(|tmem| {
        let (outcome, _) = attached(&path, &values, tmem, false);
        let stdout = outcome.stdout();
        // gdb begins a line before it reads the value.
        let is_value = |line: &&str| line.starts_with('>') && line.ends_with(char::is_numeric);
        let lines = stdout.lines().filter(is_value);
        let refused = outcome.stderr().contains("Cannot access memory");
        assert_eq!(refused, tmem, "{}", outcome.describe());
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(native.len(), scripts::VALUES);
    assert!(alone.len() < scripts::VALUES, "everything was in memory");
    assert_eq!(native[..alone.len()], alone);
}
