//! Servers that are killed and started again, replaced, or drained under a running program: it
//! goes on with the right data, and loses nothing.

use std::time::{Duration, Instant};
use tmem_tests::filled::{assert_right, filled};
use tmem_tests::process;
use tmem_tests::{MIB, MemServer};

/// Room for all that leaves, and the smallest that there is.
const ROOMY: u64 = 1024 * MIB;

const ANY: &str = "127.0.0.1:0";

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
