//! What `tmem run --metrics` shows of its programs.

use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use tmem_tests::cc::program;
use tmem_tests::process::End;
use tmem_tests::scrape::{self, get, value};
use tmem_tests::{MIB, MemServer, Run, Running, artefacts};

/// A run that answers on a free port, and says where.
fn observed(run: Run) -> Run {
    run.flags(["--metrics", "127.0.0.1:0", "--log", "info"])
}

fn addr(running: &mut Running) -> SocketAddr {
    let told = |running: &Running| -> Option<SocketAddr> {
        let text = running.stderr_so_far();
        let (_, rest) = text.split_once("metrics on http://")?;
        rest.split_once("/metrics")?.0.parse().ok()
    };
    running.wait_until("the address of metrics", |running| told(running).is_some());
    told(running).expect("it was there")
}

fn metrics(addr: SocketAddr) -> String {
    let (status, text) = get(addr, "GET", "/metrics");
    assert!(status.ends_with("200 OK"), "{status}");
    text
}

/// A figure of a program in MiB.
fn mib(metrics: &str, name: &str) -> f64 {
    value(metrics, &format!("tmem_program_{name} ")) / MIB as f64
}

/// A counter of `tmem stats --json`.
fn counted(pid: i32, name: &str) -> f64 {
    let output = Command::new(artefacts::tmem())
        .args(["stats", &pid.to_string(), "--json"])
        .output();
    let stdout = output.expect("tmem can be run").stdout;
    let json: Value = serde_json::from_slice(&stdout).expect("JSON");
    json["statistics"][name].as_f64().expect("a number")
}

#[test]
fn what_a_program_has_and_waits_for_is_scraped() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .args(["256", "scraped"])
        .stdin_pipe();
    let run = run.local(64 * MIB).servers([server.address()]);
    let mut running = observed(run).spawn();
    let addr = addr(&mut running);
    running.wait_for_line("ready");

    let filled = metrics(addr);
    assert_eq!(value(&filled, "tmem_program_processes "), 1.0);
    assert_eq!(mib(&filled, "budget_bytes"), 64.0);
    let resident = mib(&filled, "resident_bytes");
    assert!((32.0..=64.0 * 1.05 + 16.0).contains(&resident), "{filled}");
    assert!(mib(&filled, "remote_bytes") > 128.0, "{filled}");
    assert!(mib(&filled, "written_bytes_total") > 128.0, "{filled}");
    assert_eq!(mib(&filled, "lost_bytes_total"), 0.0);

    // More than the half of it that is away has to come back.
    running.say("look");
    running.wait_for_line("right");
    let read = metrics(addr);
    let more = mib(&read, "read_bytes_total") - mib(&filled, "read_bytes_total");
    assert!(more > 128.0, "{more}");
    let seconds = |what| value(&read, &format!("tmem_program_waited_{what}_seconds_total "));
    assert!(seconds("some") > 0.0 && seconds("full") <= seconds("some"));
    let faults = value(&read, "tmem_program_fault_duration_seconds_count ");
    assert!(faults > 0.0, "{read}");
    assert!(value(&read, "tmem_program_fault_duration_seconds_sum ") > 0.0);
    // The same words, read by another command.
    let fetched = counted(running.pid(), "fetched_pages") * 4096.0 / MIB as f64;
    assert!(fetched >= mib(&read, "read_bytes_total"), "{fetched}");
    assert!(fetched <= mib(&metrics(addr), "read_bytes_total"));

    scrape::check(&read);
    scrape::by_prometheus(addr, "tmem_program_budget_bytes", "67108864");
    scrape::check_packaged("tmem_program_", "grafana/tmem-programs.json", &read);
    for (path, status) in [("/healthz", "200 OK"), ("/readyz", "200 OK")] {
        assert!(get(addr, "GET", path).0.ends_with(status), "{path}");
    }
    running.say("end");
    running.wait().ok();
}

#[test]
fn a_program_that_is_not_paged_is_healthy_and_not_ready() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let run = Run::new("/bin/sh").args(["-c", "read line"]).stdin_pipe();
    let run = run.local(64 * MIB).servers([nobody.expect("a free port")]);
    let mut running = observed(run.flags(["--unpaged-ok"])).spawn();
    let addr = addr(&mut running);
    let (status, _) = get(addr, "GET", "/healthz");
    assert!(status.ends_with("200 OK"), "{status}");
    let (status, why) = get(addr, "GET", "/readyz");
    assert!(status.ends_with("503 Service Unavailable"), "{status}");
    assert_eq!(why, "no process is paged\n");
    running.say("end");
    running.wait().ok();
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    let run = Run::new("/bin/echo").args(["started"]).local(64 * MIB);
    let outcome = run.flags(["--metrics", &addr]).run();
    assert_eq!(outcome.end, End::Exit(125), "{}", outcome.describe());
    let said = outcome.whole_stderr();
    assert!(said.contains(&format!("--metrics {addr}: ")), "{said}");
    assert_eq!(outcome.stdout(), "");
}
