//! What becomes of programs when `tmem run` ends before them.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};
use tmem_tests::cc::{program, program_with};
use tmem_tests::process::{self, End};
use tmem_tests::{MIB, MemServer, Run, Running};

/// Long enough for everybody, and no measure of anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_there(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name; who has ended may wait for its parent.
    let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
    state.is_some_and(|state| !"ZX".contains(state))
}

fn ends(pid: i32) -> bool {
    let start = Instant::now();
    while is_there(pid) {
        if start.elapsed() > PATIENCE {
            process::signal(pid, libc::SIGKILL);
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// A shell with a program in the background that has filled its memory.
fn family(mib: u32) -> Run {
    let fill = program("fill").display().to_string();
    let script = format!("{fill} {mib} pause 1 1 < /dev/zero & {fill} {mib} pause 1 1; wait");
    Run::new("/bin/sh").args(["-c", &script]).stdin_pipe()
}

/// Starts a run, and waits until all of its `count` programs have filled their memory: one
/// that is about to start when `tmem run` is killed would run on its own.
fn filled(run: &Run, count: usize) -> (Running, Vec<i32>) {
    let mut running = run.spawn();
    running.wait_for_lines("filled", count);
    // The first is `tmem` itself.
    let programs = process::tree(running.pid()).split_off(1);
    (running, programs)
}

#[test]
fn all_programs_end_with_a_tmem_that_is_killed() {
    let server = MemServer::roomy();
    for run in [
        // Paged by an embedded server and by another, and not paged yet.
        family(64).local(48 * MIB),
        family(64).local(48 * MIB).servers([server.address()]),
        family(4).local(256 * MIB).servers([server.address()]),
    ] {
        let (running, programs) = filled(&run, 2);
        assert!(programs.len() >= 2, "{programs:?}");
        process::signal(running.pid(), libc::SIGKILL);
        for pid in programs {
            assert!(ends(pid), "{pid} goes on");
        }
        assert_eq!(running.wait().end, End::Signal(libc::SIGKILL));
    }
}

#[test]
fn a_program_that_is_not_paged_ends_with_it_too() {
    let fixed = program_with("fill", &["-static"]);
    let run = Run::new(fixed).args(["4", "pause", "1", "1"]).stdin_pipe();
    let (running, programs) = filled(&run.local(64 * MIB), 1);
    process::signal(running.pid(), libc::SIGKILL);
    assert!(programs.into_iter().all(ends));
}

/// What is left running on purpose goes on, with its memory on the server.
#[test]
fn a_program_in_the_background_outlives_a_tmem_that_ended_in_the_usual_way() {
    let server = MemServer::roomy();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let at = |name: &str| folder.path().join(name);
    let (pipe, out) = (at("pipe"), at("out"));
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo is there").success());
    // Both ends, so that nobody waits for the other to open it.
    let both = File::options().read(true).write(true).open(&pipe);
    let mut pipe_in = both.expect("it was made");
    let fill = program("fill").display().to_string();
    let script = format!(
        "setsid sh -c '{fill} 64 pause 1 1; {fill} 64 seq 1 1' < {} > {out} 2>&1 & \
         until grep -q filled {out}; do sleep 0.05; done",
        pipe.display(),
        out = out.display(),
    );
    let run = Run::new("/bin/sh").args(["-c", &script]);
    run.local(48 * MIB).servers([server.address()]).run().ok();
    // Whoever would end the program looks once a second.
    std::thread::sleep(Duration::from_millis(2500));
    pipe_in.write_all(b"go\n").expect("there is room");
    let start = Instant::now();
    let sums = |text: &str| text.lines().filter(|line| line.len() == 16).count();
    loop {
        let text = std::fs::read_to_string(&out).expect("it is there");
        // The second was started when `tmem run` was gone.
        if sums(&text) == 2 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
