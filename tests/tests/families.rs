//! The processes of a program share one budget.

use tmem_tests::cc::program;
use tmem_tests::cgroup::Cgroup;
use tmem_tests::{MIB, MemServer, Run};

/// Four children that fill 64 MiB each, all at the same time, in a cgroup that
/// allows a budget of 96 MiB and 64 MiB more.
#[test]
fn children_that_fill_memory_together_stay_within_the_budget_of_all() {
    let Some(cgroup) = Cgroup::with_limit((96 + 64) * MIB) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return;
    };
    let server = MemServer::roomy();
    let run = Run::new(program("family")).args(["together", "4", "64"]);
    let native = run.run().ok();
    let run = run
        .local(96 * MIB)
        .servers([server.address()])
        .cgroup(&cgroup);
    let paged = run.run();
    assert_eq!(cgroup.oom_kills(), 0, "{}", paged.describe());
    let paged = paged.ok();
    assert_eq!(paged.stdout(), native.stdout(), "{}", paged.describe());
    let figures = paged.figures();
    assert_eq!((figures.lost_pages, figures.self_faults), (0, 0));
    assert!(figures.evicted_pages > 0, "{}", paged.describe());
}

/// A budget of 96 MiB, one process that holds 64 and does nothing, and one that
/// walks over 64 until most of that is resident.
#[test]
fn memory_goes_to_the_process_that_uses_it() {
    let server = MemServer::roomy();
    let run = Run::new(program("family")).args(["idle", "64"]);
    let native = run.run().ok();
    let paged = run.local(96 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.stdout(), native.stdout(), "{}", paged.describe());
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
}

/// With `--per-process` each of two fits into a budget of 96 MiB, which both
/// together do not.
#[test]
fn each_process_has_the_whole_budget_where_that_is_asked_for() {
    let server = MemServer::roomy();
    let run = Run::new(program("family")).args(["together", "2", "64"]);
    let native = run.run().ok();
    let run = run.local(96 * MIB).servers([server.address()]);
    let paged = run.flags(["--per-process"]).run().ok();
    assert_eq!(paged.stdout(), native.stdout(), "{}", paged.describe());
    assert_eq!(paged.figures().evicted_pages, 0, "{}", paged.describe());
}

/// Three processes that are each the first of a PID namespace of its own, and fill
/// 64 MiB each. Together they may for a moment have twice the budget of 64 MiB, and 16 MiB
/// each, which is what the cgroup allows.
#[test]
fn processes_of_several_pid_namespaces_share_a_budget() {
    let most = (2 * 64 + 3 * 16) * MIB;
    let Some(cgroup) = Cgroup::with_limit(most) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return;
    };
    let server = MemServer::roomy();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let script = "for n in 1 2 3; do unshare -pf \"$0\" apart 3 64 \"$1\" & done; wait";
    let run = Run::new("/bin/sh").args(["-c", script]);
    let run = run
        .args([program("family")])
        .args([folder.path().join("there")]);
    let run = run
        .local(64 * MIB)
        .servers([server.address()])
        .cgroup(&cgroup);
    let paged = run.run();
    assert_eq!(cgroup.oom_kills(), 0, "{}", paged.describe());
    let paged = paged.ok();
    assert_eq!(paged.stdout(), "done\n".repeat(3), "{}", paged.describe());
    let figures = paged.figures();
    assert_eq!((figures.lost_pages, figures.self_faults), (0, 0));
    assert!(
        figures.budget_peak_bytes < most && figures.remote_bytes > 100 * MIB,
        "{}",
        paged.describe()
    );
}

/// Eight children with 32 MiB in common and 8 of its own each: 96 in all, which fit into
/// a budget of 192 MiB, where 8 times 40 would not.
#[test]
fn memory_that_several_processes_share_counts_once() {
    let server = MemServer::roomy();
    let run = Run::new(program("family")).args(["shared", "8", "32", "8"]);
    let native = run.run().ok();
    let paged = run.local(192 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.stdout(), native.stdout(), "{}", paged.describe());
    let figures = paged.figures();
    assert_eq!(figures.evicted_pages, 0, "{}", paged.describe());
    // As each of them sees it, the first has all of it, the second half of it, and so on.
    let most = 87 * MIB + 8 * 16 * MIB;
    assert!(figures.budget_peak_bytes < most, "{}", paged.describe());
    assert!(figures.shared_bytes >= 32 * MIB, "{}", paged.describe());
}
