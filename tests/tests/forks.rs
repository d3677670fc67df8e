//! Children of programs whose memory is on servers: each sees exactly its
//! parent's memory, whichever way it is forked.

use std::time::{Duration, Instant};
use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, assert_sound, at_budget, program_at as compare};
use tmem_tests::inputs::Inputs;
use tmem_tests::process::End;
use tmem_tests::redis::Redis;
use tmem_tests::{MIB, MemServer, Outcome, PagePath, Run, scale, software};

const COPYING_TO_TWO: Setting = Setting {
    servers: 2,
    ..Setting::COPY
};

#[test]
fn a_child_sees_its_parents_memory_and_then_goes_its_own_way() {
    for setting in [Setting::PLAIN, Setting::TWO_SERVERS, Setting::COPY] {
        compare("forks", &["64", "3"], setting, 24);
    }
}

#[test]
fn memory_in_huge_pages_is_shared_with_children_too() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        compare("forks", &["64", "2", "huge"], setting, 24);
    }
}

/// The engine withholds memory from forks by the flag that a program's own advice sets.
#[test]
fn a_mapping_that_has_grown_is_there_for_children_whoever_may_have_given_advice() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        compare("forks", &["64", "3", "grown"], setting, 24);
    }
}

#[test]
fn a_child_has_its_parents_local_tier_and_spill_file() {
    for setting in [Setting::LOCAL_TIER, Setting::SPILL] {
        compare("forks", &["96", "3"], setting, 24);
    }
    compare("fork_storm", &["64", "2", "12"], Setting::LOCAL_TIER, 24);
}

#[test]
fn forks_in_the_midst_of_everything_are_right() {
    let forks = scale::pick("12", "60");
    for setting in [Setting::PLAIN, COPYING_TO_TWO] {
        compare("fork_storm", &["64", "2", forks], setting, 32);
    }
}

#[test]
fn hundreds_of_short_lived_children_are_right() {
    let children = scale::pick("200", "2000");
    compare("fork_many", &["64", children], Setting::PLAIN, 24);
}

/// A server with so many places, all of them for this machine.
fn with_places(places: &str) -> MemServer {
    let args = ["--max-connections", places, "--max-per-client", places];
    MemServer::spawn_with(8192 * MIB, "127.0.0.1:0", &args)
}

fn live_children(places: &str, setting: Setting, children: &[&str]) -> Outcome {
    let server = with_places(places);
    let args = ["64"].iter().chain(children);
    let run = Run::new(program("fork_live")).args(args);
    let run = run.local(32 * MIB).page_path(setting.path);
    let run = run.servers([server.address()]).run().ok();
    assert_eq!(run.stdout(), "right\n", "{}", run.describe());
    assert_eq!(run.figures().lost_pages, 0, "{}", run.describe());
    run
}

/// Each process has one connection while it moves few pages.
#[test]
fn three_hundred_children_live_with_a_server_of_four_hundred_places() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        live_children("400", setting, &["300"]);
    }
}

#[test]
fn children_wait_for_a_place_of_the_servers_and_say_for_which() {
    let run = live_children("12", Setting::PLAIN, &["40", "3000"]);
    let told = run.messages();
    let waits = |line: &&String| line.contains("waits for a place");
    let line = told.iter().find(waits);
    let line = line.unwrap_or_else(|| panic!("{}", run.describe()));
    assert!(line.contains("no more connections to give"), "{line}");
    assert!(line.contains(": --max-"), "{line}");
    let lost = told.iter().any(|line| line.contains("lost"));
    assert!(!lost, "{}", run.describe());
}

#[test]
fn children_that_execute_something_else_are_let_go() {
    compare("fork_ways", &["64", "exec"], Setting::PLAIN, 24);
    compare("fork_ways", &["64", "syscall"], Setting::PLAIN, 24);
}

#[test]
fn a_child_has_what_the_program_wants_it_to_have() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        compare("fork_ways", &["64", "advised"], setting, 24);
        compare("fork_ways", &["64", "advised-early"], setting, 24);
    }
    compare("fork_ways", &["64", "advised-often"], Setting::PLAIN, 24);
}

