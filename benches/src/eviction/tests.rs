//! All policies, on small traces.

use super::catalog::{self, Sees};
use super::simulate::{Costs, Counts, run};
use super::trace::Trace;
use super::{Outcome, synthetic};
use proptest::prelude::*;

const COSTS: Costs = Costs {
    standby: 12.0,
    miss: 45.0,
};

fn counts(name: &str, trace: &Trace, capacity: usize) -> Counts {
    let all = catalog::all(&COSTS);
    let entry = all
        .iter()
        .find(|e| e.name == name)
        .expect("there is such a policy");
    run(trace, &mut *entry.policy(trace, capacity))
}

fn misses(name: &str, used: &[u64], capacity: usize) -> u64 {
    counts(name, &Trace::new(used), capacity).misses
}

#[test]
fn textbook_cases_come_out_as_in_the_textbook() {
    // Silberschatz, Galvin, Gagne, chapter 10: 15, 12 and 9 faults with three
    // frames, the first uses of six pages among them.
    let used = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
    assert_eq!(misses("FIFO", &used, 3), 9);
    assert_eq!(misses("LRU", &used, 3), 6);
    assert_eq!(misses("OPT", &used, 3), 3);
}

#[test]
fn a_page_in_use_stays_where_its_bit_is_seen() {
    // Page 0 between others that are used once each.
    let used: Vec<u64> = (1..40).flat_map(|n| [0, n]).collect();
    for name in ["LRU", "CLOCK", "SIEVE", "OPT"] {
        assert_eq!(misses(name, &used, 5), 0, "{name}");
    }
    assert!(misses("FIFO", &used, 5) > 5);
}

#[test]
fn with_a_standby_the_page_in_use_is_not_fetched_but_comes_back() {
    let trace = Trace::new(&(1..400).flat_map(|n| [0, n]).collect::<Vec<_>>());
    let Counts { misses, standby } = counts("fifo-50", &trace, 20);
    assert_eq!(misses, 0);
    // Once in each round of ten pages.
    assert!((35..=45).contains(&standby), "{standby}");
}

#[test]
fn a_cyclic_scan_is_best_served_by_giving_up_what_came_last() {
    let trace = synthetic::named("cyclic:100:2000").expect("is known");
    assert_eq!(counts("FIFO", &trace, 50).misses, 1900);
    assert_eq!(counts("LRU", &trace, 50).misses, 1900);
    let (opt, mru) = (counts("OPT", &trace, 50), counts("mru-10", &trace, 50));
    assert!(opt.misses < 1000 && mru.misses < 1200, "{opt:?} {mru:?}");
}

#[test]
fn what_is_asked_for_soon_after_it_left_survives_scans_in_the_engines_order() {
    // Twenty pages, then twelve that are never used again, over and over.
    let round = |n: u64| (0..20).chain(1000 * n..1000 * n + 12);
    let used: Vec<u64> = (1..40).flat_map(round).collect();
    let (fifo, tmem) = (misses("fifo-10", &used, 24), misses("tmem", &used, 24));
    assert!(tmem < fifo / 2, "{tmem} {fifo}");
}

#[test]
fn the_engines_order_keeps_a_part_of_a_cyclic_scan() {
    let trace = synthetic::named("cyclic:4000:40000").expect("is known");
    let [opt, tmem, acyclic] =
        ["OPT", "tmem", "tmem-acyclic-5"].map(|name| counts(name, &trace, 2000).misses);
    assert_eq!(acyclic, 36_000);
    assert!(tmem < opt * 3 / 2, "{tmem} {opt}");
}

#[test]
fn unknown_names_are_refused() {
    for name in ["cyclic", "cyclic:0:5", "cyclic:x:5", "round:5:5"] {
        assert!(synthetic::named(name).is_err(), "{name}");
    }
    assert_eq!(
        synthetic::named("mixed:40:300").map(|t| t.pages.len()).ok(),
        Some(300)
    );
    assert_eq!(
        synthetic::named("zipf:1:7").map(|t| t.distinct).ok(),
        Some(1)
    );
}

fn traces() -> impl Strategy<Value = Trace> {
    let uses = prop::collection::vec(prop_oneof![0u64..6, 0u64..40, 100u64..110], 1..400);
    uses.prop_map(|used| Trace::new(&used))
}

proptest! {
    #[test]
    fn no_policy_holds_too_much_or_loses_what_was_just_used(trace in traces(), capacity in 2usize..30) {
        for entry in catalog::all(&COSTS) {
            let mut policy = entry.policy(&trace, capacity);
            let clairvoyant = entry.sees == Sees::Future;
            for &page in &trace.pages {
                policy.access(page);
                prop_assert!(policy.held() <= capacity, "{}: {}", entry.name, policy.held());
                if !clairvoyant {
                    prop_assert_eq!(policy.access(page), Outcome::Hit, "{}", &entry.name);
                }
            }
        }
    }

    #[test]
    fn opt_is_never_worse_than_any_other(trace in traces(), capacity in 2usize..30) {
        let opt = counts("OPT", &trace, capacity);
        prop_assert_eq!(opt.standby, 0);
        for entry in catalog::all(&COSTS) {
            let other = run(&trace, &mut *entry.policy(&trace, capacity));
            prop_assert!(opt.misses <= other.misses, "{}: {:?} {:?}", entry.name, opt, other);
        }
    }

    #[test]
    fn where_all_fits_nothing_is_asked_for_twice(trace in traces()) {
        for entry in catalog::all(&COSTS) {
            let found = run(&trace, &mut *entry.policy(&trace, trace.distinct + 2));
            prop_assert_eq!(found, Counts::default(), "{}", entry.name);
        }
    }
}
