//! Programs that do one unusual thing each, with all of their memory leaving all
//! the time: output, exit status and signals are those of a native run.

use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, at_budget};
use tmem_tests::{MIB, Run, scale};

/// By moving and by copying pages.
fn check(name: &str, args: &[&str]) {
    let run = Run::new(program(name)).args(args);
    let native = run.run();
    for _ in 0..scale::pick(1, 50) {
        for setting in [Setting::PLAIN, Setting::COPY] {
            at_budget(&run, &native, setting.all_leave(), 64 * MIB);
        }
    }
}

/// The same for each way that a program may go.
fn check_ways(name: &str, ways: &[&str]) {
    for way in ways {
        check(name, &["16", way]);
    }
}

#[test]
fn memory_is_filled_and_read() {
    check("fill", &["24", "seq", "2"]);
    check("fill", &["24", "random", "2"]);
    check("statics", &[]);
}

#[test]
fn threads_share_memory() {
    check("threads", &["16", "4", "3000"]);
    check("rewrite", &["16", "20000", "2"]);
}

#[test]
fn threads_come_and_go() {
    check("churn", &["16", "20"]);
}

#[test]
fn threads_wait_for_each_other() {
    check("locks", &["16", "3"]);
}

#[test]
fn signals_are_handled_on_stacks_that_are_elsewhere() {
    check("signals", &["16", "3"]);
}

#[test]
fn system_calls_take_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder.path().to_str().expect("a temporary path is text");
    check("syscalls", &["16", folder]);
    check("kernel", &["16", folder]);
}

#[test]
fn memory_is_locked_and_protected() {
    check("locked", &["16"]);
    check("protections", &["16"]);
    check("barrier", &["16", "2"]);
}

#[test]
fn memory_is_mapped_and_moved() {
    check("moves", &["300", "16", "4"]);
    check("reuse", &["600", "16", "4"]);
    check("blocks", &["600", "16", "4"]);
    check("vm_model", &["3", "500", "48", "3"]);
    check("vm_model", &["4", "500", "48", "1"]);
}

#[test]
fn processes_are_started_and_forked() {
    check("spawns", &["16"]);
    check("forks", &["16", "3"]);
    check("fork_many", &["16", "40"]);
    check("fork_ways", &["16", "exec"]);
    check("fork_ways", &["16", "advised"]);
}

#[test]
fn programs_end_by_every_road() {
    let roads = [
        "return",
        "exit",
        "_exit",
        "quick_exit",
        "abort",
        "segv",
        "kill",
        "first-thread",
        "stop",
    ];
    check_ways("leaving", &roads);
}

#[test]
fn programs_give_up_what_they_may_do() {
    let ways = [
        "chroot", "setuid", "dumpable", "unshare", "limits", "closed", "seccomp", "signals",
    ];
    check_ways("confined", &ways);
}
