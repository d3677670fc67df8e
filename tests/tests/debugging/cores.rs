//! Core files: those that a debugger writes are complete; of those that the kernel writes,
//! the user is told what they lack.

use crate::{LOCAL, PAGES, SIZE, debugger, program, tool, waiting};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tmem_tests::{MIB, Outcome, Run, process};

/// The bytes from `start` on of a process's memory, as a core file has them.
fn in_core(core: &[u8], start: u64, len: usize) -> Vec<u8> {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().expect("eight bytes"));
    let short = |at: usize| usize::from(u16::from_le_bytes([core[at], core[at + 1]]));
    let (headers, size, count) = (word(32) as usize, short(54), short(56));
    let mut found = vec![];
    // Segments are in the order of their addresses.
    for at in (0..count).map(|n| headers + n * size) {
        let next = start + found.len() as u64;
        let (offset, from, bytes) = (word(at + 8), word(at + 16), word(at + 32));
        let is_load = core[at..at + 4] == [1, 0, 0, 0];
        if is_load && (from..from + bytes).contains(&next) {
            let n = (from + bytes - next).min((len - found.len()) as u64);
            let first = (offset + next - from) as usize;
            found.extend_from_slice(&core[first..first + n as usize]);
        }
    }
    found
}

/// Where the program has said that its memory is.
fn base(stdout: &str) -> u64 {
    let base = stdout
        .split(' ')
        .next()
        .expect("a word")
        .trim_start_matches("0x");
    u64::from_str_radix(base, 16).expect("an address")
}

/// Has a debugger write a core of a program that waits, and compares it with the copy that
/// the program has written itself.
fn written_by_a_debugger(write: impl FnOnce(&Path, i32) -> (Outcome, PathBuf)) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = folder.path().join("copy");
    let run = program(true, "wait").args([&copy]);
    let (running, pid) = waiting(&run, true);
    let (outcome, core) = write(folder.path(), pid);
    process::signal(pid, libc::SIGKILL);
    let base = base(&String::from_utf8(running.stdout_so_far()).expect("text"));
    let ended = running.wait();
    assert!(ended.figures().evicted_pages > 0, "{}", ended.describe());
    let core = fs::read(core).expect("the core can be read");
    let copy = fs::read(&copy).expect("the copy can be read");
    assert_eq!(copy.len() as u64, SIZE * MIB);
    let found = in_core(&core, base, copy.len());
    // Not by `assert_eq`, which would print both.
    assert!(found == copy, "{}", outcome.describe());
}

#[test]
fn a_core_of_gcore_is_complete() {
    let Some(gcore) = tool("gcore", "gdb") else {
        return;
    };
    written_by_a_debugger(|folder, pid| {
        let core = folder.join("core");
        let run = debugger(&gcore, true).args(["-o"]).args([&core]);
        let outcome = run.args([pid.to_string()]).run().ok();
        (outcome, folder.join(format!("core.{pid}")))
    });
}

#[test]
fn a_core_of_gdb_is_complete() {
    let Some(gdb) = tool("gdb", "gdb") else {
        return;
    };
    written_by_a_debugger(|folder, pid| {
        let core = folder.join("written");
        let command = format!("generate-core-file {}", core.display());
        let run = debugger(&gdb, true).args(["-batch", "-nx", "-p", &pid.to_string()]);
        (run.args(["-ex", &command]).run().ok(), core)
    });
}

/// Runs a program that crashes in `folder`, where the kernel puts its core.
fn crashed(folder: &Path, run: Run) -> Outcome {
    let folder = folder.to_str().expect("a path in plain letters");
    let outcome = run.wrapper(["env", "-C", folder]).run();
    let end = process::End::Signal(libc::SIGABRT).as_run_tells();
    assert_eq!(outcome.end, end, "{}", outcome.describe());
    outcome
}

/// The lines about cores.
fn lines(outcome: &Outcome) -> Vec<String> {
    let all = outcome.messages();
    all.into_iter().filter(|l| l.contains(" core ")).collect()
}

/// The number of pages that a line says are missing.
fn missing(line: &str) -> u64 {
    let (_, rest) = line.split_once(" lacks up to ").expect(line);
    rest.split(' ').next().expect(line).parse().expect(line)
}

/// Whether the kernel writes cores into the working directory, of as many bytes as it likes.
fn writes_cores_here() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("/proc is there");
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: room for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
    let here = !pattern.contains(['|', '/']) && limit.rlim_max == libc::RLIM_INFINITY;
    if !here {
        eprintln!("skipped: the kernel writes no cores here (core_pattern, ulimit -H -c)");
    }
    here
}

#[test]
fn what_a_core_of_the_kernel_lacks_is_said_once() {
    if !writes_cores_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = folder.path().join("copy");
    let outcome = crashed(folder.path(), program(true, "crash").args([&copy]));
    let lines = lines(&outcome);
    assert_eq!(lines.len(), 1, "{}", outcome.describe());
    let entries = fs::read_dir(folder.path()).expect("the folder is there");
    let core = entries.map(|entry| entry.expect("an entry").path());
    let core = core.into_iter().find(|path| *path != copy).expect("a core");
    let (core, copy) = (
        fs::read(core).expect("the core can be read"),
        fs::read(&copy).expect("the copy can be read"),
    );
    let found = in_core(&core, base(&outcome.stdout()), copy.len());
    assert_eq!(found.len(), copy.len());
    let mut absent = 0;
    for (found, copy) in found.chunks(4096).zip(copy.chunks(4096)) {
        match found.iter().all(|b| *b == 0) {
            true => absent += 1,
            false => assert!(found == copy, "a page of the core is wrong"),
        }
    }
    assert!(absent > 0);
    // Some leave while the kernel writes, and the heap may be elsewhere as well.
    let said = missing(&lines[0]);
    let most = absent + PAGES / 8;
    assert!((absent..most).contains(&said), "{said} {absent}");
}

#[test]
fn nothing_is_said_where_there_is_no_core_or_nothing_elsewhere() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let none = crashed(folder.path(), program(true, "crash").env("NO_CORE", "1"));
    assert_eq!(lines(&none), [""; 0]);
    let fits = crashed(folder.path(), program(false, "crash").local(4 * SIZE * MIB));
    assert_eq!(lines(&fits), [""; 0]);
}

#[test]
fn a_program_that_something_else_starts_has_the_line_as_well() {
    if !writes_cores_here() {
        return;
    }
    let server = tmem_tests::MemServer::spawn(256 * MIB);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let run = program(false, "crash").preload();
    let run = run.env("TMEM_LOCAL", LOCAL.to_string());
    let run = run.env("TMEM_SERVERS", server.address().to_string());
    // A shell waits for the program, as one at a terminal does.
    let shell = "cd \"$1\" && shift && \"$@\"; sleep 1; exit 0";
    let folder = folder.path().to_str().expect("a path in plain letters");
    let run = run.wrapper(["sh", "-c", shell, "sh", folder]);
    let mut running = run.time_limit(Duration::from_secs(60)).spawn();
    running.wait_until("a line about the core", |running| {
        running.stderr_so_far().contains(" lacks ")
    });
    let outcome = running.wait().ok();
    assert_eq!(lines(&outcome).len(), 1, "{}", outcome.describe());
}
