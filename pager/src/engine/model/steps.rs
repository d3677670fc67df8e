//! Random steps, and the test.

use super::machine::{Begin, Machine, Step};
use super::meet::{Meeting, Way};
use super::program::Action;
use super::world::PAGES;
use crate::net::model::Fate;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// Cases of a run without `TMEM_MODEL_CASES`.
const CASES: u32 = 600;
/// The same of servers that fail, of which each takes longer.
const LOSSES: u32 = 120;
/// The seed of a run without `TMEM_MODEL_SEED`: tests give the same result each time.
const SEED: u64 = 1;
/// How long shorter lists of steps are looked for, in milliseconds.
const SHRINK_MS: u32 = 20_000;
/// The most steps of a case.
const STEPS: usize = 120;

fn begin() -> impl Strategy<Value = Begin> {
    let flags = (
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.5),
        prop::bool::weighted(0.3),
    );
    (flags, 24usize..72, 1usize..=3, 1usize..=3).prop_map(
        |((moves, evict_all, copies, is_prompt, local), budget, servers, redundancy)| Begin {
            moves,
            evict_all,
            copies,
            budget,
            servers,
            redundancy,
            is_prompt,
            local,
        },
    )
}

fn run() -> impl Strategy<Value = (u64, u64)> {
    (0..PAGES, prop_oneof![4 => 1u64..4, 1 => 4u64..40])
}

/// Pages of which most are near one another, so that they meet.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0u64..64, 1 => 0..PAGES]
}

fn access() -> impl Strategy<Value = Action> {
    (0usize..4, page(), 0u32..24).prop_map(|(thread, page, how)| match how {
        0..8 => Action::Read { thread, page },
        how => Action::Write {
            thread,
            page,
            zero: how == 8,
        },
    })
}

fn change() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => run().prop_map(|(first, n)| Action::Map { first, n }),
        2 => run().prop_map(|(first, n)| Action::Unmap { first, n }),
        3 => run().prop_map(|(first, n)| Action::DontNeed { first, n }),
        1 => run().prop_map(|(first, n)| Action::Free { first, n }),
        1 => Just(Action::Vanish),
        3 => (run(), 0..PAGES, any::<bool>()).prop_map(|((first, n), to, keep)| {
            Action::Move { first, n, to, keep }
        }),
        2 => (run(), prop::bool::weighted(0.7))
            .prop_map(|((first, n), writable)| Action::Protect { first, n, writable }),
        1 => (page(), any::<bool>()).prop_map(|(page, on)| Action::Pin { page, on }),
        1 => page().prop_map(|page| Action::Device { page }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![3 => access(), 2 => change()]
}

fn meeting() -> impl Strategy<Value = Meeting> {
    prop_oneof![
        2 => Just(Meeting::Read),
        2 => Just(Meeting::Write),
        2 => Just(Meeting::DontNeed),
        1 => Just(Meeting::Free),
        1 => Just(Meeting::Unmap),
        3 => (0..PAGES, any::<bool>()).prop_map(|(to, keep)| Meeting::Move { to, keep }),
    ]
}

fn meet() -> impl Strategy<Value = Step> {
    let way = prop_oneof![Just(Way::In), Just(Way::Out)];
    (way, 0usize..48, 1u64..8, meeting())
        .prop_map(|(way, nth, n, meeting)| Step::Meet(way, nth, n, meeting))
}

fn take_place() -> impl Strategy<Value = Step> {
    let away = prop::option::of(0..PAGES);
    (run(), away, page(), any::<bool>()).prop_map(|(place, away, from, late)| Step::TakePlace {
        place,
        away,
        from,
        late,
    })
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Done), 1 => Just(Fate::Refused), 1 => Just(Fate::Spoilt)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => access().prop_map(Step::Act),
        6 => change().prop_map(Step::Act),
        8 => (0u32..24, action()).prop_map(|(calls, action)| Step::Race(calls, action)),
        6 => meet(),
        2 => take_place(),
        4 => Just(Step::GoOn),
        2 => (1u64..4).prop_map(Step::Time),
        1 => (20u64..2000).prop_map(Step::Time),
        1 => Just(Step::Adopt),
        10 => (1usize..48).prop_map(Step::Evict),
        6 => (1usize..32).prop_map(Step::Reclaim),
        1 => (16usize..96).prop_map(Step::Budget),
        3 => Just(Step::Recall),
        10 => (0usize..16, fate()).prop_map(|(nth, fate)| Step::Answer(nth, fate)),
        4 => Just(Step::AnswerAll),
        1 => any::<bool>().prop_map(Step::Prompt),
        1 => (0usize..3).prop_map(Step::Cut),
        1 => (0usize..3).prop_map(Step::Restart),
        1 => (0usize..3, 0u32..8).prop_map(|(server, left)| Step::Left(server, left)),
        3 => Just(Step::Fork),
        1 => Just(Step::ChildEnds),
        1 => Just(Step::Settle),
    ]
}