#[test]
fn advice_that_is_given_past_the_interposed_functions_counts() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        for way in ["raw", "handle", "other", "early-raw"] {
            compare("fork_ways", &["64", &format!("advised-{way}")], setting, 24);
        }
    }
}

#[test]
fn a_fork_that_nobody_hears_of_is_ended_before_it_reads_zeros() {
    for path in [PagePath::Auto, PagePath::Copy] {
        let server = MemServer::roomy();
        let run = Run::new(program("fork_ways")).args(["64", "raw"]);
        let run = run.local(24 * MIB).page_path(path);
        let paged = run.servers([server.address()]).run().ok();
        assert_eq!(paged.stdout(), "ended\n", "{}", paged.describe());
        // Who may not hear of forks hears nothing.
        if software::is_root() {
            let told = paged.messages();
            let right = told.len() == 1 && told[0].contains("past the C library");
            assert!(right, "{}", paged.describe());
        }
        assert_sound(&paged, 24 * MIB);
    }
}

#[test]
fn a_child_outlives_its_parent() {
    let server = MemServer::roomy();
    let folder = Inputs::default();
    let file = folder.dir().join("told");
    let run = Run::new(program("fork_ways")).args(["64", "orphan"]);
    let run = run.args([&file]).local(24 * MIB);
    let paged = run.servers([server.address()]).run();
    assert_eq!(paged.end, End::Exit(0), "{}", paged.describe());
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(&file).unwrap_or_default() != "right\n" {
        assert!(Instant::now() < deadline, "the child tells nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Neither of both keeps anything on the server.
    server.wait_until("free", |s| s.granted_pages == 0 && s.stored_pages == 0);
}

#[test]
fn servers_keep_nothing_of_children_that_are_gone() {
    let server = MemServer::roomy();
    let run = Run::new(program("forks")).args(["64", "2"]);
    let run = run.local(24 * MIB).servers([server.address()]);
    assert_sound(&run.run().ok(), 24 * MIB);
    server.wait_until("free", |s| s.granted_pages == 0 && s.stored_pages == 0);
}

#[test]
fn python_distributes_work_over_forked_processes() {
    let python = software::python_with_numpy();
    let script = format!("{}/programs/pool.py", env!("CARGO_MANIFEST_DIR"));
    for method in ["fork", "spawn", "forkserver"] {
        let run = Run::new(&python).args([&*script, "6000000", method]);
        let native = run.run().ok();
        at_budget(&run, &native, Setting::PLAIN, native.max_rss / 2);
    }
}

#[test]
fn redis_saves_in_the_background_what_it_had_when_asked() {
    let folder = Inputs::default();
    let binary = software::find("redis-server", "redis-server");
    let values = scale::pick(12_000, 125_000);
    let socket = folder.dir().join("socket");
    let redis = |run: &dyn Fn(Run) -> Run| {
        let program = Run::new(&binary)
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--dbfilename", "dump", "--unixsocket"])
            .args([&socket])
            .args(["--dir".as_ref(), folder.dir().as_os_str()]);
        run(program).spawn()
    };
    let server = MemServer::roomy();
    let budget = values * 4096 / 2;
    let saving = redis(&|program| program.local(budget).servers([server.address()]));
    let mut client = Redis::connect(&socket);
    client.fill(values);
    client.save_while(|client| client.fill_otherwise(values / 4));
    client.shutdown();
    let outcome = saving.wait().ok();
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
    assert_eq!(outcome.figures().self_faults, 0, "{}", outcome.describe());
    assert!(
        outcome.figures().evicted_pages > 0,
        "{}",
        outcome.describe()
    );
    // A redis of its own, natively, finds everything in the file.
    let loading = redis(&|program| program);
    let mut client = Redis::connect(&socket);
    client.read_back(values);
    client.shutdown();
    loading.wait().ok();
}
