//! `docs/messages.md` and the texts in the code; `docs/statistics.md` and the figures.

use crate::markdown::{code, document, rows, tree};
use crate::none;
use std::fs;
use std::path::Path;
use std::process::Command;
use tmem_tests::artefacts;

#[test]
fn documented_messages_are_in_the_code() {
    let code_text = sources();
    let document = document("docs/messages.md");
    let lines: Vec<&str> = document.prose().into_iter().map(|(_, line)| line).collect();
    let (mut messages, mut mistakes) = (0, vec![]);
    for row in rows(&lines) {
        // The first table is of what happens, and no message stands in it.
        for message in code(row[0]).iter().filter(|m| !m.starts_with("tmem run")) {
            messages += 1;
            for part in message.split('…') {
                let part = part.trim_matches(&[' ', ';', ':', ','][..]);
                if part.len() > 3 && !code_text.contains(part) {
                    mistakes.push(format!("`{part}` of `{message}` is not in the code"));
                }
            }
        }
    }
    assert!(messages > 80, "only {messages} messages were found");
    none(&mistakes);
}

#[test]
fn documented_statistics_are_those_that_are_written() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("statistics");
    let status = Command::new(artefacts::tmem())
        .args(["run", "--local", "64M", "--stats-file"])
        .arg(&file)
        .args(["--", "true"])
        .status()
        .expect("tmem can be run");
    assert!(status.success(), "{status}");
    let text = fs::read_to_string(&file).expect("the statistics are written");
    let json: serde_json::Value = serde_json::from_str(&text).expect("they are JSON");
    let written: Vec<&String> = json.as_object().expect("an object").keys().collect();

    let document = document("docs/statistics.md");
    let lines: Vec<&str> = document.prose().into_iter().map(|(_, line)| line).collect();
    let documented: Vec<String> = rows(&lines).iter().flat_map(|row| code(row[0])).collect();
    let mut mistakes = vec![];
    for name in &written {
        if !documented.contains(name) {
            mistakes.push(format!("{name} is written and not documented"));
        }
    }
    for name in &documented {
        if !written.contains(&name) {
            mistakes.push(format!("{name} is documented and not written"));
        }
    }
    none(&mistakes);
}

/// All code of the programs as one text, in which what `format!` fills in is `…`, and
/// texts of several lines are one.
fn sources() -> String {
    let crates = [
        "config",
        "cli",
        "memserver",
        "pager",
        "shim",
        "rdma",
        "verbs",
        "wire",
    ];
    let mut text = String::new();
    for name in crates {
        collect(&tree().join(name).join("src"), &mut text);
    }
    normal(&text)
}

fn collect(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file can be read"));
        }
    }
}

fn normal(source: &str) -> String {
    let mut joined = String::with_capacity(source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while let Some(kept) = line.strip_suffix('\\') {
            let more = lines.next().unwrap_or_default().trim_start();
            line = format!("{kept}{more}");
        }
        joined.push_str(&line);
        joined.push('\n');
    }
    let joined = joined.replace("\\\"", "\"");
    let mut text = String::with_capacity(joined.len());
    let mut rest = joined.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let is_inside = |c: char| c.is_alphanumeric() || "_:.#?*<>".contains(c);
        match after.trim_start_matches(is_inside).strip_prefix('}') {
            Some(behind) => {
                text.push('…');
                rest = behind;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text + rest
}

#[test]
fn texts_are_found_however_they_are_written() {
    let source = "say(\"server {name} is \\\n    lost ({:?}), {} \\\"x\\\"\"); if a { b }";
    let text = normal(source);
    assert!(text.contains("server … is lost (…), … \"x\""), "{text}");
    assert!(text.contains("if a { b }"), "{text}");
}
