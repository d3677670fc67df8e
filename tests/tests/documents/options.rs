//! `docs/options.md` and what the programs take.

use crate::markdown::{Document, code, document, documents, rows, tree};
use crate::none;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use tmem_tests::artefacts;

type Names = BTreeSet<String>;

/// What a program prints, on either stream.
pub(crate) fn output(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .expect("the program can be run");
    let texts = [output.stdout, output.stderr];
    texts
        .map(|t| String::from_utf8_lossy(&t).into_owned())
        .concat()
}

/// Words that begin with two dashes.
pub(crate) fn flags_in(text: &str) -> Names {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.split(|c: char| !is_name(c))
        .filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---"))
        .map(str::to_owned)
        .collect()
}

/// The flags that a program's help lists.
pub(crate) fn flags_of(program: &Path, command: &[&str]) -> Names {
    let help = output(program, &[command, &["--help"]].concat());
    let mut flags: Names = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| flags_in(line.split("  ").next().unwrap_or_default()))
        .collect();
    flags.remove("--help");
    flags
}

fn names_in(text: &str, prefix: &str) -> Names {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    text.split(|c: char| !is_name(c))
        .filter(|word| word.len() > prefix.len() && word.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

/// The first code of cell `column` of each row below `title`, without its value.
fn column(document: &Document, title: &str, column: usize) -> Names {
    rows(&document.below(title))
        .iter()
        .filter_map(|row| code(row[column]).first().cloned())
        .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

/// The words in backticks, or between commas, behind `mark`.
fn listed(text: &str, mark: &str) -> Names {
    let list = text.split_once(mark).unwrap_or_else(|| panic!("{text}")).1;
    list.split(',')
        .map(|word| word.trim().trim_matches('`').to_owned())
        .collect()
}

fn unknown_key(program: &Path, command: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("file.toml");
    fs::write(&file, "no-such-key = 1\n").expect("the folder can be written");
    let file = file.to_str().expect("it is UTF-8");
    let mut args = command.to_vec();
    args.extend(["--config", file]);
    if !command.is_empty() {
        args.extend(["--", "true"]);
    }
    output(program, &args)
}

#[test]
fn flags_variables_and_keys_of_run_are_documented() {
    let (tmem, options) = (artefacts::tmem(), document("docs/options.md"));
    let title = "`tmem run` and the preload line";
    assert_eq!(column(&options, title, 0), flags_of(&tmem, &["run"]));
    assert_eq!(
        column(&options, title, 2),
        listed(&unknown_key(&tmem, &["run"]), "known: ")
    );
    // A variable is named after its flag; `--server` can be several.
    let expected: Names = flags_of(&tmem, &["run"])
        .iter()
        .map(|flag| {
            flag.trim_start_matches('-')
                .replace('-', "_")
                .to_uppercase()
        })
        .map(|name| format!("TMEM_{name}{}", if name == "SERVER" { "S" } else { "" }))
        .collect();
    assert_eq!(column(&options, title, 1), expected);
}

#[test]
fn flags_and_keys_of_the_memory_server_are_documented() {
    let (server, options) = (artefacts::memserver(), document("docs/options.md"));
    let flags = flags_of(&server, &[]);
    let mut known = flags.clone();
    known.remove("--version");
    assert_eq!(column(&options, "`tmem-memserver`", 0), known);
    let keys: Names = listed(&unknown_key(&server, &[]), "expected one of ")
        .iter()
        .map(|key| format!("--{key}"))
        .collect();
    known.remove("--config");
    assert_eq!(keys, known);
}

#[test]
fn flags_of_commands_with_a_table_are_documented() {
    let options = document("docs/options.md");
    for command in ["doctor", "top", "set"] {
        assert_eq!(
            column(&options, &format!("`tmem {command}`"), 0),
            flags_of(&artefacts::tmem(), &[command]),
            "{command}"
        );
    }
}

#[test]
fn flags_of_bench_are_documented() {
    let options = document("docs/options.md");
    assert_eq!(
        column(&options, "`tmem bench`", 0),
        flags_of(&artefacts::tmem(), &["bench"])
    );
}

#[test]
fn variables_are_documented_and_documented_ones_exist() {
    let mut code_text = String::new();
    for folder in ["config", "cli", "shim", "memserver", "pager"] {
        read_all(&tree().join(folder).join("src"), &mut code_text);
    }
    let quoted: Names = code_text
        .split('"')
        .filter(|text| text.starts_with("TMEM_"))
        .flat_map(|text| names_in(text, "TMEM_"))
        .collect();
    let mut options = names_in(&document("docs/options.md").text, "TMEM_");
    // Those of the tests stand where the tests are described.
    options.append(&mut names_in(
        &document("docs/design/model.md").text,
        "TMEM_",
    ));
    let missing: Vec<&String> = quoted.difference(&options).collect();
    assert!(missing.is_empty(), "not in docs/options.md: {missing:?}");

    for folder in ["tests", "benches", "scripts", "examples"] {
        read_all(&tree().join(folder), &mut code_text);
    }
    let known = names_in(&code_text, "TMEM_");
    for document in documents() {
        let unknown: Vec<String> = names_in(&document.text, "TMEM_")
            .difference(&known)
            .cloned()
            .collect();
        assert!(
            unknown.is_empty(),
            "{}: {unknown:?}",
            document.path.display()
        );
    }
}

/// Every flag that a document names in code is one of a program or script of tmem's, or
/// one of another program's that is listed here.
#[test]
fn documented_flags_exist() {
    let others = [
        "--nonblocking",
        "--test",
        "--bin",
        "--bench",
        "--release",
        "--system",
        "--now",
    ];
    let tmem = artefacts::tmem();
    let mut known: Names = others.map(str::to_owned).into();
    for command in [
        "run", "doctor", "ps", "top", "stats", "set", "evict", "recall", "bench", "agent", "keygen",
    ] {
        known.extend(flags_of(&tmem, &[command]));
    }
    known.extend(flags_of(&artefacts::memserver(), &[]));
    let mut scripts = String::new();
    for folder in ["benches", "scripts"] {
        read_all(&tree().join(folder), &mut scripts);
    }
    known.extend(flags_in(&scripts));
    let mut mistakes = vec![];
    for document in documents() {
        for (line, text) in document.prose() {
            let named: Names = code(text).iter().flat_map(|text| flags_in(text)).collect();
            for flag in named.difference(&known) {
                mistakes.push(format!("{}: no flag {flag}", document.at(line)));
            }
        }
    }
    none(&mistakes);
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            read_all(&path, text);
        } else if let Ok(more) = fs::read_to_string(&path) {
            // What tests within the file name is not the program's.
            text.push_str(more.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}
