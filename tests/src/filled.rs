//! A program that is paged while servers fail, restart or leave.

use crate::cc::program;
use crate::process::End;
use crate::{MIB, Outcome, Run, Running};

/// What of it may be local, in bytes.
pub const BUDGET: u64 = 48 * MIB;

/// Starts a program that fills memory, waits for a line, and reads it all back.
pub fn filled(run: impl FnOnce(Run) -> Run) -> Running {
    let program = Run::new(program("fill")).args(["192", "pause", "1", "1"]);
    let mut running = run(program.stdin_pipe().local(BUDGET)).spawn();
    running.wait_for_line("filled");
    running
}

/// The same without tmem.
fn native() -> Outcome {
    let run = Run::new(program("fill"))
        .args(["192", "pause", "1", "1"])
        .stdin_pipe();
    let mut running = run.spawn();
    running.wait_for_line("filled");
    running.say("go");
    running.wait().ok()
}

/// Fails the test unless a run ended as the program does natively, and nothing was lost.
pub fn assert_right(outcome: &Outcome) {
    assert_eq!(outcome.end, End::Exit(0), "{}", outcome.describe());
    assert_eq!(
        outcome.digest(),
        native().digest(),
        "{}",
        outcome.describe()
    );
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
    assert_eq!(outcome.figures().self_faults, 0, "{}", outcome.describe());
}
