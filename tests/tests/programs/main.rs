//! Small C programs that check themselves, natively and on remote memory.

mod address_space;
mod ahead;

use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, assert_sound, at_budget, paged_at, program_at as compare};
use tmem_tests::{MIB, MemServer, PagePath, Run, scale};

#[test]
fn memory_read_in_order_comes_back_right() {
    compare("fill", &["256", "seq"], Setting::PLAIN, 64);
}

#[test]
fn memory_read_at_random_comes_back_right() {
    compare("fill", &["128", "random"], Setting::PLAIN, 32);
}

#[test]
fn memory_of_several_threads_comes_back_right() {
    compare("fill", &["256", "seq", "4"], Setting::PLAIN, 64);
    compare("fill", &["128", "random", "4"], Setting::PLAIN, 64);
}

#[test]
fn memory_comes_back_right_from_two_servers() {
    let setting = Setting::TWO_SERVERS;
    compare("fill", &["384", "seq", "2"], setting, 64);
}

#[test]
fn memory_comes_back_right_by_copying_pages() {
    compare("fill", &["192", "seq"], Setting::COPY, 64);
    compare("fill", &["96", "random", "2"], Setting::COPY, 32);
}

#[test]
fn memory_comes_back_right_by_moving_pages() {
    let setting = Setting {
        path: PagePath::Move,
        ..Setting::PLAIN
    };
    compare("fill", &["192", "seq"], setting, 64);
}

#[test]
fn a_file_in_use_that_is_larger_than_the_budget_hangs_nothing() {
    compare("mapped", &["32", "26"], Setting::PLAIN, 22);
    compare("mapped", &["32", "26"], Setting::COPY, 22);
}

/// The file is read from a folder of the build: what is in `/tmp` may be in memory.
#[test]
fn pages_of_files_do_not_push_the_heap_out() {
    let server = MemServer::roomy();
    let folder = tmem_tests::artefacts::target_dir();
    let run = Run::new(program("mapped"))
        .args(["32", "128"])
        .args([folder]);
    let native = run.run().ok();
    let paged = run.local(80 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.digest(), native.digest());
    assert_sound(&paged, 80 * MIB);
    let figures = paged.figures();
    assert_eq!(figures.evicted_pages, 0, "{}", paged.describe());
    assert!(figures.files_bytes > 120 * MIB, "{}", paged.describe());
    assert!(
        figures.peak_counted_bytes < 60 * MIB,
        "{}",
        paged.describe()
    );
}

#[test]
fn memory_in_many_small_mappings_is_paged() {
    compare("small", &["96", "2"], Setting::PLAIN, 40);
    compare("small", &["24"], Setting::COPY, 16);
}

#[test]
fn memory_that_is_executable_as_well_as_writable_is_paged() {
    compare("executable", &["96"], Setting::PLAIN, 32);
    compare("executable", &["64"], Setting::COPY, 32);
}

#[test]
fn a_gibibyte_runs_in_a_quarter_of_it() {
    compare("fill", &["1024", "seq"], Setting::PLAIN, 256);
}

#[test]
fn the_embedded_server_does_as_well() {
    let run = Run::new(program("fill")).args(["256", "seq"]);
    let native = run.run().ok();
    let paged = run.local(64 * MIB).run().ok();
    assert_eq!(paged.digest(), native.digest());
    let messages = paged.messages();
    assert_eq!(messages.len(), 1, "{}", paged.describe());
    let said = messages[0].contains("pages stay in this machine's memory");
    assert!(said, "{}", paged.describe());
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
    assert_eq!(paged.figures().lost_pages, 0, "{}", paged.describe());
    assert_eq!(paged.figures().self_faults, 0, "{}", paged.describe());
}

#[test]
fn the_preload_line_works_by_itself() {
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["256", "seq"]);
    let native = run.run().ok();
    let paged = run
        .preload()
        .env("TMEM_LOCAL", "64M")
        .env("TMEM_SERVERS", server.address().to_string())
        .run()
        .ok();
    assert_eq!(paged.digest(), native.digest());
    assert_eq!(paged.stderr(), "");
    assert!(
        paged.max_rss <= 64 * MIB / 20 * 21 + 16 * MIB,
        "{}",
        paged.describe()
    );
    assert!(server.stats().pages_written > 0);
}

#[test]
fn large_arrays_the_break_and_large_stacks_are_paged() {
    compare("statics", &[], Setting::PLAIN, 64);
    compare("statics", &[], Setting::COPY, 64);
}

#[test]
fn threads_under_locks_keep_shared_memory_consistent() {
    compare("threads", &["64", "4", "20000"], Setting::PLAIN, 24);
    compare("threads", &["64", "4", "10000"], Setting::COPY, 24);
}

#[test]
fn who_waits_for_a_dead_owner_hears_of_it_however_many_there_were() {
    compare("locks", &["48", "2", "1100000"], Setting::PLAIN, 20);
    compare("locks", &["48", "2", "1100000"], Setting::COPY, 20);
}

#[test]
fn pages_that_change_while_they_leave_come_back_as_they_were_last() {
    compare("rewrite", &["96", "200000", "2"], Setting::PLAIN, 24);
    compare("rewrite", &["96", "100000", "4"], Setting::TWO_SERVERS, 24);
    compare("rewrite", &["96", "100000", "2"], Setting::COPY, 24);
}

#[test]
fn threads_that_come_and_go_are_paged() {
    compare("churn", &["64", "60"], Setting::PLAIN, 24);
}

