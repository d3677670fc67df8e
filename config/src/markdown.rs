//! The documentation of the options, made from their declarations.

use std::fmt::Write as _;

use crate::{Declaration, Group, OPTIONS};

/// The lines around generated text in a document.
const BEGIN: &str = "<!-- generated from config/src/options/mod.rs: begin -->";
const END: &str = "<!-- generated: end -->";

/// Writes the documentation of every option, as a section for each group.
pub fn options_markdown() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(text, "### {}\n", group.heading());
        text.push_str(
            "| flag | variable | key | default | what it does |\n|---|---|---|---|---|\n",
        );
        for option in OPTIONS.iter().filter(|option| option.group == group) {
            text.push_str(&row(option));
        }
        text.push('\n');
    }
    text
}

/// Puts `generated` between the lines of `document` that mark its place. Returns `None` if
/// they are missing.
pub fn replace_generated(document: &str, generated: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        generated.trim()
    ))
}

fn row(option: &Declaration) -> String {
    let flag = match option.value {
        Some(value) => format!("`--{} {value}`", option.flag),
        None => format!("`--{}`", option.flag),
    };
    let key = option.key.map(|key| format!("`{key}`")).unwrap_or_default();
    let default = (option.default)().filter(|default| !default.is_empty());
    let default = default.map(|d| format!("`{d}`")).unwrap_or_default();
    let mut what = format!("{}.", option.help);
    if let Some(choices) = option.choices {
        let _ = write!(what, " One of {choices}.");
    }
    if !option.more.is_empty() {
        let _ = write!(what, " {}", option.more);
    }
    // A bar would end the cell.
    let what = what.replace('|', "\\|");
    format!(
        "| {flag} | `{}` | {key} | {default} | {what} |\n",
        option.variable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_text_goes_between_its_marks_and_leaves_the_rest() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace_generated(&document, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replace_generated(&new, "new"), Some(new.clone()));
        assert_eq!(replace_generated("no marks", "new"), None);
    }
}
