//! Debuggers see all memory of a paged program, also what is elsewhere.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use tmem_tests::cc::program_with;
use tmem_tests::{MIB, Outcome, Run, Running, artefacts, process, software};

/// MiB of the program, and how much of it stays.
const SIZE: u64 = 64;
const LOCAL: u64 = SIZE / 10 * MIB + 2 * MIB;
/// Values that are printed.
const VALUES: u64 = 200;

/// What a debugger is told to do once the program waits. Each line that counts begins with a
/// `>`.
fn commands(pages: u64, before: &str) -> String {
    let mut text = format!("set confirm off\nset pagination off\n{before}");
    for n in 0..VALUES {
        let word = n * (pages / VALUES) * 512 + n;
        writeln!(text, "printf \"> %lu\\n\", base[{word}]").unwrap();
    }
    text += "set var base[5] = 4711\nprintf \"> %lu\\n\", base[5]\n";
    text += &format!("printf \"> %lu\\n\", sum_of(0, {pages})\n");
    text += "set var go = 1\nbreak stop_here\ncontinue\nprintf \"> page %lu\\n\", page\n";
    text += "continue\nprintf \"> page %lu\\n\", page\nup\nprintf \"> of %lu\\n\", pages\n";
    text += "delete\ncontinue\n";
    text
}

/// What a debugger does before, where it starts the program.
const START: &str = "set startup-with-shell off\ntbreak usleep\nrun\n";

fn script(folder: &Path, before: &str) -> PathBuf {
    let script = folder.join("commands");
    std::fs::write(&script, commands(SIZE * MIB / 4096, before)).unwrap();
    script
}

fn told(outcome: &Outcome) -> Vec<String> {
    let stdout = outcome.stdout();
    let lines = stdout.lines().filter(|line| line.starts_with('>'));
    lines.map(str::to_owned).collect()
}

fn debugged() -> PathBuf {
    program_with("debugged", &["-g"])
}

/// The program on its own.
fn program(tmem: bool) -> Run {
    let run = Run::new(debugged()).args([SIZE.to_string()]);
    if tmem { run.local(LOCAL) } else { run }
}

/// A debugger that sees what is elsewhere, or one as it is.
fn debugger(name: &str, tmem: bool) -> Run {
    let path = software::find(name, "gdb");
    let run = match tmem {
        true => Run::new(artefacts::tmem())
            .args(["debug", "--"])
            .args([path]),
        false => Run::new(path),
    };
    run.env("DEBUGINFOD_URLS", "")
}

/// A program that waits to be looked at; it, and its process.
fn waiting(run: &Run, tmem: bool) -> (Running, i32) {
    let mut running = run.spawn();
    running.wait_until("a line", |running| running.stdout_so_far().contains(&b'\n'));
    let pid = match tmem {
        true => process::in_tree(running.pid(), "debugged").expect("the program runs"),
        false => running.pid(),
    };
    (running, pid)
}

#[test]
fn a_debugger_that_is_attached_sees_all_memory() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), "");
    let [native, paged] = [false, true].map(|tmem| {
        let (running, pid) = waiting(&program(tmem), tmem);
        let gdb = debugger("gdb", tmem).args(["-batch", "-nx", "-p", &pid.to_string(), "-x"]);
        let outcome = gdb.args([&script]).run().ok();
        let ended = running.wait().ok();
        assert!(ended.stdout().ends_with("right\n"), "{}", ended.describe());
        if tmem {
            assert!(ended.figures().evicted_pages > 0, "{}", ended.describe());
        }
        let told = told(&outcome);
        assert!(told.len() > VALUES as usize, "{}", outcome.describe());
        told
    });
    assert_eq!(native, paged);
}

#[test]
fn a_debugger_that_starts_a_program_sees_all_memory() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), START);
    let [native, paged] = [false, true].map(|tmem| {
        let gdb = Run::new(software::find("gdb", "gdb")).env("DEBUGINFOD_URLS", "");
        let gdb = gdb.args(["-batch", "-nx", "-x"]).args([&script]);
        let gdb = gdb
            .args(["--args"])
            .args([debugged()])
            .args([SIZE.to_string()]);
        let outcome = if tmem { gdb.local(LOCAL) } else { gdb }.run().ok();
        assert!(
            outcome.stdout().contains("\nright\n"),
            "{}",
            outcome.describe()
        );
        told(&outcome)
    });
    assert!(native.len() > VALUES as usize);
    assert_eq!(native, paged);
}

/// The bytes of `range` of a process's memory, as a core file has them.
fn in_core(core: &[u8], start: u64, len: usize) -> Option<&[u8]> {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap());
    let short = |at: usize| usize::from(u16::from_le_bytes([core[at], core[at + 1]]));
    let (headers, size, count) = (word(32) as usize, short(54), short(56));
    (0..count).find_map(|n| {
        let at = headers + n * size;
        let (offset, from, bytes) = (word(at + 8), word(at + 16), word(at + 32));
        let is_load = core[at..at + 4] == [1, 0, 0, 0];
        let holds = is_load && from <= start && start + len as u64 <= from + bytes;
        let first = (offset + start.wrapping_sub(from)) as usize;
        holds.then(|| &core[first..first + len])
    })
}

#[test]
fn a_core_that_a_debugger_writes_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let run = program(true).args([&copy]);
    let (running, pid) = waiting(&run, true);
    let core = folder.path().join("core");
    let gcore = debugger("gcore", true).args(["-o"]).args([&core]);
    let outcome = gcore.args([pid.to_string()]).run().ok();
    process::signal(pid, 9);
    let stdout = String::from_utf8(running.stdout_so_far()).unwrap();
    running.wait();
    let base = stdout.split(' ').next().unwrap().trim_start_matches("0x");
    let base = u64::from_str_radix(base, 16).unwrap();
    let core = std::fs::read(folder.path().join(format!("core.{pid}"))).unwrap();
    let copy = std::fs::read(&copy).unwrap();
    assert_eq!(copy.len() as u64, SIZE * MIB);
    let found = in_core(&core, base, copy.len());
    // Not by `assert_eq`, which would print both.
    assert!(found == Some(&copy[..]), "{}", outcome.describe());
}
