//! `tmem top` in a real terminal, which tmux is.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tmem_tests::cc::program;
use tmem_tests::{MIB, MemServer, Run, artefacts};

/// A terminal of 110 columns and 24 rows; gone when dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs a command in it; none without tmux.
    fn run(name: &str, command: &str) -> Option<Terminal> {
        let terminal = Terminal {
            socket: format!("tmem-test-{name}-{}", std::process::id()),
        };
        let size = ["-x", "110", "-y", "24"];
        let begun = terminal.tmux(&[&["new-session", "-d"][..], &size, &[command]].concat());
        match begun {
            Some(output) => {
                assert!(output.status.success(), "{output:?}");
                Some(terminal)
            }
            None => {
                eprintln!("skipped: tmux is not installed");
                None
            }
        }
    }

    fn tmux(&self, args: &[&str]) -> Option<Output> {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(args);
        command
            .stdin(Stdio::null())
            .env_remove("TMUX")
            .output()
            .ok()
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).expect("tmux can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// The screen, once it shows something.
    fn wait_for(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(words) {
                return screen;
            }
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "no {words} in\n{screen}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the command in it has ended.
    fn has_ended(&self) -> bool {
        let sessions = self.tmux(&["list-sessions"]);
        sessions.is_none_or(|output| !output.status.success())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The number of a program that is paged.
fn pid_of(command: &str) -> u64 {
    let output = Command::new(artefacts::tmem())
        .args(["ps", "--json"])
        .output();
    let lines: Value =
        serde_json::from_slice(&output.expect("tmem can be run").stdout).expect("JSON");
    let is_it = |line: &&Value| {
        line["command"]
            .as_str()
            .is_some_and(|c| c.contains(command))
    };
    let line = lines.as_array().expect("a list").iter().find(is_it);
    line.expect("it is listed")["pid"]
        .as_u64()
        .expect("a number")
}

#[test]
fn programs_are_shown_and_keys_change_their_budgets() {
    let server = MemServer::roomy();
    let run = Run::new(program("asked"))
        .local(64 * MIB)
        .servers([server.address()]);
    let mut running = run.args(["128", "on-screen"]).stdin_pipe().spawn();
    running.wait_for_line("ready");
    let tmem = artefacts::tmem();
    let command = format!(
        "exec {} top --interval 0.2 --server {}",
        tmem.display(),
        server.address()
    );
    let Some(terminal) = Terminal::run("top", &command) else {
        return;
    };
    let pid = pid_of("asked 128 on-screen");
    let screen = terminal.wait_for(&format!(" {pid} "));
    let line = screen
        .lines()
        .find(|line| line.contains(&format!(" {pid} ")))
        .expect("a line");
    assert!(line.contains(" 64M "), "{screen}");
    assert!(
        screen.contains("faults") && screen.contains("waiting"),
        "{screen}"
    );
    // The server is asked by a thread of its own.
    terminal.wait_for("READ/S");
    // Others may be on the machine: the one that is chosen is marked.
    let is_chosen = |screen: &str| {
        let marked = screen.lines().find(|line| line.starts_with('>'));
        marked.is_some_and(|line| line.contains(&format!(" {pid} ")))
    };
    for _ in 0..20 {
        terminal.press("s");
        thread::sleep(Duration::from_millis(100));
        if terminal.screen().contains("sorted by PID") {
            break;
        }
    }
    (0..40).for_each(|_| terminal.press("Up"));
    while !is_chosen(&terminal.screen()) {
        terminal.press("Down");
        thread::sleep(Duration::from_millis(300));
    }
    terminal.press("+");
    terminal.wait_for(": 70M");
    terminal.press("e");
    terminal.wait_for("leaves");
    running.say("look");
    running.wait_for_lines("right", 1);
    terminal.press("q");
    let start = Instant::now();
    while !terminal.has_ended() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{}",
            terminal.screen()
        );
        thread::sleep(Duration::from_millis(50));
    }
    running.say("end");
    running.wait().ok();
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let output = Command::new(artefacts::tmem())
        .arg("top")
        .stdin(Stdio::null())
        .output()
        .expect("tmem can be run");
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("`tmem ps` lists the programs once"), "{text}");
}
