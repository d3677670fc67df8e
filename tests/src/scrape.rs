//! Metrics: how they are asked for, and what they must be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Status line and body of what is answered.
pub fn get(addr: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    let status = head.lines().next().unwrap_or_default().to_owned();
    (status, body.to_owned())
}

/// The value of a metric.
pub fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name} in\n{metrics}"));
    value.trim().parse().expect("a number")
}

/// OpenMetrics text in Prometheus' older format, which is all that `promtool` reads: it has no
/// units, end or type `info`, and describes a sample by its whole name.
fn as_text_format(metrics: &str) -> String {
    let types: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let suffix = |name: &str| match types.iter().find(|(family, _)| *family == name) {
        Some((_, "counter")) => "_total",
        Some((_, "info")) => "_info",
        _ => "",
    };
    let mut text = String::new();
    for line in metrics.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let line = match words[..] {
            ["#", "UNIT", ..] | ["#", "EOF"] => continue,
            ["#", "TYPE", name, "info"] => format!("# TYPE {name}_info gauge"),
            ["#", what, name, rest] => format!("# {what} {name}{} {rest}", suffix(name)),
            _ => line.to_owned(),
        };
        text += &line;
        text.push('\n');
    }
    text
}

/// Has `promtool` check what was scraped, if it is installed.
pub fn check(metrics: &str) {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("not checked: promtool is not installed (Debian's package prometheus)");
        return;
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run");
    let text = as_text_format(metrics);
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{text}");
}

/// Has a real Prometheus scrape `addr` until it has this value of a metric, if it is installed.
pub fn by_prometheus(addr: SocketAddr, metric: &str, value: &str) {
    let version = Command::new("prometheus").arg("--version").output();
    if version.is_err() {
        eprintln!("not checked: prometheus is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: tmem\n    \
         static_configs: [{{targets: ['{addr}']}}]\n"
    );
    std::fs::write(at("prometheus.yml"), config).expect("the folder can be written");
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let web = free.expect("a port");
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", at("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", at("data")))
        .arg(format!("--web.listen-address={web}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus can be run");
    let query = format!("/api/v1/query?query={metric}");
    let begun = Instant::now();
    let found = loop {
        let answer = match TcpStream::connect(web) {
            Ok(_) => get(web, "GET", &query).1,
            Err(_) => String::new(),
        };
        if answer.contains(&format!("\"{value}\"")) {
            break true;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let ended = prometheus.kill().and_then(|()| prometheus.wait());
    ended.expect("it ends");
    assert!(found, "{metric} of {addr} is not {value}");
}

/// Checks that alerts and a dashboard, both below `packaging`, name only metrics that were
/// scraped, among those whose names have this beginning.
pub fn check_packaged(beginning: &str, dashboard: &str, metrics: &str) {
    let read = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/");
        std::fs::read_to_string(format!("{folder}{name}")).expect("it is there")
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut count = 0;
    for file in ["prometheus/tmem.rules.yml", dashboard] {
        let text = read(file);
        let words = text.split(|c: char| !is_name(c));
        for name in words.filter(|word| word.starts_with(beginning)) {
            count += 1;
            let begins = |line: &str| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            };
            assert!(metrics.lines().any(begins), "{file}: {name} in\n{metrics}");
        }
    }
    assert!(count > 10, "only {count} names were found");
    serde_json::from_str::<serde_json::Value>(&read(dashboard)).expect("the dashboard is JSON");
}
