//! Bad days of programs over RDMA: they go on with the right data, or end with a
//! message that names the server.

use crate::{c_program, over_rdma, same};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tmem_memserver::{Config, Handle, Server};
use tmem_tests::cc::program;
use tmem_tests::process::{self, End};
use tmem_tests::{MIB, MemServer, Outcome, Run, Running, memserver, scale};

/// A program that fills memory, waits for a line, and reads it all back.
fn filled(server: SocketAddr) -> Running {
    let program = Run::new(program("fill")).args(["48", "pause", "1", "1"]);
    let run = program.stdin_pipe().local(32 * MIB);
    let mut running = run.servers([server]).spawn();
    running.wait_for_line("filled");
    running
}

/// It was ended, not told wrong data, and it was said which server it was.
fn assert_ended_because_of(outcome: &Outcome, server: SocketAddr) {
    let name = server.to_string();
    let told = outcome.messages().iter().any(|m| m.contains(&name));
    assert!(told, "nothing names {name}: {}", outcome.describe());
    let ended = !matches!(outcome.end, End::Exit(0 | 1));
    assert!(ended, "it was not ended: {}", outcome.describe());
    assert_eq!(outcome.stdout(), "filled\n", "{}", outcome.describe());
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_server_killed_while_it_holds_pages_ends_the_program() {
    over_rdma();
    let mut server = MemServer::roomy();
    let mut running = filled(server.address());
    server.kill();
    running.say("go");
    assert_ended_because_of(&running.wait(), server.address());
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_client_killed_frees_the_servers_memory() {
    over_rdma();
    let server = MemServer::roomy();
    let running = filled(server.address());
    assert!(server.stats().stored_pages > 0);
    let program = process::in_tree(running.pid(), "fill").expect("the program runs");
    process::signal(program, libc::SIGKILL);
    let outcome = running.wait();
    let end = End::Exit(128 + libc::SIGKILL);
    assert_eq!(outcome.end, end, "{}", outcome.describe());
    server.wait_until("free", |s| s.granted_pages == 0 && s.sessions <= 1);
}

/// It read back all that it had filled.
fn assert_right(outcome: &Outcome) {
    let run = c_program("fill", &["48", "pause", "1", "1"]).stdin_pipe();
    let mut native = run.spawn();
    native.wait_for_line("filled");
    native.say("go");
    let native = native.wait().ok();
    assert_eq!(outcome.end, End::Exit(0), "{}", outcome.describe());
    assert_eq!(outcome.digest(), native.digest(), "{}", outcome.describe());
    let figures = outcome.figures();
    assert_eq!((figures.lost_pages, figures.self_faults), (0, 0));
}

/// A server within this test.
fn own_server(max_connections: usize) -> Handle {
    let device = scale::rdma().expect("there is a device");
    let at = SocketAddr::from((device, 0));
    let config = Config {
        listen: at.to_string(),
        rdma: Some(at),
        capacity: 1024 * MIB,
        max_connections,
        ..Config::default()
    };
    let server = Server::bind(config).expect("the server can listen");
    server.spawn().expect("the server runs")
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_key_that_is_revoked_is_asked_for_again() {
    over_rdma();
    let server = own_server(100);
    let mut running = filled(server.addr());
    server.revoke_keys();
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    assert!(outcome.figures().reconnects > 0, "{}", outcome.describe());
    let stats = server.stats();
    assert_eq!((stats.pages_read, stats.pages_written), (0, 0));
}

/// No key is good for long: the program gets its pages, or its server is lost.
#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn keys_that_are_revoked_again_and_again_hang_nothing() {
    over_rdma();
    let server = own_server(100);
    let mut running = filled(server.addr());
    let ended = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                server.revoke_keys();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        running.say("go");
        let outcome = running.wait();
        ended.store(true, Ordering::Relaxed);
        outcome
    });
    if outcome.end == End::Exit(0) {
        assert_right(&outcome);
    } else {
        assert_ended_because_of(&outcome, server.addr());
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_program_that_finds_no_place_at_the_server_runs_and_says_so() {
    over_rdma();
    // Two of the program, and one that looks before it starts.
    let server = own_server(3);
    let mut running = filled(server.addr());
    let connections = |n| {
        let begin = Instant::now();
        while server.stats().connections != n {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{:?}",
                server.stats()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    connections(2);
    let third = memserver::greeted(server.addr());
    connections(3);
    let run = c_program("fill", &["48", "seq", "1", "1"]);
    let native = run.run().ok();
    let other = run.local(32 * MIB).servers([server.addr()]).run().ok();
    assert_eq!(other.digest(), native.digest(), "{}", other.describe());
    let name = server.addr().to_string();
    let told = other.messages().iter().any(|m| m.contains(&name));
    assert!(told, "{}", other.describe());
    assert_eq!(other.figures().evicted_pages, 0, "{}", other.describe());
    drop(third);
    running.say("go");
    assert_right(&running.wait());
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_server_that_may_lock_little_says_so_and_sends_pages_like_over_tcp() {
    over_rdma();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let said = folder.path().join("said");
    // Less than a slab, and enough for what connections need.
    let server = MemServer::locking(8192, &said);
    let run = c_program("fill", &["48", "seq", "1", "1"]);
    same(&run, 32 * MIB, &[&server]);
    let stats = server.stats();
    assert!(stats.pages_written > 0 && stats.pages_read > 0, "{stats:?}");
    let said = std::fs::read_to_string(&said).expect("what it said is text");
    assert!(said.contains("cannot pin"), "{said}");
    assert!(said.contains("ulimit -l unlimited"), "{said}");
}

/// Changes the state of the device's network, which no other test must use
/// meanwhile.
#[test]
#[ignore = "needs an RDMA device for itself: scripts/test-rdma"]
fn a_network_that_is_cut_for_good_ends_the_program() {
    over_rdma();
    let link = |state: &str| {
        let mut ip = Command::new("ip");
        let done = ip.args(["link", "set", "dummy0", state]).status();
        assert!(done.expect("ip can be run").success());
    };
    let server = MemServer::roomy();
    let mut running = filled(server.address());
    link("down");
    running.say("go");
    let outcome = running.wait();
    link("up");
    assert_ended_because_of(&outcome, server.address());
}
