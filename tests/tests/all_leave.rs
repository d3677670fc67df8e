//! Programs that do one unusual thing each, with all of their memory leaving all
//! the time, and with little room: output, exit status and signals are those of
//! a native run.

use tmem_tests::catalogue::cases;
use tmem_tests::compare::{Setting, at_budget, paged_at, same};
use tmem_tests::{MIB, Run, scale};

/// By moving and by copying pages, and in the smallest budget.
fn check(programs: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for case in cases(programs, folder.path()) {
        check_run(&case.run);
    }
}

fn check_run(run: &Run) {
    let native = run.run();
    for _ in 0..scale::pick(1, 50) {
        for setting in [Setting::PLAIN, Setting::COPY] {
            at_budget(run, &native, setting.all_leave(), 64 * MIB);
        }
        let (paged, _servers) = paged_at(run, Setting::PLAIN, 16 * MIB);
        if let Err(difference) = same(&native, &paged) {
            panic!("{difference}");
        }
    }
}

#[test]
fn memory_is_filled_and_read() {
    check(&["fill", "statics"]);
}

#[test]
fn memory_in_small_mappings_leaves() {
    check(&["small"]);
}

#[test]
fn executable_memory_leaves() {
    check(&["executable"]);
}

#[test]
fn threads_share_memory() {
    check(&["threads", "rewrite"]);
}

#[test]
fn threads_come_and_go() {
    check(&["churn"]);
}

#[test]
fn threads_wait_for_each_other() {
    check(&["locks"]);
}

#[test]
fn pages_that_a_pipe_or_a_socket_shows_keep_their_contents() {
    check(&["lent"]);
}

#[test]
fn pages_that_were_lent_past_the_c_library_keep_their_contents() {
    check(&["lent_raw"]);
}

#[test]
fn pages_that_code_has_lent_which_was_loaded_late_keep_their_contents() {
    check(&["lent_late"]);
}

#[test]
fn signals_are_handled_on_stacks_that_are_elsewhere() {
    check(&["signals"]);
}

#[test]
fn system_calls_take_memory() {
    check(&["syscalls", "kernel"]);
}

#[test]
fn a_file_system_reads_into_memory_directly() {
    check(&["fuse"]);
}

#[test]
fn pages_leave_that_the_kernel_has_merged() {
    check(&["merged"]);
}

#[test]
fn memory_is_locked_and_protected() {
    check(&["locked", "protections", "barrier"]);
}

#[test]
fn memory_under_guards_is_given_up() {
    check(&["guarded"]);
}

#[test]
fn memory_that_is_elsewhere_counts_as_resident() {
    check(&["resident"]);
}

#[test]
fn a_core_file_is_as_large_as_the_program() {
    check(&["cores"]);
}

#[test]
fn a_program_uses_its_memory_as_a_file() {
    check(&["self_mem"]);
}

#[test]
fn another_process_looks_into_memory() {
    check(&["inspected"]);
}

#[test]
fn libraries_are_loaded() {
    check(&["loading"]);
}

#[test]
fn memory_is_mapped_and_moved() {
    check(&["holes", "moves", "reuse", "blocks", "vm_model"]);
}

#[test]
fn memory_is_served_by_the_program_itself() {
    check(&["faults"]);
}

#[test]
fn processes_are_started_and_forked() {
    check(&["spawns", "forks", "fork_many", "fork_ways"]);
}

#[test]
fn jobs_are_controlled_on_a_terminal() {
    check(&["jobs"]);
}

#[test]
fn programs_are_stopped_at_any_moment() {
    check(&["stops"]);
}

#[test]
fn programs_end_by_every_road() {
    check(&["leaving"]);
}

#[test]
fn programs_give_up_what_they_may_do() {
    check(&["confined"]);
}

#[test]
fn children_live_of_programs_that_have_given_up_what_they_may_do() {
    check(&["confined_fork"]);
}

#[test]
fn no_task_of_a_program_has_other_rights_than_it_has() {
    check(&["credentials"]);
}

#[test]
fn programs_reap_their_own_children_and_no_others() {
    check(&["reaper"]);
}

#[test]
fn programs_may_not_be_inspected_even_by_their_user() {
    let run = Run::new(tmem_tests::software::find("setpriv", "util-linux"));
    let run = run.args(["--bounding-set=-sys_ptrace"]);
    let run = run.args([tmem_tests::cc::program("confined")]);
    let run = run.args(["16", "private"]);
    let native = run.run();
    for setting in [Setting::PLAIN, Setting::COPY] {
        let (paged, _servers) = paged_at(&run, setting.all_leave(), 64 * MIB);
        if let Err(difference) = same(&native, &paged) {
            panic!("{difference}");
        }
    }
}

#[test]
fn programs_are_started_by_others() {
    let program = tmem_tests::cc::program("leaving");
    for command in [&["timeout", "300"][..], &["nohup"], &["setsid", "-w"]] {
        let (first, rest) = command.split_first().expect("there is a command");
        let run = Run::new(tmem_tests::software::find(first, "coreutils util-linux"));
        check_run(&run.args(rest).args([&program]).args(["16", "exit"]));
    }
}
