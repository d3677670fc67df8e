//! Programs whose pages are on servers that are reached over RDMA. These need a
//! device: `scripts/test-rdma` runs them where there is one.

mod agents;
mod bad_days;

use std::process::Command;
use std::time::Duration;
use tmem_tests::cc::program;
use tmem_tests::inputs::Inputs;
use tmem_tests::{MIB, MemServer, Outcome, PagePath, Run, artefacts, scale, software};

/// Fails where the other tests would quietly use TCP.
fn over_rdma() {
    assert!(scale::rdma().is_some(), "TMEM_TEST_RDMA names no device");
}

/// Runs a program natively and with `budget` bytes, and compares. How well the
/// budget is kept is not looked at: emulated, a program outruns the engine.
fn compare(program: &Run, budget: u64, servers: &[&MemServer]) -> Outcome {
    let paged = same(program, budget, servers);
    // All pages were moved by the device, none by the server.
    for server in servers {
        let stats = server.stats();
        assert_eq!((stats.pages_read, stats.pages_written), (0, 0));
    }
    paged
}

/// The same, however pages are moved.
fn same(program: &Run, budget: u64, servers: &[&MemServer]) -> Outcome {
    let native = program.run().ok();
    let paged = program.clone().local(budget);
    let paged = paged.servers(servers.iter().map(|s| s.address())).run();
    assert_eq!(paged.end, native.end.as_run_tells(), "{}", paged.describe());
    assert_eq!(paged.digest(), native.digest(), "{}", paged.describe());
    assert_eq!(paged.stderr(), native.stderr(), "{}", paged.describe());
    let figures = paged.figures();
    assert_eq!((figures.lost_pages, figures.self_faults), (0, 0));
    assert!(figures.written_pages > 0, "{}", paged.describe());
    paged
}

fn c_program(name: &str, args: &[&str]) -> Run {
    Run::new(program(name)).args(args)
}

fn script(name: &str) -> String {
    format!("{}/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn pages_move_without_the_server() {
    over_rdma();
    let server = MemServer::roomy();
    let run = c_program("fill", &["48", "seq", "1", "1"]);
    let paged = compare(&run, 32 * MIB, &[&server]);
    assert!(paged.figures().fetched_pages > 2000, "{}", paged.describe());
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn pages_come_back_right_in_any_order_and_from_two_servers() {
    over_rdma();
    let servers = [MemServer::roomy(), MemServer::roomy()];
    let run = c_program("fill", &["40", "random", "2", "1"]);
    compare(&run, 32 * MIB, &[&servers[0], &servers[1]]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn pages_are_copied_where_they_cannot_be_moved() {
    over_rdma();
    let run = c_program("fill", &["40", "seq", "1", "1"]).page_path(PagePath::Copy);
    let paged = compare(&run, 32 * MIB, &[&MemServer::roomy()]);
    assert!(paged.figures().copied_pages > 0, "{}", paged.describe());
}

/// All of it leaves all the time, and a tenth of it may stay.
#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn pages_come_back_right_with_a_tenth_of_the_memory() {
    over_rdma();
    let run = c_program("fill", &["160", "seq", "1", "1"]);
    // Emulated, each of so many pages takes milliseconds.
    let run = run.flags(["--evict", "all"]);
    let run = run.time_limit(Duration::from_secs(1200));
    compare(&run, 16 * MIB, &[&MemServer::roomy()]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn forked_children_share_what_is_remote() {
    over_rdma();
    let run = c_program("forks", &["36", "1"]);
    compare(&run, 32 * MIB, &[&MemServer::roomy()]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn software_of_debian_does_what_it_does_by_itself() {
    over_rdma();
    let inputs = Inputs::default();
    let lines = inputs.lines(300_000);
    let sort = Run::new(software::find("sort", "coreutils"));
    tight(&sort.args(["-S", "1G", "--parallel=1"]).args([&lines]));
    let text = std::fs::read_to_string(script("joins.sql")).expect("the script is there");
    let sql = inputs.file("joins.sql", &text.replace(":n", "100000"));
    let sqlite = Run::new(software::find("sqlite3", "sqlite3"));
    tight(&sqlite.args(["-bail", ":memory:"]).stdin(&sql));
    let python = Run::new(software::find("python3", "python3"))
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    tight(&python.args([&*script("containers.py"), "60000"]));
}

/// With four fifths of what it needs: emulation makes a page take milliseconds.
fn tight(program: &Run) {
    let native = program.run().ok();
    compare(program, native.max_rss / 5 * 4, &[&MemServer::roomy()]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn an_address_without_a_scheme_means_rdma_where_both_ends_have_it() {
    over_rdma();
    let server = MemServer::roomy();
    let address = server.address().to_string();
    let run = Run::new(program("fill")).args(["48", "seq", "1", "1"]);
    let by = |address: &str| {
        let before = server.stats().pages_written;
        let paged = run.clone().local(32 * MIB).flags(["--server", address]);
        let paged = paged.run().ok();
        assert_eq!(paged.stderr(), "");
        assert!(paged.figures().written_pages > 0, "{}", paged.describe());
        server.stats().pages_written - before
    };
    assert_eq!(by(&address), 0);
    assert!(by(&format!("tcp://{address}")) > 0);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn the_preload_line_works_with_an_agent_and_says_when_there_is_none() {
    over_rdma();
    let server = MemServer::roomy();
    let run = Run::new(program("fill"))
        .args(["48", "seq", "1", "1"])
        .preload()
        .env("TMEM_LOCAL", "32M")
        .env("TMEM_SERVERS", format!("rdma://{}", server.address()));
    let alone = run.run().ok();
    assert!(
        alone.stderr().contains("tmem agent"),
        "{}",
        alone.describe()
    );
    let mut agent = Command::new(artefacts::tmem())
        .arg("agent")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the agent can be started");
    let mut line = String::new();
    let out = agent.stdout.take().expect("stdout is a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)
        .expect("the agent says where it is");
    let (name, value) = line.trim().split_once('=').expect("it is an assignment");
    let paged = run.env(name, value).run().ok();
    let _ = agent.kill();
    let _ = agent.wait();
    assert_eq!(paged.digest(), alone.digest());
    assert_eq!(paged.stderr(), "");
    assert_eq!(server.stats().pages_written, 0);
}
