//! The budget holds, whatever the program does.

use tmem_tests::cc::program;
use tmem_tests::cgroup::Cgroup;
use tmem_tests::compare::assert_sound;
use tmem_tests::{MIB, MemServer, PagePath, Run};

/// Runs `fill` in a cgroup that allows the budget and 64 MiB more.
fn inside_a_cgroup(args: &[&str], budget: u64, path: PagePath) {
    let Some(cgroup) = Cgroup::with_limit(budget + 64 * MIB) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return;
    };
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(args);
    let native = run.run().ok();
    let run = run
        .local(budget)
        .page_path(path)
        .servers([server.address()])
        .cgroup(&cgroup);
    let paged = run.run();
    assert_eq!(cgroup.oom_kills(), 0, "{}", paged.describe());
    let paged = paged.ok();
    assert_eq!(paged.digest(), native.digest());
    assert_sound(&paged, budget);
}

#[test]
fn nothing_goes_before_the_engine_until_it_has_memory_to_serve() {
    let server = MemServer::roomy();
    let run = Run::new(program("watched")).args(["64"]);
    let paged = run.local(24 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.stdout(), "watched\n");
}

#[test]
fn a_gibibyte_filled_as_fast_as_can_be_is_not_killed_for_memory() {
    inside_a_cgroup(&["1024", "fast", "1", "1"], 256 * MIB, PagePath::Auto);
}

#[test]
fn memory_filled_by_several_threads_is_not_killed_for_memory() {
    inside_a_cgroup(&["512", "fast", "4", "1"], 128 * MIB, PagePath::Auto);
}

#[test]
fn memory_filled_fast_is_not_killed_for_memory_when_pages_are_copied() {
    inside_a_cgroup(&["512", "fast", "1", "1"], 128 * MIB, PagePath::Copy);
}

/// Runs `fill` with 600 MiB and this budget in a cgroup that allows 300.
fn fill_in_a_cgroup(local: &str) -> Option<tmem_tests::Outcome> {
    let Some(cgroup) = Cgroup::with_limit(300 * MIB) else {
        eprintln!("skipped: a memory cgroup needs root and a writable hierarchy");
        return None;
    };
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["600", "fast", "1", "1"]);
    let native = run.run().ok();
    let run = run.tmem().flags(["--local", local]);
    let paged = run.servers([server.address()]).cgroup(&cgroup).run();
    assert_eq!(cgroup.oom_kills(), 0, "{}", paged.describe());
    let paged = paged.ok();
    assert_eq!(paged.digest(), native.digest());
    Some(paged)
}

#[test]
fn a_share_is_one_of_what_the_cgroup_allows() {
    let Some(paged) = fill_in_a_cgroup("50%") else {
        return;
    };
    assert_eq!(paged.stderr(), "");
    assert_eq!(paged.figures().local_budget_bytes, 150 * MIB);
    assert_sound(&paged, 150 * MIB);
}

#[test]
fn of_what_a_cgroup_allows_some_is_left_for_what_cannot_be_paged() {
    let Some(paged) = fill_in_a_cgroup("300M") else {
        return;
    };
    let messages = paged.messages();
    assert!(
        messages.len() == 1 && messages[0].contains("that the cgroup allows"),
        "{}",
        paged.describe()
    );
    let budget = paged.figures().local_budget_bytes;
    assert!((200 * MIB..290 * MIB).contains(&budget), "{budget}");
}

#[test]
fn a_program_within_its_budget_is_left_alone() {
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["64", "seq"]);
    let native = run.run().ok();
    let paged = run.local(256 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.digest(), native.digest());
    let figures = paged.figures();
    assert_eq!(figures.adopted_bytes, 0, "{}", paged.describe());
    assert_eq!(figures.faults, 0, "{}", paged.describe());
    assert_eq!(figures.evicted_pages, 0, "{}", paged.describe());
}

#[test]
fn a_tiny_budget_is_slow_or_refused_but_never_wrong() {
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["24", "seq", "1", "1"]);
    let native = run.run().ok();
    for budget in ["4096", "1M"] {
        let tiny = run.clone().tmem().flags(["--local", budget]);
        let paged = tiny.servers([server.address()]).run();
        if paged.end == native.end {
            assert_eq!(paged.digest(), native.digest(), "{}", paged.describe());
            assert_eq!(paged.figures().lost_pages, 0, "{}", paged.describe());
        } else {
            assert_eq!(
                paged.end,
                tmem_tests::process::End::Exit(125),
                "{}",
                paged.describe()
            );
            assert_eq!(paged.messages().len(), 1, "{}", paged.describe());
        }
    }
}

