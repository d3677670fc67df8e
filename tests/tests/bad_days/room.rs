//! Servers that are full, and how their memory becomes free.

use tmem_tests::cc::program;
use tmem_tests::compare::assert_sound;
use tmem_tests::filled::{BUDGET, assert_right, filled};
use tmem_tests::process::{self, End};
use tmem_tests::{MIB, MemServer, Outcome, Run, Running};

#[test]
fn full_servers_leave_the_rest_in_local_memory() {
    let servers = [MemServer::spawn(48 * MIB), MemServer::spawn(32 * MIB)];
    let addresses = servers.iter().map(MemServer::address);
    let mut running = filled(|run| run.servers(addresses));
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    let messages = outcome.messages();
    assert!(
        messages.iter().any(|m| m.contains("full")),
        "{}",
        outcome.describe()
    );
    assert!(messages.len() <= 2, "{}", outcome.describe());
    // The line at the end gives that as the reason.
    assert!(
        outcome.figures().servers_full > 0
            && messages
                .iter()
                .filter(|m| m.contains("was exceeded by"))
                .all(|m| m.contains("the memory servers were full: give them more")),
        "{}",
        outcome.describe()
    );
    // What the servers can hold is used.
    assert!(
        outcome.figures().remote_bytes > 40 * MIB,
        "{}",
        outcome.describe()
    );
}

/// A program of `mib` MiB over a budget of 32 MiB, by a server that has `capacity` MiB.
fn over_a_small_server(mib: &str, capacity: u64, mode: &str) -> Outcome {
    let server = MemServer::spawn(capacity * MIB);
    let fill = || Run::new(program("fill")).args([mib, mode, "1", "3"]);
    let outcome = fill()
        .local(32 * MIB)
        .servers([server.address()])
        .run()
        .ok();
    assert_eq!(outcome.digest(), fill().run().ok().digest());
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
    outcome
}

/// What a budget of 32 MiB allows for a moment: 5 % and 16 MiB more.
const MOST: u64 = 50 * MIB;

#[test]
fn a_server_that_holds_what_exceeds_the_budget_is_large_enough() {
    for mode in ["seq", "random"] {
        let outcome = over_a_small_server("130", 128, mode);
        let peak = outcome.figures().peak_counted_bytes;
        assert!(peak <= MOST, "{}", outcome.describe());
        assert!(outcome.messages().is_empty(), "{}", outcome.describe());
    }
}

#[test]
fn only_what_has_no_place_on_a_full_server_exceeds_the_budget() {
    for mode in ["seq", "random"] {
        let outcome = over_a_small_server("130", 64, mode);
        let peak = outcome.figures().peak_counted_bytes;
        assert!(
            peak <= MOST + (130 - 64 - 32) * MIB,
            "{}",
            outcome.describe()
        );
        let said = outcome.messages();
        assert_eq!(said.len(), 2, "{}", outcome.describe());
        for (line, words) in said.iter().zip(["servers are full", "was exceeded by"]) {
            assert!(line.contains(words), "{}", outcome.describe());
        }
    }
}

#[test]
fn runs_in_a_row_each_have_a_server_that_is_nearly_full_to_themselves() {
    let server = MemServer::spawn(112 * MIB);
    let fill = || Run::new(program("fill")).args(["100", "seq", "1", "1"]);
    let native = fill().run().ok();
    for _ in 0..3 {
        let run = fill().local(24 * MIB).servers([server.address()]);
        let outcome = run.run().ok();
        assert_eq!(outcome.digest(), native.digest());
        assert_sound(&outcome, 24 * MIB);
        assert!(outcome.messages().is_empty(), "{}", outcome.describe());
    }
}

#[test]
fn a_program_that_found_no_room_is_paged_once_there_is_some() {
    let server = MemServer::spawn(256 * MIB);
    let mut first = filled(|run| run.servers([server.address()]));
    let mut second = filled(|run| run.servers([server.address()]).flags(["--log", "info"]));
    let says = |words: &'static str| move |r: &Running| r.stderr_so_far().contains(words);
    second.wait_until("told", says("the memory servers are full"));
    first.say("go");
    assert_right(&first.wait());
    second.wait_until("told that it is over", says("servers take pages again"));
    second.say("go");
    let outcome = second.wait();
    assert_right(&outcome);
    let full = outcome.messages();
    let full = full.iter().filter(|m| m.contains("are full")).count();
    assert_eq!(full, 1, "{}", outcome.describe());
    assert!(
        outcome.figures().remote_bytes > 96 * MIB,
        "{}",
        outcome.describe()
    );
}

#[test]
fn a_client_killed_frees_the_servers_memory() {
    let server = MemServer::roomy();
    let running = filled(|run| run.servers([server.address()]));
    assert!(server.stats().stored_pages > 0);
    let program = process::in_tree(running.pid(), "fill").expect("the program runs");
    process::signal(program, libc::SIGKILL);
    let outcome = running.wait();
    assert_eq!(
        outcome.end,
        End::Exit(128 + libc::SIGKILL),
        "{}",
        outcome.describe()
    );
    // The session that asks is one itself.
    server.wait_until("free", |s| {
        s.granted_pages == 0 && s.stored_pages == 0 && s.sessions <= 1
    });
}

#[test]
fn a_client_that_ends_frees_the_servers_memory() {
    let server = MemServer::roomy();
    let mut running = filled(|run| run.servers([server.address()]));
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    assert_sound(&outcome, BUDGET);
    server.wait_until("free", |s| {
        s.granted_pages == 0 && s.stored_pages == 0 && s.sessions <= 1
    });
}
