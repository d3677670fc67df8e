//! `tmem bench`: that it measures and reports. How fast anything is says
//! nothing here.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tmem_tests::artefacts;
use tmem_tests::process::as_from_a_shell;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(artefacts::tmem());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TMEM_") {
            command.env_remove(name);
        }
    }
    command
        .arg("bench")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("tmem can be run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it wrote; the suite has to have ended well.
fn measured(folder: &Path, args: &[&str]) -> (String, Value) {
    let file = folder.join("bench.json");
    let mut all = vec!["--quick", "--json", file.to_str().expect("a plain path")];
    all.extend(args);
    let output = bench(&all);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // Whether a workload waits for pages most of the time depends on the machine's speed.
    let text = stderr(&output);
    let mut lines = text.lines();
    assert!(
        lines.all(|line| line.contains(" has waited for pages for ")),
        "{text}"
    );
    let json = std::fs::read_to_string(file).expect("the figures were written");
    (
        String::from_utf8(output.stdout).expect("tables are text"),
        serde_json::from_str(&json).expect("the figures are JSON"),
    )
}

fn positive(value: &Value, what: &str) {
    assert!(value.as_f64().is_some_and(|n| n > 0.0), "{what}: {value}");
}

#[test]
fn floors_and_patterns_are_measured_and_drawn() {
    let folder = tempfile::tempdir().expect("there is room");
    let plots = folder.path().join("plots");
    let (text, json) = measured(
        folder.path(),
        &[
            "--size",
            "40M",
            "--local",
            "100,50",
            "--only",
            "floors,random-write,seq-rmw",
            "--plots",
            plots.to_str().expect("a plain path"),
        ],
    );
    for part in ["Floors of this machine", "bare fault", "random-write"] {
        assert!(text.contains(part), "{text}");
    }
    let floors = &json["floors"];
    for times in [
        "echo",
        "echo_one_cpu",
        "server_ping",
        "server_read",
        "fault",
        "fault_one_cpu",
    ] {
        for figure in ["mean_ns", "p50_ns", "p99_ns"] {
            positive(&floors[times][figure], times);
        }
    }
    for rate in ["stream", "server_stream", "fill"] {
        positive(&floors[format!("{rate}_gb_per_s")], rate);
    }
    assert_eq!(floors["server_is_local"], true);
    assert_eq!(json["settings"]["size_bytes"], 40 << 20);
    assert_eq!(json["settings"]["embedded"], true);
    let rows = json["patterns"].as_array().expect("rows");
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| (row["pattern"].as_str(), row["local_percent"].as_f64()))
        .collect();
    let wanted = ["seq-rmw", "random-write"]
        .map(|name| [None, Some(100.0), Some(50.0)].map(|local| (Some(name), local)));
    assert_eq!(kinds, wanted.concat());
    for row in rows {
        positive(&row["ns_per_access"], "ns_per_access");
        if row["local_percent"] == 50.0 {
            positive(&row["slowdown"], "slowdown");
            positive(&row["to_floor"], "to_floor");
            positive(&row["run"]["pager"]["faults"], "faults");
            positive(&row["run"]["whole"]["evicted_pages"], "evicted_pages");
            assert_eq!(row["run"]["whole"]["self_faults"], 0);
        }
    }
    for name in ["slowdown.svg", "latency.svg"] {
        let svg = std::fs::read_to_string(plots.join(name)).expect("it was drawn");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}

#[test]
fn latencies_threads_and_costs_are_measured() {
    let folder = tempfile::tempdir().expect("there is room");
    let (_, json) = measured(
        folder.path(),
        &["--size", "40M", "--only", "latency,threads,fits,start"],
    );
    let rows = json["latency"].as_array().expect("rows");
    let kinds: Vec<_> = rows.iter().filter_map(|row| row["kind"].as_str()).collect();
    let wanted = [
        "random-read",
        "random-write",
        "seq-read",
        "standby hit",
        "zero-fill",
    ];
    assert_eq!(kinds, wanted);
    for row in rows {
        let [p50, p99, p999] =
            ["p50_ns", "p99_ns", "p999_ns"].map(|name| row[name].as_f64().expect("a number"));
        assert!(p50 <= p99 && p99 <= p999, "{row}");
        let times = row["run"]["latency"].as_array().expect("a histogram");
        assert!(!times.is_empty());
    }
    positive(&json["fill"]["gb_per_s"], "fill");
    for row in json["threads"].as_array().expect("rows") {
        positive(&row["per_s"], "per_s");
        positive(&row["native_per_s"], "native_per_s");
    }
    assert_eq!(json["fits"].as_array().map(Vec::len), Some(3));
    positive(&json["start"]["plain_us"], "plain_us");
    positive(&json["start"]["preloaded_us"], "preloaded_us");
}

#[test]
fn wrong_flags_are_told_before_anything_is_measured() {
    for (args, wanted) in [
        (&["--local", "150"][..], "allowed: percents"),
        (&["--only", "disk"], "allowed: floors, patterns"),
        (&["--size", "lots"], "is not a size"),
        (&["--server", "rdma://x:1"], "cannot be reached"),
        (&["--size", "96M", "--local", "5"], "at least 16M"),
        (&["--size", "1000T"], "use a smaller --size"),
        (&["--json", "/nowhere/at/all"], "--json /nowhere/at/all"),
        (&["--plots", "/dev/null/plots"], "--plots /dev/null/plots"),
        (&["--secret-file", "secret"], "named with --server"),
        (&["--server", "127.0.0.1:1"], "cannot be reached"),
    ] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        let said = stderr(&output);
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<String> {
    let parent = format!("PPid:\t{pid}");
    let started = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        status.is_ok_and(|text| text.lines().any(|line| line == parent))
    };
    std::fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok() && started(name))
        .collect()
}

#[test]
fn a_signal_ends_the_suite_and_its_workload() {
    let mut running = as_from_a_shell(&mut Command::new(artefacts::tmem()))
        .args(["bench", "--only", "random-read", "--size", "64M"])
        .args(["--local", "50"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tmem can be run");
    let started = loop {
        let started = children(running.id());
        if !started.is_empty() {
            break started;
        }
        assert!(running.try_wait().is_ok_and(|ended| ended.is_none()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    // SAFETY: a plain call about a child of this process.
    unsafe { libc::kill(running.id() as libc::pid_t, libc::SIGTERM) };
    let status = running.wait().expect("it ends");
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
    for pid in started {
        assert!(!Path::new("/proc").join(pid).exists());
    }
}

#[test]
fn a_page_and_the_time_left_are_for_people() {
    let folder = tempfile::tempdir().expect("there is room");
    let page = folder.path().join("bench.html");
    let command = format!(
        "{} bench --quick --size 40M --local 50 --only zipf,fits --html {}",
        artefacts::tmem().display(),
        page.display()
    );
    // `script` has the command run on a terminal.
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    // What is measured, and for how long: first natively, then paged.
    for step in ["zipf natively (about ", "zipf at 50 % ("] {
        assert!(said.contains(step), "{step} in {said:?}");
    }
    let page = std::fs::read_to_string(page).expect("it is written");
    for part in [
        "<td>zipf</td><td>native</td>",
        "Slowdown against",
        "filling a page",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}
