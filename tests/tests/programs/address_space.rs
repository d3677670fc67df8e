//! Programs that change their address space.

use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, at_budget, program_at as compare};
use tmem_tests::{Run, scale};

#[test]
fn memory_mapped_where_other_memory_is_about_to_leave_is_its_own() {
    for _ in 0..4 {
        compare("blocks", &["1000", "64", "4"], Setting::PLAIN, 40);
    }
    compare("blocks", &["1000", "64", "4"], Setting::COPY, 40);
}

#[test]
fn places_that_a_program_has_given_up_are_left_to_it() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        compare("holes", &["64"], setting, 24);
    }
}

#[test]
fn memory_that_several_threads_move_goes_where_they_move_it() {
    compare("moves", &["2000", "64", "4"], Setting::PLAIN, 32);
    compare("moves", &["2000", "64", "2"], Setting::PLAIN, 32);
    compare("moves", &["1000", "64", "4"], Setting::COPY, 32);
}

/// Random changes of the address space, `seeds` of them.
fn model(setting: Setting, threads: &str, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let operations = scale::pick("1500", "5000");
        let args = [&*seed.to_string(), operations, "256", threads];
        let program = Run::new(program("vm_model")).args(args);
        let native = program.run().ok();
        for share in [50, 20] {
            at_budget(&program, &native, setting, native.max_rss * share / 100);
        }
    }
}

#[test]
fn random_changes_of_the_address_space_follow_the_model() {
    model(Setting::PLAIN, "1", 1..scale::pick(4, 200));
}

#[test]
fn random_changes_by_several_threads_follow_the_model() {
    model(Setting::PLAIN, "4", 1..scale::pick(3, 100));
}

#[test]
fn random_changes_follow_the_model_by_copying_pages() {
    model(Setting::COPY, "1", 1..scale::pick(2, 100));
    model(Setting::COPY, "4", 2..scale::pick(3, 100));
}

#[test]
fn random_changes_follow_the_model_on_two_servers() {
    model(Setting::TWO_SERVERS, "2", 1..scale::pick(2, 50));
}
