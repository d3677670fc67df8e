//! Programs that are looked at, and given more or less, while they run.

use serde_json::Value;
use std::process::{Command, Output};
use tmem_tests::cc::program;
use tmem_tests::{MIB, MemServer, Run, Running, artefacts};

fn tmem(args: &[&str]) -> Output {
    let output = Command::new(artefacts::tmem()).args(args).output();
    output.expect("tmem can be run")
}

fn ok(args: &[&str]) -> String {
    let output = tmem(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// The line of a program in `tmem ps`.
fn line(command: &str) -> Option<Value> {
    let lines: Value = serde_json::from_str(&ok(&["ps", "--json"])).expect("JSON");
    let is_it = |line: &&Value| {
        line["command"]
            .as_str()
            .is_some_and(|c| c.contains(command))
    };
    lines
        .as_array()
        .expect("a list")
        .iter()
        .find(is_it)
        .cloned()
}

/// A program that holds 256 MiB of which it is asked to say whether they are right.
fn holder(run: &Run, mark: &str) -> Running {
    let mut running = run.clone().args(["256", mark]).stdin_pipe().spawn();
    running.wait_for_line("ready");
    running
}

fn mib(line: &Value, what: &str) -> u64 {
    line[what].as_u64().expect("a number") / MIB
}

/// Grows, recalls, shrinks and evicts, and has the program look at its memory after each.
fn change(running: &mut Running, mark: &str) {
    let seen = line(mark).expect("it is listed");
    let pid = seen["pid"].to_string();
    assert_eq!(mib(&seen, "budget_bytes"), 64);
    assert!(mib(&seen, "remote_bytes") > 128, "{seen}");

    let said = ok(&["set", &pid, "--local", "512M"]);
    assert!(said.contains("budget 64M -> 512M"), "{said}");
    ok(&["recall", &pid]);
    let seen = line(mark).expect("it is listed");
    assert!(mib(&seen, "resident_bytes") > 240, "{seen}");
    assert!(mib(&seen, "remote_bytes") < 16, "{seen}");
    running.say("look");
    running.wait_for_lines("right", 1);

    ok(&["set", &pid, "--local", "64M", "--wait"]);
    let seen = line(mark).expect("it is listed");
    assert!(mib(&seen, "resident_bytes") <= 64 + 64 / 20 + 16, "{seen}");
    running.say("look");
    running.wait_for_lines("right", 2);

    ok(&["evict", &pid]);
    let seen = line(mark).expect("it is listed");
    assert!(mib(&seen, "resident_bytes") < 32, "{seen}");
    assert_eq!(mib(&seen, "budget_bytes"), 64);
    running.say("look");
    running.wait_for_lines("right", 3);

    let said = ok(&["recall", &pid, "--all"]);
    assert!(said.contains("resident -> "), "{said}");
    let seen = line(mark).expect("it is listed");
    assert!(mib(&seen, "remote_bytes") < 16, "{seen}");
    let stats: Value = serde_json::from_str(&ok(&["stats", &pid, "--json"])).expect("JSON");
    let statistics = &stats["statistics"];
    assert_eq!(statistics["lost_pages"], 0);
    assert!(statistics["faults"].as_u64() > Some(0), "{stats}");
    assert!(statistics["waited_some_ns"].as_u64() > Some(0), "{stats}");
    running.say("look");
    running.wait_for_lines("right", 4);
}

#[test]
fn a_program_under_tmem_run_is_changed_while_it_runs() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .local(64 * MIB)
        .servers([server.address()]);
    let mut running = holder(&run, "under-run");
    change(&mut running, "asked 256 under-run");
    running.say("end");
    let ended = running.wait().ok();
    assert_eq!(ended.figures().lost_pages, 0);
    // That it had more than the first budget is nothing to complain of.
    assert_eq!(ended.stderr(), "");
    assert!(line("asked 256 under-run").is_none());
}

#[test]
fn a_program_of_the_preload_line_is_changed_while_it_runs() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .preload()
        .env("TMEM_LOCAL", "64M")
        .env("TMEM_SERVERS", server.address().to_string());
    let mut running = holder(&run, "alone");
    change(&mut running, "asked 256 alone");
    running.say("end");
    running.wait().ok();
}

#[test]
fn the_number_of_tmem_run_stands_for_what_it_runs() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .local(64 * MIB)
        .servers([server.address()]);
    let mut running = holder(&run, "by-run");
    let said = ok(&["set", &running.pid().to_string(), "--local", "96M"]);
    assert!(said.contains("budget 64M -> 96M"), "{said}");
    assert_eq!(
        mib(&line("asked 256 by-run").expect("listed"), "budget_bytes"),
        96
    );
    running.say("end");
    running.wait().ok();
}

#[test]
fn the_program_sees_no_descriptor_of_it() {
    // The same as natively, what this test has inherited included.
    let count = |run: Run| {
        let mut running = holder(&run, "descriptors");
        running.say("descriptors");
        running.say("end");
        running.wait().ok().stdout()
    };
    let server = MemServer::roomy();
    let run = Run::new(program("asked"));
    let native = count(run.clone());
    let paged = run
        .preload()
        .env("TMEM_LOCAL", "64M")
        .env("TMEM_SERVERS", server.address().to_string());
    assert_eq!(count(paged), native);
}

#[test]
fn who_is_not_paged_is_told_so() {
    let own = std::process::id().to_string();
    for args in [
        &["stats", &own][..],
        &["evict", &own],
        &["set", &own, "--local", "1G"],
    ] {
        let output = tmem(args);
        assert_eq!(output.status.code(), Some(125));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("is not paged"), "{text}");
    }
}

#[test]
fn a_program_that_waits_most_of_its_time_says_what_would_cure_it() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .local(32 * MIB)
        .servers([server.address()]);
    let mut running = run.args(["128", "waiting"]).stdin_pipe().spawn();
    running.wait_for_line("ready");
    running.say("thrash");
    let mark = " has waited for pages for ";
    running.wait_until("the line", |running| running.stderr_so_far().contains(mark));
    let seen = line("asked 128 waiting").expect("it is listed");
    let stats = ok(&["stats", &seen["pid"].to_string(), "--json"]);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let set = mib(&stats, "working_set_bytes");
    assert!((64..=160).contains(&set), "{stats}");
    assert!(seen["waited_some"].as_f64() > Some(0.3), "{seen}");
    running.say("end");
    running.wait_for_line("thrashed");
    let ended = running.wait().ok();
    let said = ended.stderr();
    assert_eq!(said.matches(mark).count(), 1, "{said}");
    assert!(
        said.contains("asked (process ") && said.contains("--local "),
        "{said}"
    );
}
