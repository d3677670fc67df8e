//! The daemon: its flags, its file, its first line, its end, its memory.

use crate::client::{Asks, Client, connect, page, pages, until};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tmem_wire::{Op, SessionId, Status};

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem-memserver"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) addr: SocketAddr,
    line: String,
}

impl Daemon {
    fn start(args: &[&str]) -> Daemon {
        let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let words = line.split_whitespace();
        let addr = words.filter_map(|w| w.parse().ok()).next();
        let addr = addr.unwrap_or_else(|| panic!("no address in {line:?}"));
        child.stdout = Some(stdout.into_inner());
        Daemon { child, addr, line }
    }

    pub(crate) fn on_free_port(args: &[&str]) -> Daemon {
        Daemon::start(&[&["--listen", "127.0.0.1:0"], args].concat())
    }

    /// The line that says that it is ready.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain call about a child of this process.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// A file of the kernel's about it.
    pub(crate) fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// What is in its memory that can be written; `None` for who may not look.
    pub(crate) fn memory(&self) -> Option<Vec<Vec<u8>>> {
        use std::os::unix::fs::FileExt;
        let open = |file| std::fs::File::open(format!("/proc/{}/{file}", self.child.id()));
        let memory = open("mem").ok()?;
        let mut maps = String::new();
        open("maps").ok()?.read_to_string(&mut maps).ok()?;
        let region = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let mut bytes = vec![0; (end - start) as usize];
            let all = rest.starts_with("rw") && memory.read_exact_at(&mut bytes, start).is_ok();
            all.then_some(bytes)
        };
        Some(maps.lines().filter_map(region).collect())
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fails(args: &[&str]) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(args).output().unwrap();
    assert!(stdout.is_empty());
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    // Whatever the mask of whoever runs this.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn it_says_where_it_listens_and_ends_when_told_to() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut daemon = Daemon::on_free_port(&["--capacity", "64M"]);
        assert!(
            daemon.line.contains("ready") && daemon.addr.port() != 0,
            "{}",
            daemon.line
        );
        let mut c = Client::new(daemon.addr);
        c.grant(1);
        let mut silent = connect(daemon.addr);
        // A terminal that is closed ends nobody's memory.
        daemon.signal(libc::SIGHUP);
        c.ping();
        daemon.signal(signal);
        assert!(c.is_told_of_the_end());
        // One that was not taken yet is not told.
        if let Ok((bye, _)) = crate::client::receive(&mut silent) {
            assert_eq!((bye.op, bye.status), (Op::Bye, Status::ShuttingDown));
            assert!(crate::client::ended(&mut silent));
        }
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        daemon
            .child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(rest, "", "one line only");
    }
}

#[test]
fn memory_that_is_given_back_goes_back_to_the_kernel() {
    const MIB: u64 = 1 << 20;
    let daemon = Daemon::on_free_port(&["--capacity", "256M", "--slab-size", "4M", "--grace", "0"]);
    let before = daemon.resident();
    let fill = |c: &mut Client| {
        let slabs = c.grant(16);
        assert_eq!(slabs.len(), 16);
        let some = pages(0..512);
        for slab in &slabs {
            c.write(*slab, 0, &some);
            c.write(*slab, 512, &some);
        }
        slabs
    };
    let mut c = Client::new(daemon.addr);
    assert!(
        daemon.resident() < before + 4 * MIB,
        "granted memory is populated when written"
    );
    let slabs = fill(&mut c);
    assert!(daemon.resident() > before + 60 * MIB);
    for slab in &slabs {
        c.discard(*slab, 0, 512);
        c.discard(*slab, 512, 500);
    }
    assert_eq!(c.stats().stored_pages, 16 * 12);
    assert!(daemon.resident() < before + 8 * MIB, "after DISCARD");
    // Reading what is not there takes nothing either.
    slabs.iter().for_each(|slab| drop(c.read(*slab, 0, 512)));
    assert!(daemon.resident() < before + 8 * MIB, "after READ");
    c.release(&slabs);
    let slabs = fill(&mut c);
    assert!(daemon.resident() > before + 60 * MIB);
    c.release(&slabs);
    assert!(daemon.resident() < before + 8 * MIB, "after RELEASE");
    fill(&mut c);
    c.bye();
    assert!(daemon.resident() < before + 8 * MIB, "after BYE");
    let mut c = Client::new(daemon.addr);
    fill(&mut c);
    drop(c);
    until("freed", || daemon.resident() < before + 8 * MIB);
}

#[test]
fn memory_does_not_grow_with_requests_connections_or_children() {
    let daemon = Daemon::on_free_port(&["--capacity", "64M", "--slab-size", "1M"]);
    let round = || {
        let mut c = Client::new(daemon.addr);
        let slab = c.grant(1)[0];
        for n in 0..1000 {
            c.write(slab, n % 256, &page(n.into()));
            c.read(slab, 0, 256);
            c.discard(slab, n % 256, 1);
            let more = c.grant(2);
            c.release(&more);
            c.stats();
        }
        for _ in 0..20 {
            let child = c.share();
            Client::join(daemon.addr, child, 0).bye();
        }
        c.bye();
    };
    round();
    let before = daemon.resident();
    for _ in 0..4 {
        round();
    }
    let after = daemon.resident();
    assert!(after < before + (2 << 20), "{before} grew to {after}");
}

