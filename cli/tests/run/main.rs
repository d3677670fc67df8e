//! What `tmem run` promises whether or not the program can be paged.

mod figures;
mod unpaged;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};
use tmem_tests::process::as_from_a_shell;

/// It runs programs also where the library is not built or the user has no permission.
fn tmem() -> Command {
    let mut command = bare();
    command.arg("--unpaged-ok");
    command
}

fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TMEM_") {
            command.env_remove(name);
        }
    }
    as_from_a_shell(&mut command).args(["run", "--local", "64M"]);
    command
}

fn run(args: &[&str]) -> Output {
    run_with(&mut tmem(), args)
}

fn run_with(tmem: &mut Command, args: &[&str]) -> Output {
    tmem.args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the test machine can do this")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port on which nobody listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the test machine can do this");
    listener
        .local_addr()
        .expect("the test machine can do this")
        .to_string()
}

/// A library that only has to exist: the checks after it are the matter.
fn some_library(command: &mut Command) -> &mut Command {
    command.env("TMEM_LIB", "/proc/self/exe")
}

fn until_said(child: &mut Child) {
    let mut byte = [0];
    child
        .stdout
        .as_mut()
        .expect("the test machine can do this")
        .read_exact(&mut byte)
        .expect("the test machine can do this");
}

/// Signals that somebody ignores on entry, as `nohup` and a job in the background do, are
/// ignored by the program, and what happens to it is heard of all the same.
#[test]
fn signals_ignored_on_entry_are_the_programs_to_ignore() {
    let mut command = tmem();
    let ignored = [libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGTSTP];
    let ignore = move || {
        // SAFETY: a plain call.
        ignored.iter().for_each(|signal| unsafe {
            libc::signal(*signal, libc::SIG_IGN);
        });
        Ok(())
    };
    // SAFETY: what is called is allowed between fork and exec.
    unsafe { command.pre_exec(ignore) };
    let show = ["--", "grep", "SigIgn", "/proc/self/status"];
    let output = command.args(show).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let mask = text.trim().rsplit('\t').next().unwrap();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    let told = ignored.iter().all(|signal| mask >> (signal - 1) & 1 == 1);
    assert!(told, "{text}");
}

#[test]
fn exit_status_passes_through() {
    for status in [0, 1, 7, 125, 255] {
        let output = run(&["--", "sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
    }
}

#[test]
fn a_killed_program_gives_128_and_the_signal() {
    for (signal, status) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let output = run(&["--", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(output.status.code(), Some(status));
    }
}

#[test]
fn streams_pass_through_binary_clean() {
    let data: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 256) as u8).collect();
    let mut child = tmem()
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.stdout, data);
}

#[test]
fn arguments_pass_through_unchanged() {
    let output = run(&["--", "printf", "%s|", "a b", "", "--strict", "*", "x\ny"]);
    assert_eq!(output.stdout, b"a b||--strict|*|x\ny|");
}

#[test]
fn signals_sent_to_tmem_reach_the_program() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1"] {
        let script = format!("trap 'exit 42' {signal}; printf r; while :; do sleep 0.01; done");
        let mut child = tmem()
            .args(["--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        until_said(&mut child);
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(42), "{signal}");
    }
}

#[test]
fn stop_and_continue_are_mirrored() {
    let mut child = tmem()
        .args(["--", "sh", "-c", "printf r; read line; exit 9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until_said(&mut child);
    let pid = child.id() as libc::pid_t;
    let mut status = 0;
    // SAFETY: plain calls about a child of this process.
    unsafe {
        libc::kill(pid, libc::SIGTSTP);
        assert_eq!(libc::waitpid(pid, &raw mut status, libc::WUNTRACED), pid);
    }
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let ended = child.wait().unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(9), None));
}

#[test]
fn the_program_has_no_further_descriptors_and_the_same_signals() {
    let show = "ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let native = as_from_a_shell(&mut Command::new("sh"))
        .args(["-c", show])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let under = run(&["--", "sh", "-c", show]);
    // The C library has children that it spawns ignore its two signals of its
    // own, or not, by what it has used them for itself.
    let own_of_libc = 3u64 << 31;
    let seen = |out: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(out).into_owned();
        let line = |line: &str| match line.strip_prefix("SigIgn:\t") {
            Some(mask) => {
                let mask = u64::from_str_radix(mask, 16).unwrap();
                format!("ignored: {:x}", mask & !own_of_libc)
            }
            None => line.to_owned(),
        };
        text.lines().map(line).collect()
    };
    assert_eq!(seen(&under.stdout), seen(&native.stdout));
}

