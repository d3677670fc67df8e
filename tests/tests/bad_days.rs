//! What happens to a running program when its servers fail it: it goes on with
//! the right data, or it ends with a message that names the server. Never
//! wrong data, never a hang.

use tmem_tests::cc::program;
use tmem_tests::compare::assert_sound;
use tmem_tests::process::{self, End};
use tmem_tests::proxy::Fault;
use tmem_tests::{MIB, MemServer, Outcome, PagePath, Proxy, Run, Running};

const BUDGET: u64 = 48 * MIB;

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

/// The program got SIGBUS or was ended, and was told which server it was.
fn assert_ended_because_of(outcome: &Outcome, server: &str) {
    let told = outcome.messages().iter().any(|m| m.contains(server));
    assert!(told, "nothing names {server}: {}", outcome.describe());
    // 1 is what the program says of wrong data.
    let ended = !matches!(outcome.end, End::Exit(0 | 1));
    assert!(ended, "it was not ended: {}", outcome.describe());
    assert_eq!(outcome.stdout(), "filled\n", "{}", outcome.describe());
}

#[test]
fn a_server_killed_while_it_holds_pages_ends_the_program() {
    for path in [PagePath::Auto, PagePath::Copy] {
        let mut server = MemServer::roomy();
        let mut running = filled(|run| run.servers([server.address()]).page_path(path));
        server.kill();
        running.say("go");
        assert_ended_because_of(&running.wait(), &server.address().to_string());
    }
}

#[test]
fn a_server_killed_beside_a_good_one_ends_the_program_and_names_the_right_one() {
    let good = MemServer::roomy();
    let mut bad = MemServer::roomy();
    let mut running = filled(|run| run.servers([good.address(), bad.address()]));
    bad.kill();
    running.say("go");
    let outcome = running.wait();
    assert_ended_because_of(&outcome, &bad.address().to_string());
    let blamed = outcome
        .messages()
        .iter()
        .any(|m| m.contains(&good.address().to_string()));
    assert!(!blamed, "{}", outcome.describe());
}

#[test]
fn a_server_restarted_has_lost_the_pages_and_ends_the_program() {
    let mut server = MemServer::roomy();
    let address = server.address().to_string();
    let mut running = filled(|run| run.servers([server.address()]));
    server.kill();
    let again = MemServer::spawn_with(4096 * MIB, &address, &[]);
    running.say("go");
    let outcome = running.wait();
    assert_ended_because_of(&outcome, &address);
    assert_said(&outcome, "it was restarted");
    drop(again);
}

fn assert_said(outcome: &Outcome, words: &str) {
    let said = outcome.messages().iter().any(|m| m.contains(words));
    assert!(said, "nothing says {words:?}: {}", outcome.describe());
}

#[test]
fn a_server_that_its_owner_ends_says_so() {
    let mut server = MemServer::roomy();
    let address = server.address().to_string();
    let mut running = filled(|run| run.servers([server.address()]));
    server.end();
    running.say("go");
    let outcome = running.wait();
    assert_ended_because_of(&outcome, &address);
    assert_said(&outcome, "the server is shutting down");
}

#[test]
fn a_server_that_hangs_for_good_ends_the_program() {
    let server = MemServer::roomy();
    let mut running = filled(|run| run.servers([server.address()]));
    server.freeze();
    running.say("go");
    assert_ended_because_of(&running.wait(), &server.address().to_string());
}

/// A program behind a proxy that does `fault` once the program is filled.
fn behind(fault: Fault) -> (Outcome, Proxy) {
    let server = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    let mut running = filled(|run| run.servers([proxy.address()]));
    proxy.set(fault);
    running.say("go");
    (running.wait(), proxy)
}

#[test]
fn wrong_bytes_are_never_given_to_the_program() {
    for fault in [Fault::FlipReads, Fault::ZeroReads] {
        let (outcome, proxy) = behind(fault);
        assert!(proxy.faults() > 0);
        assert_ended_because_of(&outcome, &proxy.address().to_string());
    }
}

#[test]
fn a_connection_cut_in_the_middle_of_a_page_is_made_again() {
    for fault in [Fault::CutRead, Fault::CutWrite] {
        let (outcome, proxy) = behind(fault);
        assert_right(&outcome);
        // The reading phase may have nothing dirty left to write.
        if proxy.faults() > 0 {
            assert!(outcome.figures().reconnects > 0, "{}", outcome.describe());
        }
    }
}

#[test]
fn a_connection_cut_while_memory_is_written_is_made_again() {
    let server = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    proxy.set(Fault::CutWrite);
    let mut running = filled(|run| run.servers([proxy.address()]));
    assert_eq!(proxy.faults(), 1);
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    assert!(outcome.figures().reconnects > 0, "{}", outcome.describe());
}

#[test]
fn bytes_that_mean_nothing_are_survived_or_end_the_program() {
    let (outcome, proxy) = behind(Fault::GarbageHeader);
    assert_eq!(proxy.faults(), 1);
    if outcome.end == End::Exit(0) {
        assert_right(&outcome);
    } else {
        assert_ended_because_of(&outcome, &proxy.address().to_string());
    }
}

#[test]
fn a_server_out_of_reach_for_good_ends_the_program() {
    let (outcome, proxy) = behind(Fault::Gone);
    assert_ended_because_of(&outcome, &proxy.address().to_string());
}

#[test]
fn a_server_that_stalls_for_a_moment_is_waited_for() {
    let server = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    let mut running = filled(|run| run.servers([proxy.address()]));
    proxy.set(Fault::Stall);
    running.say("go");
    std::thread::sleep(std::time::Duration::from_millis(700));
    proxy.set(Fault::None);
    assert_right(&running.wait());
}

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
    // What the servers can hold is used.
    assert!(
        outcome.figures().remote_bytes > 40 * MIB,
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
