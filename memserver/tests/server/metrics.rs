//! Metrics, health checks and logs of the daemon.

use crate::client::Client;
use crate::daemon::{Daemon, command};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use tmem_tests::scrape::{self, get, value};

/// Where a daemon answers metrics, by its ready line.
fn metrics_of(daemon: &Daemon) -> SocketAddr {
    let line = daemon.line();
    let (_, addr) = line.split_once("metrics on ").expect("the line names it");
    addr.trim().parse().expect("an address")
}

fn daemon(args: &[&str]) -> Daemon {
    let metrics = ["--metrics", "127.0.0.1:0", "--capacity", "64M"];
    Daemon::on_free_port(&[&metrics[..], args].concat())
}

#[test]
fn figures_and_latencies_are_scraped() {
    let daemon = daemon(&[]);
    let addr = metrics_of(&daemon);
    // A server that has answered has counted the connection.
    let mut client = Client::new(daemon.addr);
    client.ping();
    let (status, metrics) = get(addr, "GET", "/metrics");
    assert!(status.ends_with("200 OK"), "{status}");
    assert_eq!(
        value(&metrics, "tmem_memserver_capacity_bytes "),
        f64::from(64 << 20)
    );
    assert_eq!(value(&metrics, "tmem_memserver_connections "), 1.0);
    value(&metrics, "tmem_memserver_read_bytes_total ");
    value(
        &metrics,
        "tmem_memserver_request_duration_seconds_sum{op=\"read\"} ",
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[test]
fn promtool_accepts_what_is_scraped() {
    let daemon = daemon(&[]);
    let (_, metrics) = get(metrics_of(&daemon), "GET", "/metrics");
    scrape::check(&metrics);
}

#[test]
fn health_checks_are_answered_and_other_requests_refused() {
    let daemon = daemon(&[]);
    let addr = metrics_of(&daemon);
    for (method, path, status) in [
        ("GET", "/healthz", "200 OK"),
        ("GET", "/readyz", "200 OK"),
        ("HEAD", "/readyz", "200 OK"),
        ("GET", "/", "404 Not Found"),
        ("POST", "/metrics", "405 Method Not Allowed"),
    ] {
        let (answer, _) = get(addr, method, path);
        assert!(answer.ends_with(status), "{method} {path}: {answer}");
    }
}

#[test]
fn clients_of_metrics_that_say_nothing_are_in_nobodys_way() {
    let daemon = daemon(&[]);
    let addr = metrics_of(&daemon);
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(addr).expect("it listens"))
        .collect();
    let (status, _) = get(addr, "GET", "/healthz");
    assert!(status.ends_with("200 OK"), "{status}");
    drop(silent);
}

#[test]
fn a_log_for_machines_is_json() {
    let mut child = command(&[
        "--log-format",
        "json",
        "--listen",
        "0.0.0.0:0",
        "--capacity",
        "16M",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .expect("it can be run");
    let mut line = String::new();
    let stderr = child.stderr.take().expect("a pipe");
    // The warning that there is no secret.
    BufReader::new(stderr).read_line(&mut line).expect("a line");
    child.kill().and_then(|()| child.wait()).expect("it ends");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["level"], "WARN");
    let message = value["message"].as_str().expect("text");
    assert!(message.contains("can use this memory"), "{message}");
    assert!(value["timestamp"].is_string());
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let daemon = daemon(&[]);
    let (_, metrics) = get(metrics_of(&daemon), "GET", "/metrics");
    scrape::check_packaged("tmem_memserver_", "grafana/tmem-memserver.json", &metrics);
}

#[test]
fn alerts_fire_when_they_should() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus");
    let output = Command::new("promtool")
        .args(["test", "rules", "tmem.test.yml"])
        .current_dir(folder)
        .output();
    match output {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => eprintln!("skipped: promtool is not installed (Debian's package prometheus)"),
    }
}

#[test]
fn prometheus_scrapes_it() {
    let daemon = daemon(&[]);
    let addr = metrics_of(&daemon);
    scrape::by_prometheus(addr, "tmem_memserver_capacity_bytes", "67108864");
}
