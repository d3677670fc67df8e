//! The harness itself: it sees what it is there to see. No tmem here.

use std::time::Duration;
use tmem_tests::cc::program;
use tmem_tests::cgroup::Cgroup;
use tmem_tests::process::End;
use tmem_tests::{MIB, Run};

#[test]
fn the_peak_of_a_native_run_is_that_of_the_program() {
    let outcome = Run::new(program("fill")).args(["96", "seq"]).run().ok();
    assert!(
        (96 * MIB..104 * MIB).contains(&outcome.max_rss),
        "{}",
        outcome.describe()
    );
}

#[test]
fn ends_are_told_apart() {
    let shell = |script| Run::new("/bin/sh").args(["-c", script]).run();
    assert_eq!(shell("exit 3").end, End::Exit(3));
    assert_eq!(shell("kill -9 $$").end, End::Signal(9));
    let outcome = shell("echo out; echo err >&2; echo tmem: said >&2");
    assert_eq!(outcome.stdout(), "out\n");
    assert_eq!(outcome.stderr(), "err\ntmem: said\n");
    assert_eq!(outcome.messages(), ["tmem: said"]);
}

#[test]
fn outputs_that_differ_have_other_digests() {
    let digest = |text: &str| Run::new("/bin/echo").args([text]).run().digest();
    assert_eq!(digest("same"), digest("same"));
    assert_ne!(digest("one"), digest("two"));
}

#[test]
fn a_hung_run_fails_with_what_it_was_doing() {
    let run = Run::new("/bin/sh").args(["-c", "sleep 1000; :"]);
    let run = run.time_limit(Duration::from_millis(300));
    let failure = std::panic::catch_unwind(|| run.run())
        .err()
        .expect("it hangs");
    let text = failure
        .downcast_ref::<String>()
        .expect("the panic has a text");
    assert!(
        text.contains("hangs") && text.contains("sleep 1000"),
        "{text}"
    );
    assert!(text.contains("State:"), "{text}");
}

#[test]
fn a_cgroup_kills_what_is_larger_than_it() {
    let Some(cgroup) = Cgroup::with_limit(64 * MIB) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return;
    };
    let run = Run::new(program("fill")).cgroup(&cgroup);
    run.clone().args(["32", "seq"]).run().ok();
    assert_eq!(cgroup.oom_kills(), 0);
    assert_eq!(
        run.args(["128", "seq"]).run().end,
        End::Signal(libc::SIGKILL)
    );
    assert_eq!(cgroup.oom_kills(), 1);
}

#[test]
fn the_model_finds_a_page_that_changed_behind_its_back() {
    let run = |args: &[&str]| Run::new(program("vm_model")).args(args).run();
    assert_eq!(
        run(&["3", "2000", "64"]).ok().digest(),
        run(&["3", "2000", "64"]).ok().digest()
    );
    let spoilt = run(&["3", "2000", "64", "1", "spoil"]);
    assert_eq!(spoilt.end, End::Exit(1));
    assert!(
        spoilt.stderr().contains("instead of"),
        "{}",
        spoilt.describe()
    );
}
