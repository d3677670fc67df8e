//! Tools that trace or sample a program work as natively.

use crate::{program, tool};
use std::fs;
use std::path::Path;
use tmem_tests::cc::program_with;
use tmem_tests::{Outcome, Run};

/// Runs `debugged` below a tool; `tmem run` starts the tool. `copy` is a file for the
/// program's memory.
fn below(tool: &Path, flags: &[&str], copy: &Path, tmem: bool) -> Outcome {
    let run = Run::new(tool).args(flags);
    let run = run.args([program_with("debugged", &[])]);
    let run = run.args([&crate::SIZE.to_string(), "go"]).args([copy]);
    let run = if tmem { run.local(crate::LOCAL) } else { run };
    let outcome = run.run().ok();
    let right = outcome.stdout().ends_with("right\n");
    assert!(right, "{}{}", outcome.stdout(), outcome.describe());
    outcome
}

/// The lines of a trace that contain `what`, without the thread that each begins with, and
/// without addresses.
fn calls(trace: &Path, what: &str) -> Vec<String> {
    let text = fs::read(trace).expect("the trace can be read");
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| line.contains(what));
    lines
        .filter(|line| !line.contains("\"0x"))
        .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '))
        .map(str::to_owned)
        .collect()
}

/// What a tracer writes of `debugged` natively and under tmem.
fn traces(path: &Path, flags: &[&str], what: &str) -> [Vec<String>; 2] {
    [false, true].map(|tmem| {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let trace = folder.path().join("trace");
        let mut all = vec!["-f", "-o", trace.to_str().expect("a path in plain letters")];
        all.extend(flags);
        below(path, &all, &folder.path().join("copy"), tmem);
        calls(&trace, what)
    })
}

#[test]
fn strace_shows_calls_and_their_memory() {
    let Some(strace) = tool("strace", "strace") else {
        return;
    };
    let [native, paged] = traces(&strace, &["-s", "64", "-e", "trace=write"], "write(");
    assert!(native.len() as u64 > crate::PAGES);
    assert!(native == paged, "{} {}", native.len(), paged.len());
}

#[test]
fn ltrace_shows_calls_of_libraries() {
    let Some(ltrace) = tool("ltrace", "ltrace") else {
        return;
    };
    let [native, paged] = traces(&ltrace, &["-e", "puts+getenv+prctl"], "puts(");
    if native.is_empty() {
        eprintln!("skipped: this ltrace shows no calls of programs, natively either");
        return;
    }
    assert_eq!(native, paged);
}

#[test]
fn perf_samples_a_program() {
    let Some(perf) = tool("perf", "linux-perf") else {
        return;
    };
    let sampled = |tmem: bool| {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        let data = data.to_str().expect("a path in plain letters");
        let flags = [
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            "1000",
            "-o",
            data,
            "--",
        ];
        let may = Run::new(&perf).args(flags).args(["true"]).run();
        if may.end != tmem_tests::process::End::Exit(0) {
            eprintln!("skipped: perf cannot record here: {}", may.stderr().trim());
            return None;
        }
        below(&perf, &flags, &folder.path().join("copy"), tmem);
        let shown = Run::new(&perf).args(["script", "-i", data, "-F", "comm,ip,sym"]);
        let stdout = shown.run().ok().stdout();
        let of_program = |line: &&str| line.contains("debugged") && line.contains("main");
        Some(stdout.lines().filter(of_program).count())
    };
    if let (Some(native), Some(paged)) = (sampled(false), sampled(true)) {
        assert!(native > 0 && paged > 0, "{native} {paged}");
    }
}

/// A tracer that comes later, while the program's memory is elsewhere.
#[test]
fn strace_that_is_attached_lets_the_program_go_on() {
    let Some(strace) = tool("strace", "strace") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let trace = folder.path().join("trace");
    let (running, pid) = crate::waiting(&program(true, "wait"), true);
    let flags = [
        "-f",
        "-o",
        trace.to_str().expect("a path in plain letters"),
        "-p",
        &pid.to_string(),
    ];
    let mut tracer = Run::new(strace).args(flags).spawn();
    tracer.wait_until("a trace", |_| {
        fs::read_to_string(&trace).is_ok_and(|text| text.lines().count() > 2)
    });
    tmem_tests::process::signal(tracer.pid(), libc::SIGTERM);
    drop(tracer);
    tmem_tests::process::signal(pid, libc::SIGKILL);
    let outcome = running.wait();
    assert!(
        outcome.figures().evicted_pages > 0,
        "{}",
        outcome.describe()
    );
    assert_eq!(outcome.figures().lost_pages, 0);
}