/// In a container nobody else takes note of the end of processes without a parent.
#[test]
fn as_the_first_process_it_leaves_none_behind_that_have_ended() {
    // One of them ends as an orphan. It is gone when the kernel knows it no more.
    let script = "o=$(sh -c 'sleep 0.05 > /dev/null & echo $!'); for _ in $(seq 200); do \
                  [ -e /proc/$o ] || exec echo gone; sleep 0.05; done";
    let output = as_from_a_shell(&mut Command::new("unshare"))
        .args(["--user", "--map-root-user", "--pid", "--mount", "--fork"])
        .args([
            "--mount-proc",
            "--kill-child",
            env!("CARGO_BIN_EXE_tmem"),
            "run",
        ])
        .args(["--local", "64M", "--unpaged-ok", "--server", &closed_port()])
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("the test machine can do this");
    // Who may not make such spaces is told by `unshare`.
    let refused = stderr(&output).contains("unshare:");
    assert!(refused || output.stdout == b"gone\n", "{output:?}");
}

#[test]
fn programs_that_cannot_start_are_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "x").unwrap();
    for (name, status) in [
        ("no-such-program-here", 127),
        ("/no/such", 127),
        (plain.to_str().unwrap(), 126),
        ("/", 126),
    ] {
        let output = run(&["--", name]);
        assert_eq!(output.status.code(), Some(status), "{name}");
        let text = stderr(&output);
        assert!(text.starts_with("tmem: ") && text.contains(name), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn bad_flags_and_variables_are_125_and_named() {
    for (args, word) in [
        (&["--local", "lots", "--", "true"][..], "lots"),
        (&["--server", "nowhere", "--", "true"][..], "nowhere"),
        (
            &["--page-path", "fast", "--", "true"][..],
            "auto, move or copy",
        ),
        (
            &["--config", "/no/such.toml", "--", "true"][..],
            "/no/such.toml",
        ),
        (&["--no-such-flag", "--", "true"][..], "--no-such-flag"),
        (&[][..], "PROGRAM"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tmem"))
            .arg("run")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let output = tmem()
        .env("TMEM_PAGE_PATH", "fast")
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).starts_with("tmem: TMEM_PAGE_PATH=`fast` is not known"));
}

#[test]
fn an_unreachable_server_is_named_and_the_program_runs_only_where_that_is_asked_for() {
    let server = closed_port();
    let output = some_library(&mut tmem())
        .args(["--server", &server, "--", "sh", "-c", "exit 3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(
        text.contains(&format!("server {server} cannot be reached")),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    for flags in [&[][..], &["--strict"], &["--strict", "--unpaged-ok"]] {
        let output = some_library(&mut bare())
            .args(flags)
            .args(["--server", &server, "--", "sh", "-c", "echo ran"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125), "{flags:?}");
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(text.contains(&server), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let output = some_library(&mut bare())
        .env("TMEM_UNPAGED_OK", "1")
        .args(["--server", &server, "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_library_or_secret_stops_the_program_as_well() {
    for (name, value, word) in [
        ("TMEM_LIB", "/no/such/lib", "/no/such/lib"),
        ("TMEM_SECRET_FILE", "/no/such/secret", "/no/such/secret"),
    ] {
        let output = some_library(&mut bare())
            .env(name, value)
            .args(["--server", &closed_port(), "--", "echo", "ran"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(output.stdout.is_empty());
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn a_server_that_answers_with_garbage_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let garbage = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[b'x'; 4096]).unwrap();
        let mut rest = Vec::new();
        // The other side may cut the connection; only its end matters.
        let _ = stream.read_to_end(&mut rest);
    });
    let output = some_library(&mut tmem())
        .args(["--server", &server, "--", "true"])
        .output()
        .unwrap();
    garbage.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = stderr(&output);
    assert!(
        text.contains(&format!("server {server} is not a tmem memory server")),
        "{text}"
    );
}
