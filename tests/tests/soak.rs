//! Runs every program of the catalogue over and over: `scripts/soak`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tmem_tests::catalogue::{Case, cases};
use tmem_tests::compare::{Setting, paged_at, same};
use tmem_tests::{MIB, Outcome};

/// The smallest budget that there is.
const LEAST: u64 = 16 * MIB;

/// A way to run a program: its name, the setting, and the budget as a share of
/// the native peak in percent.
type Cell = (&'static str, Setting, u64);

const CELLS: [Cell; 8] = [
    ("50 % moving", Setting::PLAIN, 50),
    ("25 % moving", Setting::PLAIN, 25),
    ("10 % moving", Setting::PLAIN, 10),
    ("all leave moving", Setting::PLAIN.all_leave(), 100),
    ("50 % copying", Setting::COPY, 50),
    ("25 % copying", Setting::COPY, 25),
    ("10 % copying", Setting::COPY, 10),
    ("all leave copying", Setting::COPY.all_leave(), 100),
];

/// Runs a case `rounds` times; what was different, each time that something was.
fn soak(case: &Case, native: &Outcome, cell: &Cell, rounds: u32) -> Vec<String> {
    let (_, setting, share) = cell;
    let budget = (native.max_rss * share / 100).max(LEAST);
    let once = || {
        let (paged, _servers) = paged_at(&case.run, *setting, budget);
        same(native, &paged)
    };
    // A run that hangs is a panic of the harness.
    let told = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(_) => String::from("a panic without a text"),
    };
    (0..rounds)
        .filter_map(|_| {
            let result = catch_unwind(AssertUnwindSafe(once));
            result.map_err(told).and_then(|same| same).err()
        })
        .collect()
}

/// The words of a variable.
fn words(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[test]
#[ignore = "takes hours; started by scripts/soak"]
fn every_program_does_the_same_every_time() {
    let rounds = words("TMEM_SOAK_ROUNDS").parse().unwrap_or(50);
    let (programs, only) = (words("TMEM_SOAK_PROGRAMS"), words("TMEM_SOAK_CELLS"));
    let programs: Vec<&str> = programs.split_whitespace().collect();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (mut runs, mut bad) = (0, 0);
    for case in cases(&programs, folder.path()) {
        let native = case.run.run();
        for cell in CELLS.iter().filter(|cell| cell.0.contains(&*only)) {
            let differences = soak(&case, &native, cell, rounds);
            let right = rounds as usize - differences.len();
            println!("{}, {}: {right} of {rounds} right", case.name, cell.0);
            for difference in &differences {
                println!("  {difference}");
            }
            runs += rounds;
            bad += differences.len();
        }
    }
    println!("{runs} runs, {bad} of them different");
    assert_eq!(bad, 0, "runs differ");
    assert!(runs > 0, "nothing was run");
}
