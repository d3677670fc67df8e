//! What happens to a running program when its servers fail it: it goes on with
//! the right data, or it ends with a message that names the server. Never
//! wrong data, never a hang.

mod room;

use tmem_tests::cc::program;
use tmem_tests::compare::assert_sound;
use tmem_tests::fake;
use tmem_tests::filled::{BUDGET, assert_right, filled};
use tmem_tests::process::End;
use tmem_tests::proxy::Fault;
use tmem_tests::{MIB, MemServer, Outcome, PagePath, Proxy, Run, Running};
use tmem_wire::PAGE_SIZE;

/// The program got SIGBUS or was ended, and was told which server it was.
fn assert_ended_because_of(outcome: &Outcome, server: &str) {
    let told = outcome.messages().iter().any(|m| m.contains(server));
    assert!(told, "nothing names {server}: {}", outcome.describe());
    // 1 is what the program says of wrong data.
    let ended = !matches!(outcome.end, End::Exit(0 | 1));
    assert!(ended, "it was not ended: {}", outcome.describe());
    assert_eq!(outcome.stdout(), "filled\n", "{}", outcome.describe());
}

/// The program got SIGBUS, and read nothing wrong.
fn assert_ended_because_of_loss(outcome: &Outcome) {
    assert!(outcome.figures().lost_pages > 0, "{}", outcome.describe());
    assert_ne!(outcome.end, End::Exit(1), "{}", outcome.describe());
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
fn a_read_that_fails_once_costs_no_page() {
    for fault in [Fault::FlipRead, Fault::FailRead] {
        let (outcome, proxy) = behind(fault);
        assert_eq!(proxy.faults(), 1);
        assert_right(&outcome);
    }
}

#[test]
fn reads_that_fail_for_good_end_the_program() {
    let (outcome, proxy) = behind(Fault::FailReads);
    assert!(proxy.faults() > 1);
    assert_ended_because_of(&outcome, &proxy.address().to_string());
}

#[test]
fn a_write_that_fails_once_costs_no_page() {
    let server = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    proxy.set(Fault::FailWrite);
    let mut running = filled(|run| run.servers([proxy.address()]));
    assert_eq!(proxy.faults(), 1);
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    let lost = outcome.messages().iter().any(|m| m.contains("lost"));
    assert!(!lost, "{}", outcome.describe());
}

#[test]
fn pages_that_a_server_does_not_take_go_to_another() {
    let server = MemServer::roomy();
    let good = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    proxy.set(Fault::FailWrites(8));
    let mut running = filled(|run| run.servers([proxy.address(), good.address()]));
    assert!(proxy.faults() > 0);
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    assert_sound(&outcome, BUDGET);
    assert!(good.stats().pages_written > 0);
    let messages = outcome.messages();
    let named = proxy.address().to_string();
    assert!(
        messages.iter().all(|m| m.contains(&named)),
        "{}",
        outcome.describe()
    );
}

#[test]
fn a_slow_server_gets_few_of_the_pages() {
    let (slow, fast) = (MemServer::roomy(), MemServer::roomy());
    let proxy = Proxy::spawn(slow.address());
    proxy.set(Fault::Slow);
    let mut running = filled(|run| run.servers([proxy.address(), fast.address()]));
    let (few, many) = (slow.stats().stored_pages, fast.stats().stored_pages);
    assert!(few > 0 && few * 3 < many, "{few} and {many}");
    running.say("go");
    assert_right(&running.wait());
}

#[test]
fn pages_that_no_server_takes_stay_local_until_one_does() {
    let server = MemServer::roomy();
    let proxy = Proxy::spawn(server.address());
    proxy.set(Fault::FailWrites(0));
    let program = Run::new(program("fill")).args(["192", "pause", "1", "1"]);
    let run = program.stdin_pipe().local(BUDGET);
    let run = run.servers([proxy.address()]).flags(["--log", "info"]);
    let mut running = run.spawn();
    running.wait_for_line("filled");
    let says = |words: &'static str| move |r: &Running| r.stderr_so_far().contains(words);
    running.wait_until("told", says("no memory server takes pages now"));
    proxy.set(Fault::None);
    running.wait_until("told that it is over", says("servers take pages again"));
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    let full = outcome.messages().iter().any(|m| m.contains("full"));
    assert!(!full, "{}", outcome.describe());
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
fn a_server_that_comes_late_is_used() {
    let good = MemServer::roomy();
    let late = fake::nobody();
    let mut running = filled(|run| run.servers([late, good.address()]).flags(["--log", "info"]));
    let server = MemServer::spawn_with(4096 * MIB, &late.to_string(), &[]);
    let there = format!("server {late} has");
    running.wait_until("found", |r| r.stderr_so_far().contains(&there));
    running.say("go");
    let outcome = running.wait();
    assert_right(&outcome);
    let absent = outcome.messages();
    let absent = absent.iter().filter(|m| m.contains("others")).count();
    assert_eq!(absent, 2, "{}", outcome.describe());
    drop(server);
}

#[test]
fn pages_with_a_copy_outlive_their_server() {
    let program = Run::new(program("records")).args(["28", "60000", "30000"]);
    let program = program.stdin_pipe();
    let mut native = program.clone().spawn();
    native.wait_for_line("halfway");
    native.say("go");
    let native = native.wait().ok();
    for (path, others) in [(PagePath::Auto, 0), (PagePath::Copy, 1)] {
        let mut server = MemServer::roomy();
        let others: Vec<_> = (0..others).map(|_| MemServer::roomy()).collect();
        let servers = others.iter().map(MemServer::address);
        let run = program.clone().local(24 * MIB).page_path(path);
        let run = run.env("TMEM_COMPRESSED_CACHE", "always");
        let run = run.servers(servers.chain([server.address()]));
        let mut running = run.spawn();
        running.wait_for_line("halfway");
        server.kill();
        let named = server.address().to_string();
        running.wait_until("loss", |r| r.stderr_so_far().contains(&named));
        running.say("go");
        let outcome = running.wait();
        // A few may have had no copy.
        match outcome.end {
            End::Exit(0) => assert_eq!(outcome.digest(), native.digest()),
            _ => assert_ended_because_of_loss(&outcome),
        }
        let figures = outcome.figures();
        let remote = figures.remote_bytes / PAGE_SIZE as u64;
        assert!(figures.lost_pages * 4 < remote, "{}", outcome.describe());
    }
}

#[test]
fn processes_of_a_family_say_whose_pages_are_lost() {
    let mut server = MemServer::roomy();
    let two = [program("fill"), program("fill")];
    let script = r#""$0" 96 pause 1 1 <&3 & "$1" 96 pause 1 1; wait"#;
    let run = Run::new("/bin/sh").args(["-c", &format!("exec 3<&0; {script}")]);
    let run = run.args(two).stdin_pipe().local(BUDGET);
    let mut running = run.servers([server.address()]).spawn();
    running.wait_until("output of both", |r| {
        let out = r.stdout_so_far();
        out.split(|b| *b == b'\n')
            .filter(|l| l == b"filled")
            .count()
            == 2
    });
    server.kill();
    let named = server.address().to_string();
    let told = |r: &Running| {
        let text = r.stderr_so_far();
        text.lines().filter(|l| l.contains(&named)).count() >= 2
    };
    running.wait_until("word of both", told);
    let text = running.stderr_so_far();
    let mut who: Vec<&str> = text
        .lines()
        .filter_map(|l| l.split_once("fill (process ")?.1.split_once(')'))
        .map(|(pid, _)| pid)
        .collect();
    who.sort_unstable();
    who.dedup();
    assert_eq!(who.len(), 2, "{text}");
}
