//! `scripts/tour` shows what `docs/tour.md` has.

use std::env;
use std::path::Path;
use std::process::Command;
use tmem_tests::artefacts;

/// Headings and commands: what does not differ from machine to machine.
fn outline(text: &str) -> Vec<String> {
    let is_outline = |line: &&str| line.starts_with('#') || line.starts_with("$ ");
    let lines = text.lines().filter(is_outline);
    // Numbers of processes differ.
    let without = |line: &str| -> String {
        let words = line.split(' ').map(|word| match word.parse::<u32>() {
            Ok(_) => "PID",
            Err(_) => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    lines.map(without).collect()
}

#[test]
fn the_tour_can_be_made_and_the_document_has_its_screens() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(tree.join("docs/tour.md")).expect("the tour is there");
    for program in ["python3", "tmux"] {
        if Command::new(program).arg("-V").output().is_err() {
            eprintln!("skipped: {program} is not installed");
            return;
        }
    }
    let folder = artefacts::tmem();
    let folder = folder.parent().expect("it is in a folder").to_owned();
    let path = env::var("PATH").unwrap_or_default();
    let output = Command::new(tree.join("scripts/tour"))
        .env("PATH", format!("{}:{path}", folder.display()))
        .output()
        .expect("the script can be run");
    let text = String::from_utf8(output.stdout).expect("text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n{text}");
    assert_eq!(outline(&text), outline(&document));
    for words in [
        "To begin:",
        "  userfaultfd  ",
        "ready on 127.0.0.1:",
        "memory: budget 64.0 MiB",
        "FAULTS/S",
        "budget 64M -> 512M",
        "resident -> ",
        "budget 512M -> 64M",
        "q quit",
    ] {
        let both = text.contains(words) && document.contains(words);
        assert!(both, "{words} in\n{text}");
    }
}