/// The same with servers that fail far more often than anything else happens.
fn failing() -> impl Strategy<Value = Step> {
    prop_oneof![
        14 => access().prop_map(Step::Act),
        2 => change().prop_map(Step::Act),
        2 => (1u64..40).prop_map(Step::Time),
        // Reads that are under way are late then: another server is asked as well.
        3 => (50u64..120).prop_map(Step::Time),
        8 => (1usize..48).prop_map(Step::Evict),
        4 => (1usize..32).prop_map(Step::Reclaim),
        8 => (0usize..16, fate()).prop_map(|(nth, fate)| Step::Answer(nth, fate)),
        4 => Just(Step::AnswerAll),
        1 => any::<bool>().prop_map(Step::Prompt),
        1 => (0usize..3).prop_map(Step::Cut),
        1 => (0usize..3).prop_map(Step::Restart),
        4 => (0usize..3).prop_map(Step::Kill),
        1 => (0usize..3, 0usize..64).prop_map(|(server, nth)| Step::Corrupt(server, nth)),
        1 => (0usize..3, 0u32..8).prop_map(|(server, left)| Step::Left(server, left)),
        1 => Just(Step::Fork),
        1 => Just(Step::ChildEnds),
        1 => Just(Step::Settle),
    ]
}

fn play(begin: Begin, steps: &[Step]) -> Result<[u64; DONE], TestCaseError> {
    let mut machine = Machine::new(begin);
    machine.fill();
    for step in steps {
        machine.step(*step).map_err(TestCaseError::fail)?;
    }
    let compared = machine.finish().map_err(TestCaseError::fail)?;
    let mut done = [compared; DONE];
    done[1..].copy_from_slice(&machine.figures());
    Ok(done)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a run has done: see [`Machine::figures`].
const DONE: usize = 9;

#[test]
fn every_page_reads_as_the_plain_map_says_whatever_happens() {
    run_cases(CASES, &(begin(), prop::collection::vec(step(), 1..STEPS)));
}

#[test]
fn no_page_is_lost_that_a_server_has_whatever_servers_do() {
    let copied = begin().prop_map(|begin| Begin {
        servers: begin.servers.max(2),
        redundancy: begin.redundancy.max(2),
        ..begin
    });
    run_cases(
        LOSSES,
        &(copied, prop::collection::vec(failing(), 1..STEPS)),
    );
}

/// Plays many cases.
fn run_cases(most: u32, all: &impl Strategy<Value = (Begin, Vec<Step>)>) {
    let cases = from_environment("TMEM_MODEL_CASES").unwrap_or(u64::from(most));
    let seed = from_environment("TMEM_MODEL_SEED").unwrap_or(SEED);
    std::println!("TMEM_MODEL_SEED={seed} TMEM_MODEL_CASES={cases}");
    let config = Config {
        cases: cases as u32,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 4000,
        max_shrink_time: SHRINK_MS,
        ..Config::default()
    };
    let mut done = [0; DONE];
    let mut runner = TestRunner::new(config);
    let sums = core::cell::RefCell::new(&mut done);
    let result = runner.run(all, |(begin, steps): (Begin, Vec<Step>)| {
        let seen = play(begin, &steps)?;
        sums.borrow_mut()
            .iter_mut()
            .zip(seen)
            .for_each(|(sum, n)| *sum += n);
        Ok(())
    });
    std::println!(
        "compared, evicted, written, fetched, discarded, asked elsewhere, mended, repaired, \
         killed: {done:?}"
    );
    match result {
        Err(TestError::Fail(why, (begin, steps))) => {
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{why} (seed {seed})\n  {begin:?}\n{steps}");
        }
        result => result.expect("a run of the model"),
    }
}

#[test]
fn two_threads_that_touch_neighbouring_mappings_at_once_are_both_served() {
    let mut machine = Machine::new(Begin {
        moves: true,
        evict_all: false,
        copies: false,
        budget: 72,
        servers: 1,
        redundancy: 1,
        is_prompt: true,
        local: false,
    });
    machine.fill();
    let alone = |first| Action::Protect {
        first,
        n: 1,
        writable: false,
    };
    let given_up = Action::DontNeed { first: 48, n: 12 };
    for action in [alone(50), alone(52), given_up] {
        machine.step(Step::Act(action)).expect("a change");
    }
    machine.step(Step::Settle).expect("the changes are over");
    for (thread, page) in [(0, 50), (1, 51)] {
        let read = Action::Read { thread, page };
        machine.world.borrow_mut().act(read);
    }
    machine.step(Step::Settle).expect("both threads go on");
}
