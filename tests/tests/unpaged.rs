//! Programs that are not paged are never so in silence.

use std::fs;
use std::path::PathBuf;
use tmem_tests::cc::{program, program_with};
use tmem_tests::process::End;
use tmem_tests::{MIB, MemServer, Outcome, Run, Stats};

/// A shell under `tmem run` that runs `script`, in which FILL and STATIC are programs.
fn shell(script: &str) -> Run {
    let fixed = program_with("fill", &["-static"]);
    let script = script
        .replace("STATIC", &fixed.display().to_string())
        .replace("FILL", &program("fill").display().to_string());
    Run::new("/bin/sh").args(["-c", &script])
}

fn under(run: Run, server: &MemServer) -> Run {
    run.local(32 * MIB).servers([server.address()])
}

fn lines_with(outcome: &Outcome, words: &str) -> usize {
    let messages = outcome.messages();
    messages.iter().filter(|m| m.contains(words)).count()
}

#[test]
fn a_static_program_that_a_shell_starts_is_named_once() {
    let server = MemServer::roomy();
    let run = shell("STATIC 4 seq; STATIC 4 seq; (STATIC 4 seq)");
    let outcome = under(run, &server).run().ok();
    assert_eq!(outcome.stdout().lines().count(), 3);
    assert_eq!(lines_with(&outcome, "is statically linked"), 1);
    assert_eq!(outcome.messages().len(), 1, "{}", outcome.describe());
}

#[test]
fn strict_keeps_a_static_program_from_starting_wherever_it_is_started() {
    let server = MemServer::roomy();
    let run = shell("STATIC 4 seq; echo $?; exec STATIC 4 seq");
    let outcome = under(run, &server).flags(["--strict"]).run();
    assert_eq!(outcome.end, End::Exit(125), "{}", outcome.describe());
    assert_eq!(outcome.stdout(), "125\n");
    assert_eq!(lines_with(&outcome, "as `strict` asks"), 2);
}

#[test]
fn strict_starts_no_program_before_its_pager_is_ready() {
    let server = MemServer::roomy();
    let run = || under(shell("/bin/true; /bin/true; :"), &server);
    let strict = run().flags(["--strict"]).run().ok();
    assert_eq!(
        strict.figures().paging_processes,
        3,
        "{}",
        strict.describe()
    );
    // Otherwise programs this short are over before they page anything.
    let usual = run().run().ok();
    assert_eq!(usual.figures().paging_processes, 0, "{}", usual.describe());
}

#[test]
fn a_program_that_is_started_without_the_environment_is_told() {
    let server = MemServer::roomy();
    let script = "env -i FILL 4 seq; env -i FILL 4 seq; env -u TMEM_LOCAL FILL 4 seq";
    let outcome = under(shell(script), &server).run().ok();
    assert_eq!(outcome.stdout().lines().count(), 3);
    assert_eq!(lines_with(&outcome, "without the variables"), 1);
    // The last has the library, which says by itself what is missing.
    assert_eq!(lines_with(&outcome, "no local budget"), 1);
    let strict = under(shell("env -i FILL 4 seq"), &server).flags(["--strict"]);
    assert_eq!(strict.run().end, End::Exit(125));
}

#[test]
fn programs_that_can_be_paged_are_not_talked_about() {
    let server = MemServer::roomy();
    let script = "FILL 4 seq; env X=1 FILL 4 seq; sh -c 'exec FILL 4 seq'; /no/such; true";
    let outcome = under(shell(script), &server).run().ok();
    assert!(outcome.messages().is_empty(), "{}", outcome.describe());
}

#[test]
fn the_preload_line_without_a_budget_says_so_but_by_itself_it_says_nothing() {
    let fill = || Run::new(program("fill")).args(["4", "seq"]).preload();
    assert_eq!(fill().run().ok().stderr(), "");
    for (name, value) in [
        ("TMEM_SERVERS", "127.0.0.1:1"),
        ("TMEM_LOG", "error"),
        ("TMEM_STRICT", "0"),
    ] {
        let outcome = fill().env(name, value).run().ok();
        assert_eq!(lines_with(&outcome, "set TMEM_LOCAL"), 1, "{name}");
    }
    let strict = fill().env("TMEM_STRICT", "1").run();
    assert_eq!(strict.end, End::Exit(125), "{}", strict.describe());
    assert_eq!(lines_with(&strict, "set TMEM_LOCAL"), 1);
}

/// The files in a folder, with the figures in them.
fn figures(folder: &tempfile::TempDir) -> Vec<(String, Stats)> {
    let entries = fs::read_dir(folder.path()).expect("it is there");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path: PathBuf| {
            let text = fs::read_to_string(&path).expect("it can be read");
            let name = path.file_name().expect("it has a name");
            (name.to_string_lossy().into_owned(), Stats::parse(&text))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn with_the_preload_line_each_process_has_a_file_of_its_own() {
    let server = MemServer::roomy();
    for (name, of_first) in [("s.json", "s.json"), ("s%p.json", "s")] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Bash ends in the usual way, and has moved by then.
        let script = "FILL 64 seq 1 1; FILL 4 seq 1 1; cd /; :";
        let fill = program("fill").display().to_string();
        let run = Run::new("/bin/bash").args(["-c", &script.replace("FILL", &fill)]);
        let run = run.preload().env("TMEM_LOCAL", "24M");
        run.env("TMEM_SERVERS", server.address().to_string())
            .env("TMEM_STATS_FILE", folder.path().join(name))
            .run()
            .ok();
        let found = figures(&folder);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].0.starts_with(of_first), "{found:?}");
        let paged = found.iter().filter(|(_, stats)| stats.evicted_pages > 0);
        assert_eq!(paged.count(), 1, "{found:?}");
        // The shell's own are where its user has said, whatever it has started.
        if name == "s.json" {
            assert_eq!((&*found[0].0, found[0].1.evicted_pages), (name, 0));
        }
    }
}

#[test]
fn the_preload_line_tells_of_a_bad_place_for_figures_at_the_start() {
    let run = Run::new(program("fill"))
        .args(["4", "pause", "1", "1"])
        .stdin_pipe();
    let run = run
        .preload()
        .env("TMEM_LOCAL", "64M")
        .env("TMEM_SERVERS", "127.0.0.1:1");
    let mut running = run.env("TMEM_STATS_FILE", "/no/such/s.json").spawn();
    // The program waits for a line, and has not ended.
    running.wait_until("the line", |r| {
        r.stderr_so_far().contains("/no/such/s.json")
    });
    running.say("go");
    let outcome = running.wait().ok();
    assert_eq!(lines_with(&outcome, "/no/such/s.json"), 1);
}
