//! What the help of `tmem run` tells, and what is said of flags that are wrong.

use std::process::{Command, Output};

use tmem_config::OPTIONS;

fn tmem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tmem"))
        .args(args)
        .output()
        .expect("tmem can be run")
}

fn help(flag: &str) -> String {
    let output = tmem(&["run", flag]);
    assert_eq!(output.status.code(), Some(0));
    // Lines are broken where the terminal ends.
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn help_tells_of_every_option_with_its_variable_and_default() {
    let (short, long) = (help("-h"), help("--help"));
    for option in OPTIONS {
        let flag = format!("--{}", option.flag);
        assert!(short.contains(&flag) && long.contains(&flag), "{flag}");
        assert!(short.contains(option.help), "{flag}");
        let variable = match option.key {
            Some(key) => format!("[variable: {}, key: {key}]", option.variable),
            None => format!("[variable: {}]", option.variable),
        };
        assert!(long.contains(&variable), "{variable} in {long}");
    }
    assert!(short.contains("debug [default: warn]"), "{short}");
    assert!(long.contains("[default: warn]"), "{long}");
}

#[test]
fn help_tells_what_happens_without_servers_and_how_it_ends() {
    let short = help("-h");
    for words in [
        "(required)",
        "for all processes together",
        "125 tmem did not start the program",
        "without --server: only to try tmem",
        "-- ./app",
        "`--` ends the options of tmem",
    ] {
        assert!(short.contains(words), "{words} in {short}");
    }
    assert!(help("--help").contains("pages then stay in this machine's RAM"));
}

#[test]
fn a_value_that_begins_with_a_hyphen_is_refused_as_what_it_is() {
    for (flag, value, words) in [
        (
            "--local",
            "-5M",
            "--local <SIZE>: `-5M` is not a size, because of `-` in place 1; allowed: bytes",
        ),
        (
            "--local",
            "5X",
            "--local <SIZE>: `5X` is not a size, because of `X` in place 2; allowed: bytes",
        ),
        (
            "--log",
            "loud",
            "--log <LEVEL>: `loud` is not known; allowed: error, warn",
        ),
        (
            "--server",
            "a",
            "--server <ADDR>: `a` lacks a port; allowed: host:port",
        ),
    ] {
        let output = tmem(&["run", flag, value, "--", "true"]);
        assert_eq!(output.status.code(), Some(125));
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains(words), "{text}");
        // A size has its wrong place marked below.
        let lines = if flag == "--local" { 4 } else { 1 };
        assert_eq!(text.lines().count(), lines, "{text}");
    }
}

#[test]
fn a_typo_in_a_size_is_marked() {
    let output = tmem(&["run", "--local", "512Q", "--", "true"]);
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.ends_with("\n\n  512Q\n     ^\n"), "{text}");
}

#[test]
fn tmem_alone_says_how_to_begin_and_its_help_has_groups_and_examples() {
    let alone = tmem(&[]);
    assert_eq!(alone.status.code(), Some(125));
    assert!(alone.stdout.is_empty());
    let text = String::from_utf8(alone.stderr).expect("text");
    assert!(text.contains("To begin:\n  tmem doctor "), "{text}");
    let output = tmem(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    for words in [
        "\nRun:\n  run      Run a program",
        "\nSet up:\n  keygen   ",
        "\nExamples:\n  tmem doctor",
        "\nExit status:\n  0    done",
        "-V, --version",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[test]
fn what_was_meant_is_suggested() {
    for (args, tip) in [
        (&["rnu"][..], "'run'"),
        (&["./app"], "tmem run --local SIZE -- ./app"),
        (&["run", "--locl", "1G", "--", "true"], "'--local'"),
    ] {
        let output = tmem(args);
        assert_eq!(output.status.code(), Some(125));
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains("tip: ") && text.contains(tip), "{text}");
    }
}

#[test]
fn help_has_colours_only_on_a_terminal() {
    for args in [&["--help"][..], &["run", "-h"], &["doctor", "-h"]] {
        let text = String::from_utf8(tmem(args).stdout).expect("text");
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