#[test]
fn bad_flags_are_named() {
    for (args, word) in [
        (&["--capacity", "lots"][..], "lots"),
        (&["--slab-size", "101%"], "101%"),
        (&["--log", "loud"], "error, warn, info or debug"),
        (&["--grace", "soon"], "--grace"),
        (&["--max-connections", "many"], "many"),
        (&["--rdma", "node1"], "--rdma"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["stray"], "stray"),
    ] {
        let (status, text) = fails(args);
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(word), "{text}");
    }
    for (args, words) in [
        (&["--capacity", "4095"][..], "holds no page"),
        (
            &["--capacity", "1G", "--slab-size", "5000"],
            "multiple of 4K",
        ),
        (&["--slab-size", "2G"], "at most 1G"),
        (&["--max-connections", "0"], "at least 1"),
        (&["--max-per-client", "0"], "at least 1"),
        (&["--listen", "nonsense"], "`nonsense`"),
        (&["--listen", "127.0.0.1"], "HOST:PORT"),
        (&["--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["--secret-file", "/no/such/file"], "/no/such/file"),
        (&["--config", "/no/such.toml"], "/no/such.toml"),
    ] {
        let (status, text) = fails(args);
        assert_eq!(status, 2, "{text}");
        assert!(text.contains(words), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let (status, text) = fails(&["--capacity", "16000000T", "--log", "error"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("give less"), "{text}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (status, text) = fails(&["--listen", &addr]);
    assert_eq!(status, 1);
    assert!(
        text.contains(&addr) && text.contains("another port"),
        "{text}"
    );
}

#[test]
fn the_file_is_read_and_flags_win_over_it() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("key"), "a secret of tests\n");
    let file = write(
        &folder.path().join("server.toml"),
        "listen = \"127.0.0.1:0\"\ncapacity = \"8M\"\nslab-size = 1048576\n\
         secret-file = \"key\"\ngrace = 3\nmax-connections = 9\nmax-per-client = 5\nlog = \"error\"\n",
    );
    let greet = |addr| Client::greet(addr, SessionId::NEW, 0, Some(b"a secret of tests"));
    let daemon = Daemon::start(&["--config", &file]);
    let c = greet(daemon.addr).unwrap();
    assert_eq!((c.hello.capacity_pages, c.hello.slab_pages), (2048, 256));
    let refused = Client::greet(daemon.addr, SessionId::NEW, 0, None);
    assert_eq!(refused.unwrap_err(), Status::Auth);
    let other = write(&folder.path().join("other"), "another secret of tests");
    let daemon = Daemon::start(&[
        "--config",
        &file,
        "--capacity",
        "4M",
        "--slab-size",
        "64K",
        "--secret-file",
        &other,
    ]);
    assert_eq!(greet(daemon.addr).unwrap_err(), Status::Auth);
    let c = Client::greet(
        daemon.addr,
        SessionId::NEW,
        0,
        Some(b"another secret of tests"),
    )
    .unwrap();
    assert_eq!((c.hello.capacity_pages, c.hello.slab_pages), (1024, 16));
}

#[test]
fn a_malformed_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("\ncapacity = \"lots\"", "line 2: `lots` is not a size"),
        ("capacity = true", "line 1: "),
        ("capacity = -1", "line 1: "),
        ("\n\ncapacty = 1", "line 3: unknown field `capacty`"),
        ("log = \"loud\"", "error, warn, info or debug"),
        ("grace = \"soon\"", "line 1: "),
        ("listen = 7070", "line 1: "),
        ("rdma = \"node1\"", "line 1: "),
        ("a = = b", "line 1: "),
        ("\0", "line 1: "),
        ("secret-file = \"none\"", "none: No such file"),
    ] {
        let file = write(&folder.path().join("server.toml"), text);
        let (status, message) = fails(&["--config", &file]);
        assert_eq!(status, 2, "{message}");
        assert!(message.contains(words), "{message}");
        assert!(
            message.contains(folder.path().to_str().unwrap()),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let file = folder.path().join("server.toml");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(
        fails(&["--config", file.to_str().unwrap()])
            .1
            .contains("server.toml")
    );
}

#[test]
fn secret_files_that_protect_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (n, (secret, mode, words)) in [
        ("\n", 0o600, "it is empty"),
        ("fifteen bytes..", 0o600, "`tmem keygen FILE`"),
        ("a secret of tests", 0o622, "`chmod go-w`"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(n.to_string());
        let file = write(&path, secret);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let (status, text) = fails(&["--listen", "127.0.0.1:0", "--secret-file", &file]);
        assert_eq!(status, 2);
        assert!(text.contains(words), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn more_capacity_than_there_is_memory_is_possible_and_said() {
    let mut child = command(&["--listen", "127.0.0.1:0", "--capacity", "8T"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("ready"), "{line}");
    child.kill().unwrap();
    let text = child.wait_with_output().unwrap().stderr;
    assert!(
        String::from_utf8(text)
            .unwrap()
            .contains("more than this machine's")
    );
}

#[test]
fn a_listener_for_others_without_a_secret_is_said() {
    let mut child = command(&["--listen", "0.0.0.0:0", "--capacity", "1M"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    let text = child.wait_with_output().unwrap().stderr;
    assert!(String::from_utf8(text).unwrap().contains("give a secret"));
}

/// Where there is a device, `tests/rdma.rs` has more to say.
#[test]
fn rdma_without_a_device_is_one_clear_error() {
    if std::fs::read_dir("/sys/class/infiniband").is_ok_and(|d| d.count() > 0) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        &folder.path().join("server.toml"),
        "listen = \"127.0.0.1:0\"\nrdma = \"10.77.0.1:0\"\n",
    );
    for args in [
        &["--listen", "127.0.0.1:0", "--rdma", "10.77.0.1:0"][..],
        &["--config", &file],
    ] {
        let (status, text) = fails(args);
        assert_eq!(status, 1, "{text}");
        assert!(text.contains("RDMA"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
