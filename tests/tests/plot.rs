//! What `tmem run --plot` draws.

use std::fs;
use tmem_tests::cc::program;
use tmem_tests::process::End;
use tmem_tests::{MIB, MemServer, Run};

/// The heights of the points of each line that is drawn, in the order of the charts.
fn lines(svg: &str) -> Vec<Vec<i32>> {
    let lines = svg.lines().filter(|line| line.contains("<polyline"));
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("points=\"")?;
            let points = rest.split_once('"')?.0.split_whitespace();
            let height = |point: &str| point.split_once(',')?.1.parse().ok();
            points.map(height).collect()
        })
        .collect()
}

#[test]
fn a_life_is_drawn_with_memory_faults_and_waiting() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("life.svg");
    let server = MemServer::roomy();
    let run = Run::new(program("asked")).args(["256", "drawn"]);
    let run = run.stdin_pipe().local(64 * MIB).servers([server.address()]);
    let mut running = run.flags(["--plot".as_ref(), file.as_os_str()]).spawn();
    running.wait_for_line("ready");
    running.say("look");
    running.wait_for_line("right");
    assert!(!file.exists(), "it is drawn at the end");
    running.say("end");
    running.wait().ok();

    let svg = fs::read_to_string(&file).expect("it is written");
    for text in ["asked: memory", "Page faults", "Time waited", "budget"] {
        assert!(svg.contains(text), "{text}");
    }
    let is_level = |line: &&Vec<i32>| line.iter().all(|y| *y == line[0]);
    let lines = lines(&svg);
    let moving = lines.iter().filter(|line| !is_level(line)).count();
    // Resident, remote, faults, and both kinds of waiting; the budget is level.
    assert!(moving >= 5, "{lines:?}");
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_anything_starts() {
    let run = Run::new("/bin/echo").args(["started"]).local(64 * MIB);
    let outcome = run.flags(["--plot", "/no/such/life.svg"]).run();
    assert_eq!(outcome.end, End::Exit(125), "{}", outcome.describe());
    let said = outcome.whole_stderr();
    assert!(said.contains("--plot /no/such/life.svg: "), "{said}");
    assert_eq!(outcome.stdout(), "");
}
