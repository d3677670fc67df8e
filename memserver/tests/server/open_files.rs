//! What a server says that may open too few files.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn too_few_open_files_for_all_connections_are_said_with_the_remedy() {
    let mut child = Command::new("prlimit")
        .args(["--nofile=40:40", env!("CARGO_BIN_EXE_tmem-memserver")])
        .args(["--listen", "127.0.0.1:0", "--capacity", "1M"])
        .args(["--max-connections", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(line.contains("ready"), "{line}{text}");
    let said = "tmem-memserver: 40 open files are allowed, too few for 1000 connections: \
                raise `ulimit -n`\n";
    assert_eq!(text, said);
}
