//! A budget that follows the machine.

use serde_json::Value;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tmem_tests::cc::program;
use tmem_tests::cgroup::Cgroup;
use tmem_tests::{MIB, MemServer, Run, artefacts};

/// What others do: takes 200 MiB step by step, and gives them back when it is told.
const OTHER: &str = "
import sys, time
taken = []
for step in range(20):
    taken.append(bytearray(b'x' * (10 << 20)))
    time.sleep(0.2)
print('ready', flush=True)
sys.stdin.readline()
";

/// Budget in MiB of the program with this mark.
fn budget(mark: &str) -> u64 {
    let output = Command::new(artefacts::tmem())
        .args(["ps", "--json"])
        .output();
    let lines: Value =
        serde_json::from_slice(&output.expect("tmem can be run").stdout).expect("JSON");
    let is_it = |line: &&Value| line["command"].as_str().is_some_and(|c| c.contains(mark));
    let line = lines.as_array().expect("a list").iter().find(is_it);
    line.expect("it is listed")["budget_bytes"]
        .as_u64()
        .expect("a number")
        / MIB
}

fn wait_for(what: &str, mark: &str, is_so: impl Fn(u64) -> bool) -> u64 {
    let start = Instant::now();
    loop {
        let now = budget(mark);
        if is_so(now) {
            return now;
        }
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{what}: {now} MiB"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn memory_that_others_need_is_given_back_and_taken_again() {
    let Some(cgroup) = Cgroup::with_limit(512 * MIB) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return;
    };
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .args(["600", "auto"])
        .stdin_pipe();
    let run = run.servers([server.address()]).flags(["--local", "auto"]);
    let mut running = run.cgroup(&cgroup).spawn();
    running.wait_for_line("ready");
    running.say("thrash");
    let mark = "asked 600 auto";
    let alone = wait_for("all of the cgroup", mark, |now| now > 350);

    let other = Run::new("python3").args(["-c", OTHER]).stdin_pipe();
    let mut other = other.cgroup(&cgroup).spawn();
    other.wait_for_line("ready");
    wait_for("the rest", mark, |now| now < alone - 100);
    other.say("end");
    other.wait().ok();

    wait_for("all of it again", mark, |now| now > 350);
    assert_eq!(cgroup.oom_kills(), 0);
    running.say("end");
    running.wait_for_line("thrashed");
    running.wait().ok();
    assert_eq!(cgroup.oom_kills(), 0);
}

#[test]
fn bounds_are_kept() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .args(["128", "bounded"])
        .stdin_pipe();
    let run = run.servers([server.address()]);
    let flags = [
        "--local",
        "auto",
        "--local-max",
        "64M",
        "--local-min",
        "32M",
    ];
    let mut running = run.flags(flags).spawn();
    running.wait_for_line("ready");
    assert_eq!(budget("asked 128 bounded"), 64);
    running.say("end");
    running.wait().ok();
}