#[test]
fn a_budget_larger_than_the_machine_is_allowed() {
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["32", "seq"]);
    let native = run.run().ok();
    let paged = run
        .tmem()
        .flags(["--local", "100T"])
        .servers([server.address()])
        .run()
        .ok();
    assert_eq!(paged.digest(), native.digest());
}

#[test]
fn of_address_space_that_is_limited_from_outside_the_program_has_most() {
    let server = MemServer::roomy();
    let run = Run::new(program("spacious")).args(["64", "3500"]);
    let run = run.wrapper(["prlimit", "--as=4294967296"]);
    let paged = run.local(24 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.stdout(), "right\n", "{}", paged.describe());
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
}

#[test]
fn memory_that_is_given_up_for_the_kernel_to_take_does_not_count() {
    let server = MemServer::roomy();
    let run = Run::new(program("lazy")).args(["64", "6"]);
    let native = run.run().ok();
    for path in [PagePath::Auto, PagePath::Copy] {
        let run = run.clone().local(96 * MIB).page_path(path);
        let paged = run.servers([server.address()]).run().ok();
        assert_eq!(paged.digest(), native.digest());
        assert_sound(&paged, 96 * MIB);
    }
}

/// 64 MiB of shared memory, which cannot be paged, under a budget of 32.
#[test]
fn what_is_beyond_the_budget_is_told_with_its_kinds() {
    let server = MemServer::roomy();
    let run = Run::new(program("mapped")).args(["16", "64"]);
    let native = run.run().ok();
    let paged = run.local(32 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.digest(), native.digest());
    let messages = paged.messages();
    assert!(
        messages.len() == 1
            && messages[0].starts_with("tmem: the budget of 32 MiB was exceeded by ")
            && messages[0].contains("64 MiB of shared memory"),
        "{}",
        paged.describe()
    );
    assert!(paged.figures().shared_bytes >= 64 * MIB);
}

/// Each figure of a run that does what is known: 64 MiB are filled and read twice, in a
/// budget of 32.
#[test]
fn figures_say_what_the_program_did() {
    let server = MemServer::roomy();
    let budget = 32 * MIB;
    let run = Run::new(program("fill")).args(["64", "seq"]);
    let paged = run.local(budget).servers([server.address()]).run().ok();
    let figures = paged.figures();
    let what = paged.describe();
    let pages = 64 * MIB / 4096;
    assert_eq!(
        (figures.processes, figures.paging_processes),
        (1, 1),
        "{what}"
    );
    assert_eq!(figures.local_budget_bytes, budget, "{what}");
    // One process is all processes.
    assert_eq!(
        figures.budget_peak_bytes, figures.peak_counted_bytes,
        "{what}"
    );
    assert!(figures.peak_counted_bytes >= budget / 2, "{what}");
    assert!(figures.peak_resident_bytes >= paged.max_rss, "{what}");
    let beside = figures.peak_counted_bytes + figures.files_bytes + figures.shared_bytes;
    assert!(figures.peak_resident_bytes <= beside + MIB, "{what}");
    // All of it was somewhere: what is not resident is on the server.
    let remote = figures.remote_bytes;
    assert!((24 * MIB..=64 * MIB).contains(&remote), "{what}");
    assert!(figures.adopted_bytes >= 64 * MIB, "{what}");
    assert!(figures.evicted_pages >= remote / 4096, "{what}");
    let left = figures.written_pages + figures.clean_evictions + figures.zero_evictions;
    assert!(figures.written_pages >= remote / 4096 / 2, "{what}");
    assert!(left <= figures.evicted_pages + pages, "{what}");
    assert!(figures.prefetched_pages <= figures.fetched_pages, "{what}");
    assert!(figures.fetched_pages <= figures.evicted_pages, "{what}");
    assert_eq!(
        (figures.copied_pages, figures.locked_bytes),
        (0, 0),
        "{what}"
    );
    assert_eq!((figures.lost_pages, figures.self_faults), (0, 0), "{what}");
    assert_eq!((figures.reconnects, figures.huge_bytes), (0, 0), "{what}");
}
