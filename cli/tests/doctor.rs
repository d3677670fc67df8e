//! `tmem doctor`, as scripts use it.

use std::process::{Command, Output};

use serde_json::Value;
use tmem_tests::{MIB, MemServer};

fn doctor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tmem"))
        .arg("doctor")
        .args(args)
        .env_remove("TMEM_SERVERS")
        .env_remove("TMEM_SECRET_FILE")
        .output()
        .expect("tmem can be run")
}

fn findings(output: &Output) -> Vec<Value> {
    let value: Value = serde_json::from_slice(&output.stdout).expect("the findings are JSON");
    let ok = value["ok"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(i32::from(!ok)), "{value}");
    value["findings"].as_array().expect("findings").clone()
}

fn about<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    let found = findings.iter().find(|f| f["about"] == what);
    found.unwrap_or_else(|| panic!("{what} in {findings:?}"))
}

#[test]
fn everything_is_looked_at_and_a_miss_is_measured() {
    let found = findings(&doctor(&["--json"]));
    for what in [
        "kernel",
        "huge pages",
        "userfaultfd",
        "  /dev/userfaultfd",
        "  vm.unprivileged_userfaultfd",
        "  CAP_SYS_PTRACE",
        "memory",
        "overcommit",
        "locked memory",
        "seccomp",
        "libtmem.so",
        "RDMA",
        "servers",
    ] {
        about(&found, what);
    }
    // The tests need the permission themselves.
    let miss = about(&found, "a miss")["text"].as_str().expect("text");
    assert!(miss.contains(" us for the fault"), "{miss}");
}

#[test]
fn servers_are_asked_and_one_that_is_missing_is_a_problem() {
    let server = MemServer::spawn(64 * MIB);
    let address = server.address().to_string();
    let found = findings(&doctor(&["--json", "--server", &address]));
    let answer = &about(&found, &format!("server {address}"))["text"];
    assert!(
        answer.as_str().is_some_and(|t| t.contains("GiB free")),
        "{answer}"
    );
    about(&found, &format!("  a miss, {address}"));
    drop(server);
    let output = doctor(&["--json", "--server", &address]);
    assert_eq!(output.status.code(), Some(1));
    let found = findings(&output);
    let missing = about(&found, &format!("server {address}"));
    assert_eq!(missing["state"], "problem");
    assert!(missing["remedy"].is_string());
}

#[test]
fn people_read_the_verdict_at_the_end_and_nothing_on_stderr() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).expect("text");
    let verdict = match output.status.code() {
        Some(0) => "Programs can be paged.",
        _ => "runs the commands (#) above.",
    };
    assert!(text.trim_end().ends_with(verdict), "{text}");
    assert!(output.stderr.is_empty());
}
