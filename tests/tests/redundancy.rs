//! Servers that are killed while programs have copies of their pages on others.

use tmem_tests::cc::program;
use tmem_tests::process::{self, End};
use tmem_tests::{MIB, MemServer, Outcome, Run, Running};

/// Servers on machines of their own, as far as addresses tell.
struct Pool {
    servers: Vec<MemServer>,
}

impl Pool {
    fn new(count: usize) -> Pool {
        let server = |i| MemServer::spawn_with(4096 * MIB, &format!("127.0.0.{}:0", i + 1), &[]);
        Pool {
            servers: (0..count).map(server).collect(),
        }
    }

    fn run(&self, run: Run) -> Run {
        let addresses = self.servers.iter().map(MemServer::address);
        run.servers(addresses).flags(["--log", "info"])
    }

    /// Kills a server and starts it again, with nothing in it.
    fn restart(&mut self, which: usize) {
        let server = &mut self.servers[which];
        let address = server.address().to_string();
        server.kill();
        *server = MemServer::spawn_with(4096 * MIB, &address, &[]);
    }
}

/// How often a process has said that it has all copies again.
fn repairs(running: &Running, pid: i32) -> usize {
    let said = running.stderr_so_far();
    let lines = said
        .lines()
        .filter(|l| l.contains(" copies of each page on servers again"))
        .filter(|l| l.contains(&format!("(process {pid})")));
    lines.count()
}

/// How often a process has said that a server is lost.
fn losses(running: &Running, pid: i32) -> usize {
    let said = running.stderr_so_far();
    let lost = said.lines().filter(|l| l.contains(" is lost ("));
    lost.filter(|l| l.contains(&format!("(process {pid})")))
        .count()
}

fn assert_nothing_lost(outcome: &Outcome) {
    assert_eq!(outcome.end, End::Exit(0), "{}", outcome.describe());
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
    assert_eq!(outcome.figures().self_faults, 0, "{}", outcome.describe());
}

#[test]
fn a_server_killed_for_good_loses_nothing_and_its_copies_are_made_elsewhere() {
    let mut pool = Pool::new(3);
    let fill = Run::new(program("fill")).args(["96", "pause", "2", "2"]);
    let mut running = pool.run(fill.stdin_pipe().local(32 * MIB)).spawn();
    running.wait_for_line("filled");
    let pid = process::tree(running.pid())[1];
    pool.servers[0].kill();
    running.wait_until("all copies are there again", |r| repairs(r, pid) == 1);
    pool.servers[1].kill();
    running.say("go");
    let outcome = running.wait();
    assert_nothing_lost(&outcome);
    assert!(
        outcome.figures().repaired_pages > 1000,
        "{}",
        outcome.describe()
    );
}

#[test]
fn servers_killed_and_started_empty_one_after_the_other_lose_nothing() {
    let mut pool = Pool::new(3);
    let fill = Run::new(program("fill")).args(["96", "pause", "2", "2"]);
    let mut running = pool.run(fill.stdin_pipe().local(32 * MIB)).spawn();
    running.wait_for_line("filled");
    let pid = process::tree(running.pid())[1];
    for round in 0..6 {
        pool.restart(round % 3);
        running.wait_until("all copies are there again", |r| repairs(r, pid) > round);
    }
    running.say("go");
    assert_nothing_lost(&running.wait());
}

#[test]
fn threads_go_on_while_servers_are_killed() {
    let run = Run::new(program("rewrite")).args(["96", "1200000", "4"]);
    let native = run.run().ok();
    let outcome = kill_while_it_runs(run.local(32 * MIB));
    assert_nothing_lost(&outcome);
    assert_eq!(outcome.digest(), native.digest(), "{}", outcome.describe());
}

#[test]
fn forked_children_go_on_while_servers_are_killed() {
    let run = Run::new(program("fork_storm")).args(["64", "3", "60"]);
    let outcome = kill_while_it_runs(run.local(24 * MIB));
    assert_nothing_lost(&outcome);
}