#[test]
fn system_calls_reach_evicted_buffers() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder.path().to_str().expect("a temporary path is text");
    compare("syscalls", &["64", folder], Setting::PLAIN, 20);
    compare("syscalls", &["64", folder], Setting::COPY, 20);
}

#[test]
fn what_devices_write_by_themselves_arrives() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder.path().to_str().expect("a temporary path is text");
    compare("direct", &["32", folder, "200"], Setting::PLAIN, 20);
    // Such a program is not paged where pages can only be copied.
    let server = MemServer::roomy();
    let paged = Run::new(program("direct"))
        .args(["32", folder, "200"])
        .local(20 * MIB)
        .flags(["--evict", "all", "--page-path", "copy"])
        .servers([server.address()])
        .run()
        .ok();
    assert!(
        paged.stdout() == "none\n" || paged.stderr().contains("devices write to its memory"),
        "{}",
        paged.describe()
    );
}

#[test]
fn buffers_that_the_kernel_knows_by_their_pages_are_the_programs() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder.path().to_str().expect("a temporary path is text");
    let run = Run::new(program("rings")).args(["24", folder]);
    let native = run.run().ok();
    // An emulated machine's kernel may not be able to move pages.
    if !scale::is_emulated() {
        at_budget(&run, &native, Setting::PLAIN, 16 * MIB);
        at_budget(&run, &native, Setting::PLAIN.all_leave(), 64 * MIB);
    }
    // What is set up at any moment is seen before a page is lost.
    for _ in 0..scale::pick(10, 100) {
        let (paged, _servers) = paged_at(&run, Setting::COPY.all_leave(), 64 * MIB);
        let paged = paged.ok();
        assert_eq!(paged.stdout(), "right\n", "{}", paged.describe());
        let warned = paged.stderr().contains("devices write to its memory");
        assert!(warned, "{}", paged.describe());
    }
}

#[test]
fn pages_that_a_ring_sends_keep_their_contents() {
    // An emulated machine's kernel may not be able to move pages; where they are copied,
    // a program with a ring is not paged.
    if scale::is_emulated() {
        return;
    }
    for name in ["lent", "lent_raw"] {
        let run = Run::new(program(name)).args(["24", "ring"]);
        let native = run.run().ok();
        at_budget(&run, &native, Setting::PLAIN, 16 * MIB);
        at_budget(&run, &native, Setting::PLAIN.all_leave(), 64 * MIB);
    }
}

#[test]
fn other_programs_start_as_usual() {
    compare("spawns", &["64"], Setting::PLAIN, 20);
}

#[test]
fn locked_memory_stays() {
    compare("locked", &["64"], Setting::PLAIN, 20);
}

#[test]
fn a_program_may_lock_all_of_its_memory() {
    for which in ["current", "future", "both", "on-fault"] {
        let run = Run::new(program("locked")).args(["24", which]);
        let native = run.run().ok();
        for setting in [Setting::PLAIN, Setting::COPY] {
            // What is locked stays, beyond the budget.
            let (paged, _servers) = paged_at(&run, setting, 16 * MIB);
            assert_eq!(paged.digest(), native.digest(), "{}", paged.describe());
        }
    }
}

#[test]
fn pages_that_the_kernel_has_merged_keep_to_the_budget() {
    compare("merged", &["96"], Setting::PLAIN, 24);
}

#[test]
fn protections_hold_and_pass() {
    compare("protections", &["64"], Setting::PLAIN, 20);
    compare("protections", &["64"], Setting::COPY, 20);
}

#[test]
fn a_write_barrier_by_sigsegv_works() {
    compare("barrier", &["64", "3"], Setting::PLAIN, 20);
    compare("barrier", &["64", "2"], Setting::COPY, 20);
}

#[test]
fn descriptors_are_those_of_a_native_run() {
    compare("descriptors", &["64"], Setting::PLAIN, 20);
}

#[test]
fn an_allocation_beyond_the_machines_memory_is_not_refused() {
    let server = MemServer::roomy();
    let native = Run::new(program("sparse")).args(["1", "20000"]).run().ok();
    let paged = Run::new(program("sparse"))
        .args(["64", "20000"])
        .local(32 * MIB)
        .servers([server.address()])
        .run()
        .ok();
    assert_eq!(paged.stdout(), native.stdout());
    assert_sound(&paged, 32 * MIB);
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
}

#[test]
fn heaps_that_grow_bit_by_bit_do_not_outrun_their_budget() {
    compare("heap", &["512"], Setting::PLAIN, 128);
    compare("heap", &["512", "4"], Setting::PLAIN, 128);
}

#[test]
fn packed_copies_are_of_the_pages_that_left() {
    let run = Run::new(program("records")).args(["64", "40000"]);
    let native = run.run().ok();
    let copies = |when, setting| {
        let run = run.clone().env("TMEM_COMPRESSED_CACHE", when);
        let paged = at_budget(&run, &native, setting, 24 * MIB);
        let figures = paged.figures();
        assert!(figures.compressed_cache_bytes <= 18 * MIB, "{figures:?}");
        (figures.compressed_hits, figures.compressed_cache_bytes)
    };
    assert_eq!(copies("never", Setting::PLAIN), (0, 0));
    for setting in [Setting::PLAIN, Setting::COPY, Setting::PLAIN.all_leave()] {
        let (hits, bytes) = copies("always", setting);
        assert!(hits > 1000 && bytes > 0, "{hits} hits, {bytes} bytes");
    }
}
