//! The documents say what is so: their commands run, their links lead somewhere, and the
//! options, messages and statistics that they describe are those of the programs.

mod commands;
mod links;
mod markdown;
mod messages;
mod options;

/// Fails with all of `mistakes`, one to a line, if there are any.
fn none(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}