/// Kills and restarts servers one after the other until the program ends, each once all
/// copies are there again, in the program and in all children that it had by then.
fn kill_while_it_runs(run: Run) -> Outcome {
    let mut pool = Pool::new(3);
    let mut running = pool.run(run).spawn();
    running.wait_until("pages are on servers", |_| {
        pool.servers.iter().any(|s| s.stats().stored_pages > 1000)
    });
    let pid = process::tree(running.pid())[1];
    let is_there = |r: &Running| process::tree(r.pid()).contains(&pid);
    let mut kills = 0;
    while is_there(&running) {
        let lost = losses(&running, pid);
        pool.restart(kills % 3);
        kills += 1;
        running.wait_until("the loss is noticed and made up for", |r| {
            let noticed = losses(r, pid) > lost;
            !is_there(r) || noticed && repairs(r, pid) >= losses(r, pid)
        });
        let children = process::tree(running.pid()).split_off(1);
        let children: Vec<i32> = children.into_iter().filter(|c| *c != pid).collect();
        running.wait_until("children of that time have ended", |r| {
            let there = process::tree(r.pid());
            !children.iter().any(|c| there.contains(c))
        });
    }
    eprintln!("{kills} servers were killed");
    running.wait()
}

#[test]
fn a_server_that_hangs_is_given_up_and_costs_a_pause() {
    let pool = Pool::new(2);
    let fill = Run::new(program("fill")).args(["64", "pause", "2", "1"]);
    let mut running = pool.run(fill.stdin_pipe().local(24 * MIB)).spawn();
    running.wait_for_line("filled");
    pool.servers[0].freeze();
    running.say("go");
    let outcome = running.wait();
    assert_nothing_lost(&outcome);
    // Not after the 30 seconds that a single server has.
    let is_given_up = |m: &String| m.contains("it answered nothing for 3000 ms");
    let described = outcome.describe();
    assert!(outcome.messages().iter().any(is_given_up), "{described}");
}

#[test]
fn a_second_loss_takes_what_had_no_other_copy_and_says_how_much() {
    let mut pool = Pool::new(2);
    let fill = Run::new(program("fill")).args(["64", "pause", "1", "1"]);
    let mut running = pool.run(fill.stdin_pipe().local(24 * MIB)).spawn();
    running.wait_for_line("filled");
    let pid = process::tree(running.pid())[1];
    pool.servers[0].kill();
    running.wait_until("the first loss is noticed", |r| losses(r, pid) == 1);
    assert!(running.stderr_so_far().contains("MiB have fewer copies"));
    pool.servers[1].kill();
    running.wait_until("the second loss is noticed", |r| losses(r, pid) == 2);
    running.say("go");
    let outcome = running.wait();
    assert_eq!(
        outcome.end,
        End::Signal(libc::SIGBUS).as_run_tells(),
        "{}",
        outcome.describe()
    );
    let lost = outcome.messages().iter().find_map(|line| {
        let (_, after) = line.split_once("), and ")?;
        let (pages, _) = after.split_once(" pages of ")?;
        pages.parse::<u64>().ok()
    });
    assert!(lost.is_some_and(|n| n > 1000), "{}", outcome.describe());
}

#[test]
fn a_server_that_alone_has_pages_is_waited_for() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder can be made there");
    let path = folder.path().join("store").display().to_string();
    let backing = ["--backing", &path];
    let mut server = MemServer::spawn_with(1024 * MIB, "127.0.0.1:0", &backing);
    let address = server.address();
    let fill = Run::new(program("fill")).args(["64", "pause", "2", "1"]);
    let run = fill.stdin_pipe().local(24 * MIB).servers([address]);
    let mut running = run.flags(["--on-loss", "wait=10m"]).spawn();
    running.wait_for_line("filled");
    server.kill();
    running.say("go");
    running.wait_until("threads wait", |r| {
        r.stderr_so_far().contains(" is away for ")
    });
    let _server = MemServer::spawn_with(1024 * MIB, &address.to_string(), &backing);
    assert_nothing_lost(&running.wait());
}

#[test]
fn two_servers_on_one_machine_have_one_copy_unless_two_are_asked_for() {
    let servers = [MemServer::roomy(), MemServer::roomy()];
    for (flags, on) in [
        (&[][..], "kept on one server"),
        (&["--redundancy", "copies=2"], "kept on 2 servers"),
    ] {
        let fill = Run::new(program("fill")).args(["48", "seq", "1", "1"]);
        let run = fill.local(24 * MIB).flags(["--log", "info"]).flags(flags);
        let outcome = run
            .servers(servers.iter().map(MemServer::address))
            .run()
            .ok();
        let says = |m: &String| m.contains(on);
        assert!(
            outcome.messages().iter().any(says),
            "{}",
            outcome.describe()
        );
    }
}
