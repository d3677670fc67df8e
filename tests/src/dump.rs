//! What a hung process was doing.

use crate::process;
use std::fmt::Write;
use std::fs;

/// The threads of `pid` and all its descendants: name, state, kernel stack.
pub(crate) fn tree(pid: i32) -> String {
    let mut text = String::new();
    for pid in process::tree(pid) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let _ = writeln!(text, "process {pid}: {command}");
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            thread(&mut text, &task.path());
        }
    }
    text
}

fn thread(text: &mut String, task: &std::path::Path) {
    let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
    let status = read("status");
    let wanted = ["Name:", "State:", "VmRSS:", "VmHWM:", "SigBlk:", "SigPnd:"];
    let lines = status
        .lines()
        .filter(|line| wanted.iter().any(|w| line.starts_with(w)));
    let lines: Vec<_> = lines.map(|line| line.replace('\t', " ")).collect();
    let _ = writeln!(text, "  thread {}: {}", task.display(), lines.join(", "));
    let _ = writeln!(
        text,
        "    wchan {} syscall {}",
        read("wchan").trim(),
        read("syscall").trim()
    );
    for line in read("stack").lines() {
        let _ = writeln!(text, "    {line}");
    }
}
