//! Commands on programs that run: what they have and wait for, and how they are given more or
//! less.

mod area;
mod change;
mod find;
mod program;
mod ps;
mod stats;
mod text;
pub(crate) mod top;

pub(crate) use change::{EvictArgs, RecallArgs, SetArgs};
pub(crate) use ps::PsArgs;
pub(crate) use stats::StatsArgs;
pub(crate) use top::TopArgs;

use crate::OWN_FAILURE;

/// The exit status of a command, after its error was told.
fn ended(result: Result<(), String>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("tmem: {text}");
            OWN_FAILURE
        }
    }
}

/// `tmem ps`.
pub(crate) fn ps(args: &PsArgs) -> i32 {
    ended(ps::run(args))
}

/// `tmem stats`.
pub(crate) fn stats(args: &StatsArgs) -> i32 {
    ended(stats::run(args))
}

/// `tmem set`.
pub(crate) fn set(args: &SetArgs) -> i32 {
    ended(change::set(args))
}

/// `tmem evict`.
pub(crate) fn evict(args: &EvictArgs) -> i32 {
    ended(change::evict(args))
}

/// `tmem recall`.
pub(crate) fn recall(args: &RecallArgs) -> i32 {
    ended(change::recall(args))
}

/// `tmem top`.
pub(crate) fn top(args: &TopArgs) -> i32 {
    ended(top::run(args))
}
