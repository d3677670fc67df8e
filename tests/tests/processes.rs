//! What serves a program's memory is no part of the program: a process of its own, which the
//! program does not see, and which others keep from ever showing zeros.

use tmem_tests::catalogue::cases;
use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, at_budget, paged_at, same};
use tmem_tests::{MIB, Run, artefacts, software};

/// As the engine is started where nobody asks for anything else, and as a thread.
const ENGINES: [&str; 2] = ["process", "thread"];

/// Natively, and paged in each way.
fn check(programs: &[&str], engine: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for case in cases(programs, folder.path()) {
        let native = case.run.run();
        let run = case.run.env("TMEM_ENGINE", engine);
        for setting in [Setting::PLAIN, Setting::COPY] {
            at_budget(&run, &native, setting.all_leave(), 64 * MIB);
            let (paged, _servers) = paged_at(&run, setting, 16 * MIB);
            if let Err(difference) = same(&native, &paged) {
                panic!("{difference}");
            }
        }
    }
}

#[test]
fn who_shares_memory_and_outlives_the_program_reads_no_zeros() {
    check(&["sharers"], ENGINES[0]);
}

#[test]
fn nothing_stays_behind_however_a_program_ends() {
    for engine in ENGINES {
        check(&["ends"], engine);
    }
}

/// Many more rounds by hand: `tmem run --local 16M -- killed_helpers 16 10000`.
#[test]
fn whichever_process_is_killed_the_program_reads_no_zeros() {
    for engine in ENGINES {
        check(&["killed_helpers"], engine);
    }
}

/// One that asks for them below `tmem run`, and the first process of a container in which
/// `tmem run` is started.
#[test]
fn who_is_told_of_orphans_is_told_of_none_of_the_engines() {
    check(&["supervisor"], ENGINES[0]);
    let unshare = software::find("unshare", "util-linux");
    let supervisor = program("supervisor");
    for path in ["move", "copy"] {
        let run = Run::new(&unshare).args(["-pf", "--mount-proc"]);
        let run = run
            .args([&supervisor])
            .args(["16"])
            .args([artefacts::tmem()]);
        let run = run.args([
            "run",
            "--local",
            "16M",
            "--evict",
            "all",
            "--page-path",
            path,
        ]);
        let run = run.args(["--"]).args([program("fill")]).args(["32", "seq"]);
        let outcome = run.run();
        if outcome.stderr().contains("unshare:") {
            eprintln!("skipped: a PID namespace takes root");
            return;
        }
        let outcome = outcome.ok();
        assert!(
            outcome.stdout().ends_with("right\n"),
            "{}",
            outcome.describe()
        );
    }
}

#[test]
fn a_program_does_not_see_what_serves_it() {
    check(&["outside"], ENGINES[0]);
}

/// Where no process can be made.
#[test]
fn an_engine_that_is_a_thread_does_the_same() {
    let programs = ["leaving", "stops", "credentials", "fork_ways", "reaper"];
    check(&programs, ENGINES[1]);
}

/// By the preload line alone.
#[test]
fn without_tmem_run_it_is_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = tmem_tests::MemServer::roomy();
    for case in cases(&["sharers", "ends", "outside"], folder.path()) {
        let native = case.run.run();
        let run: Run = case.run.preload().local(16 * MIB);
        let paged = run.servers([server.address()]).run();
        if let Err(difference) = same(&native, &paged) {
            panic!("{difference}");
        }
    }
}
