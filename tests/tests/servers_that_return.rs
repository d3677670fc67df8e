//! Servers that are killed and started again, replaced, or drained under a running program: it
//! goes on with the right data, and loses nothing.

use std::time::{Duration, Instant};
use tmem_tests::cc::program;
use tmem_tests::process::{self, End};
use tmem_tests::{MIB, MemServer, Outcome, Run, Running};

const BUDGET: u64 = 48 * MIB;

/// Room for all that leaves, and the smallest that there is.
const ROOMY: u64 = 1024 * MIB;

const ANY: &str = "127.0.0.1:0";

/// A program that fills memory, waits for a line, and reads it all back.
fn filled(run: impl FnOnce(Run) -> Run) -> Running {
    let program = Run::new(program("fill")).args(["192", "pause", "1", "1"]);
    let mut running = run(program.stdin_pipe().local(BUDGET)).spawn();
    running.wait_for_line("filled");
    running
}

fn native() -> Outcome {
    let run = Run::new(program("fill"))
        .args(["192", "pause", "1", "1"])
        .stdin_pipe();
    let mut running = run.spawn();
    running.wait_for_line("filled");
    running.say("go");
    running.wait().ok()
}

fn assert_right(outcome: &Outcome) {
    assert_eq!(outcome.end, End::Exit(0), "{}", outcome.describe());
    assert_eq!(
        outcome.digest(),
        native().digest(),
        "{}",
        outcome.describe()
    );
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
    assert_eq!(outcome.figures().self_faults, 0, "{}", outcome.describe());
}

#[test]
fn a_server_that_is_killed_and_started_again_where_its_files_are_loses_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder can be made there");
    let path = folder.path().join("store").display().to_string();
    let backing = ["--backing", &path];
    let mut server = MemServer::spawn_with(ROOMY, ANY, &backing);
    let address = server.address();
    let mut running = filled(|run| run.servers([address]));
    for _ in 0..2 {
        server.kill();
        server = MemServer::spawn_with(ROOMY, &address.to_string(), &backing);
    }
    running.say("go");
    // Also while pages are asked for.
    server.kill();
    let server = MemServer::spawn_with(ROOMY, &address.to_string(), &backing);
    assert_right(&running.wait());
    server.wait_until("free again", |stats| stats.granted_pages == 0);
}

#[test]
fn a_server_that_another_process_takes_over_loses_nothing() {
    let server = MemServer::spawn_with(ROOMY, ANY, &[]);
    let address = server.address();
    let mut running = filled(|run| run.servers([address]));
    let next = MemServer::spawn_with(ROOMY, &address.to_string(), &["--takeover"]);
    running.say("go");
    let last = MemServer::spawn_with(ROOMY, &address.to_string(), &["--takeover"]);
    assert_right(&running.wait());
    last.wait_until("free again", |stats| stats.granted_pages == 0);
    drop((server, next));
}

/// Waits for the end of a server that drains.
fn wait_for_end(server: &MemServer) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline, "{:?}", server.stats());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_that_is_drained_ends_once_its_pages_are_on_another() {
    let (drained, other) = (MemServer::roomy(), MemServer::roomy());
    let mut running = filled(|run| run.servers([drained.address(), other.address()]));
    assert!(drained.stats().stored_pages > 1000);
    process::signal(drained.pid(), libc::SIGUSR1);
    wait_for_end(&drained);
    running.say("go");
    assert_right(&running.wait());
}

#[test]
fn a_program_whose_other_servers_are_too_full_says_so_and_keeps_its_pages() {
    let (drained, other) = (MemServer::roomy(), MemServer::spawn(16 * MIB));
    let mut running = filled(|run| run.servers([drained.address(), other.address()]));
    process::signal(drained.pid(), libc::SIGUSR1);
    running.wait_until("told", |r| r.stderr_so_far().contains("no other has room"));
    assert!(drained.stats().stored_pages > 1000);
    running.say("go");
    assert_right(&running.wait());
    wait_for_end(&drained);
}
