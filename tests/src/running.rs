//! A started program, and what came of it.

use crate::process::{self, End, Ended};
use crate::{Stats, dump};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twox_hash::XxHash3_128;

/// Where the streams and the figures of a run go.
pub(crate) struct Places(TempDir);

impl Places {
    /// A fresh folder; `open` lets other users write into it.
    pub(crate) fn new(open: bool) -> Places {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        if open {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))
                .expect("permissions of an own folder can be set");
        }
        Places(dir)
    }

    pub(crate) fn stdout(&self) -> PathBuf {
        self.0.path().join("stdout")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.0.path().join("stderr")
    }

    pub(crate) fn stats(&self) -> PathBuf {
        self.0.path().join("stats.json")
    }
}

/// A started program; it and its descendants are killed when dropped.
pub struct Running {
    pid: i32,
    stdin: Option<ChildStdin>,
    places: Places,
    started: Instant,
    time_limit: Duration,
    command: String,
    ended: Option<Ended>,
}

impl Running {
    pub(crate) fn new(
        mut child: Child,
        places: Places,
        time_limit: Duration,
        command: String,
    ) -> Running {
        Running {
            pid: child.id() as i32,
            stdin: child.stdin.take(),
            places,
            started: Instant::now(),
            time_limit,
            command,
            ended: None,
        }
    }

    /// The process started: the program, or `tmem` if it is run under that.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Writes a line to standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self
            .stdin
            .as_mut()
            .expect("the run has a pipe for its input");
        // A program that has ended already shows in its outcome.
        let _ = writeln!(stdin, "{line}");
    }

    /// What it wrote to standard output so far.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        fs::read(self.places.stdout()).expect("the output can be read")
    }

    /// What it wrote to standard error so far.
    pub fn stderr_so_far(&self) -> String {
        let bytes = fs::read(self.places.stderr()).expect("the output can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until standard output has the line `line`.
    pub fn wait_for_line(&mut self, line: &str) {
        self.wait_for_lines(line, 1);
    }

    /// Waits until `count` lines of the output are `line`, and fails when the run ends
    /// before.
    pub fn wait_for_lines(&mut self, line: &str, count: usize) {
        self.wait_until(&format!("output of {line:?}"), |running| {
            let out = running.stdout_so_far();
            let lines = out.split(|b| *b == b'\n');
            lines.filter(|l| *l == line.as_bytes()).count() >= count
        });
    }

    /// Waits until `wanted` is true, and fails when the run ends before.
    pub fn wait_until(&mut self, what: &str, mut wanted: impl FnMut(&Running) -> bool) {
        while !wanted(self) {
            if let Some(ended) = self.poll() {
                // It may have come to it in its last moment.
                if wanted(self) {
                    return;
                }
                let stderr = self.stderr_so_far();
                panic!("{ended:?} before {what}: {}\n{stderr}", self.command);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end. A run that takes too long is killed and fails the
    /// test with what its threads were doing.
    pub fn wait(mut self) -> Outcome {
        drop(self.stdin.take());
        let mut pause = Duration::from_micros(500);
        let ended = loop {
            if let Some(ended) = self.poll() {
                break ended;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let stats = fs::read_to_string(self.places.stats()).ok();
        Outcome {
            end: ended.end,
            max_rss: ended.max_rss,
            cpu: ended.cpu,
            seconds: self.started.elapsed().as_secs_f64(),
            stats: stats
                .filter(|text| !text.is_empty())
                .map(|text| Stats::parse(&text)),
            command: self.command.clone(),
            places: std::mem::replace(&mut self.places, Places::new(false)),
        }
    }

    fn poll(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = process::try_wait(self.pid);
        }
        if self.ended.is_none() && self.started.elapsed() > self.time_limit {
            let dump = dump::tree(self.pid);
            let stderr = self.stderr_so_far();
            panic!("hangs: {}\nstderr: {stderr}\n{dump}", self.command);
        }
        self.ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        for pid in process::tree(self.pid) {
            process::signal(pid, libc::SIGKILL);
        }
        while process::try_wait(self.pid).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What came of a run.
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The most resident memory of any of its processes, in bytes, as the
    /// kernel counted it.
    pub max_rss: u64,
    /// Processor time of all its processes, in seconds.
    pub cpu: f64,
    /// How long it took.
    pub seconds: f64,
    /// What `--stats-file` wrote, if it did.
    pub stats: Option<Stats>,
    command: String,
    places: Places,
}

impl Outcome {
    /// What it wrote to standard output.
    pub fn stdout(&self) -> String {
        let bytes = fs::read(self.places.stdout()).expect("the output can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it wrote to standard error, without the line that it waited for pages most of the
    /// time for ten seconds: whether a run says so depends on the machine's speed.
    pub fn stderr(&self) -> String {
        let text = self.whole_stderr();
        let lines = text.split_inclusive('\n');
        let is_about_waiting = |line: &&str| line.contains(" has waited for pages for ");
        lines.filter(|line| !is_about_waiting(line)).collect()
    }

    /// All that it wrote to standard error.
    pub fn whole_stderr(&self) -> String {
        let bytes = fs::read(self.places.stderr()).expect("the output can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Length and hash of standard output, which may be large.
    pub fn digest(&self) -> (u64, u128) {
        let mut file = fs::File::open(self.places.stdout()).expect("the output can be read");
        let mut hash = XxHash3_128::new();
        let mut buffer = vec![0; 1 << 16];
        let mut length = 0;
        loop {
            let n = file.read(&mut buffer).expect("the output can be read");
            if n == 0 {
                return (length, hash.finish_128());
            }
            hash.write(&buffer[..n]);
            length += n as u64;
        }
    }

    /// The lines of [`Outcome::stderr`] that are tmem's.
    pub fn messages(&self) -> Vec<String> {
        let text = self.stderr();
        text.lines()
            .filter(|line| line.starts_with("tmem:"))
            .map(str::to_owned)
            .collect()
    }

    /// The figures; a failed test if none were written.
    pub fn figures(&self) -> &Stats {
        self.stats
            .as_ref()
            .unwrap_or_else(|| panic!("no figures: {}", self.describe()))
    }

    /// Fails the test unless it left with status 0.
    pub fn ok(self) -> Outcome {
        assert_eq!(self.end, End::Exit(0), "{}", self.describe());
        self
    }

    /// Everything worth knowing when a test fails.
    pub fn describe(&self) -> String {
        format!(
            "{}\n  ended {:?} after {:.1} s, max_rss {}\n  stderr: {}\n  figures: {:?}",
            self.command,
            self.end,
            self.seconds,
            self.max_rss,
            self.whole_stderr(),
            self.stats
        )
    }
}
