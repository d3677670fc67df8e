//! What is fetched ahead, and what is not.

use tmem_tests::cc::program;
use tmem_tests::compare::{Setting, at_budget, program_at as compare};
use tmem_tests::{MIB, Run};

#[test]
fn of_a_matrix_whose_columns_are_used_little_else_is_fetched() {
    let paged = compare("columns", &["192", "10000", "4"], Setting::PLAIN, 48);
    let used = 4 * paged.stdout().trim().parse::<u64>().expect("how many rows");
    let fetched = paged.figures().fetched_pages;
    assert!(fetched < used / 2 * 3, "{}", paged.describe());
    compare("columns", &["96", "10000", "2"], Setting::COPY, 24);
}

#[test]
fn objects_that_lie_about_in_the_order_of_their_making_are_fetched_ahead() {
    let paged = compare("objects", &["192"], Setting::PLAIN, 20);
    let figures = paged.figures();
    let waited_for = figures.fetched_pages - figures.prefetched_pages;
    assert!(
        waited_for < figures.fetched_pages / 30,
        "{}",
        paged.describe()
    );
    compare("objects", &["96"], Setting::COPY, 24);
}

#[test]
fn what_an_array_of_pointers_leads_to_is_fetched_ahead() {
    // Whether the array is seen to be read in order, or shows in nothing but what is in it.
    let counted = ["64", "0"].map(|pages| ["64", pages]);
    for (args, setting) in counted
        .iter()
        .flat_map(|args| [Setting::PLAIN, Setting::COPY].map(|s| (args, s)))
    {
        let paged = compare("pointers", args, setting, 24);
        let figures = paged.figures();
        assert!(
            figures.prefetched_pages * 2 > figures.fetched_pages,
            "{}",
            paged.describe()
        );
    }
}

#[test]
fn packed_copies_do_not_hide_an_array_of_pointers() {
    let run = Run::new(program("pointers")).args(["64", "0"]);
    let native = run.run().ok();
    let run = run.env("TMEM_COMPRESSED_CACHE", "always");
    for setting in [Setting::PLAIN, Setting::COPY] {
        let paged = at_budget(&run, &native, setting, 24 * MIB);
        let figures = paged.figures();
        assert!(figures.compressed_cache_bytes > 0, "{}", paged.describe());
        assert!(
            figures.prefetched_pages * 2 > figures.evicted_pages,
            "{}",
            paged.describe()
        );
    }
}

/// Where the array's next page is both what a pointer leads to and what is to be read next.
#[test]
fn a_page_that_is_expected_for_two_reasons_is_fetched_once() {
    for setting in [Setting::PLAIN, Setting::COPY] {
        let paged = compare("pointers", &["64", "0", "1"], setting, 24);
        let figures = paged.figures();
        assert!(
            figures.prefetched_pages * 2 > figures.fetched_pages,
            "{}",
            paged.describe()
        );
    }
}
