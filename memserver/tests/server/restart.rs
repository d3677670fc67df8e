//! A daemon that is killed, or ended, and started again where its files are.

use crate::client::{Asks, Client, page, pages, run, until};
use crate::daemon::{Daemon, fails};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tmem_wire::{Op, SessionId, Status};

/// A folder on a tmpfs that is gone with this.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    /// One that is not there yet.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub(crate) fn arg(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn daemon(&self, listen: &str, more: &[&str]) -> Daemon {
        let folder = self.arg();
        let args = ["--listen", listen, "--backing", &folder];
        let sizes = ["--capacity", "64M", "--slab-size", "256K"];
        Daemon::start(&[&args[..], &sizes, more].concat())
    }

    fn fails(&self, more: &[&str]) -> String {
        let folder = self.arg();
        let args = ["--listen", "127.0.0.1:0", "--backing", &folder];
        let (status, text) = fails(&[&args[..], more].concat());
        assert_eq!(status, 1, "{text}");
        text
    }
}

fn again(folder: &Folder, addr: SocketAddr) -> Daemon {
    folder.daemon(&addr.to_string(), &[])
}

pub(crate) const ANY: &str = "127.0.0.1:0";

/// Joins a session that was there before, on a new connection.
pub(crate) fn rejoin(addr: SocketAddr, session: SessionId) -> Client {
    Client::join(addr, session, 1)
}

#[test]
fn a_daemon_that_was_killed_goes_on_with_all_that_clients_had() {
    let folder = Folder::new();
    let mut daemon = folder.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    let instance = c.hello.instance;
    let slabs = c.grant(3);
    c.write(slabs[0], 0, &pages(0..64));
    c.write(slabs[2], 5, &page(99));
    c.discard(slabs[0], 10, 5);
    c.release(&[slabs[1]]);
    // What nobody has joined is there, too.
    let child = c.share();
    let session = c.session();
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let start = Instant::now();
    let mut daemon = again(&folder, daemon.addr);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut c = rejoin(daemon.addr, session);
    assert_eq!(c.hello.instance, instance);
    let mut child = rejoin(daemon.addr, child);
    for client in [&mut c, &mut child] {
        for n in 0..64 {
            let there = client.read(slabs[0], n, 1);
            let discarded = (10..15).contains(&n);
            let was = if discarded {
                vec![0; 4096]
            } else {
                page(n.into())
            };
            assert!(there == was, "page {n}");
        }
        assert!(client.read(slabs[2], 5, 1) == page(99));
        let released = client.ask(run(Op::Read, slabs[1], 0, 1), &[]);
        assert_eq!(released.0, Status::NoSuchSlab);
        // Shared as it was.
        let write = client.ask(run(Op::Write, slabs[0], 0, 1), &page(1));
        assert_eq!(write.0, Status::Shared);
    }
    let stats = c.stats();
    assert_eq!((stats.sessions, stats.stored_pages), (2, 60));
    assert_eq!(stats.granted_pages, 2 * 64);
    child.bye();
    c.write(slabs[0], 0, &page(7));
    // Numbers go on where they were.
    assert_eq!(c.grant(1), [3]);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let daemon = again(&folder, daemon.addr);
    let mut c = rejoin(daemon.addr, session);
    assert!(c.read(slabs[0], 0, 1) == page(7));
    assert!(c.read(3, 0, 1) == vec![0; 4096]);
    assert_eq!(c.stats().sessions, 1);
    c.bye();
    until("freed", || {
        Client::new(daemon.addr).stats().granted_pages == 0
    });
}

#[test]
fn what_is_killed_amid_writes_has_all_that_it_answered_and_hurts_nobody() {
    let folder = Folder::new();
    let mut daemon = folder.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    let session = c.session();
    let mut wrote = 0;
    for round in 0..6 {
        // Pages come and are answered until the daemon is killed.
        let pid = daemon.pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5 + round * 7));
            // SAFETY: a plain call about a child of this process, which is not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        });
        let mut answered = Vec::new();
        loop {
            wrote += 1;
            let at = (wrote % 63) as u32;
            let both = pages([wrote, wrote + 1]);
            if c.try_ask(run(Op::Write, slab, at, 2), &both).is_err() {
                break;
            }
            answered.retain(|(page, _)| *page != at && *page != at + 1);
            answered.extend([(at, wrote), (at + 1, wrote + 1)]);
        }
        killer.join().unwrap();
        daemon.wait();
        let unanswered = [(wrote % 63) as u32, (wrote % 63) as u32 + 1];
        daemon = again(&folder, daemon.addr);
        c = rejoin(daemon.addr, session);
        answered.retain(|(page, _)| !unanswered.contains(page));
        for (at, seed) in answered {
            assert!(
                c.read(slab, at, 1) == page(seed),
                "page {at} of round {round}"
            );
        }
    }
}

#[test]
fn sessions_that_no_client_takes_up_again_are_freed() {
    let folder = Folder::new();
    let mut daemon = folder.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    c.grant(4);
    let session = c.session();
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let daemon = folder.daemon(ANY, &["--grace", "1"]);
    let mut other = Client::new(daemon.addr);
    assert_eq!(other.stats().sessions, 2);
    until("freed", || other.stats().granted_pages == 0);
    let gone = Client::greet(daemon.addr, session, 1, None).unwrap_err();
    assert_eq!(gone, Status::NoSession);
}

#[test]
fn sigterm_keeps_what_clients_have_and_sigint_does_not() {
    let folder = Folder::new();
    let mut daemon = folder.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(5));
    let session = c.session();
    daemon.signal(libc::SIGTERM);
    // It is not told that anything is gone.
    assert!(c.is_ended());
    assert_eq!(daemon.wait(), Some(0));
    let mut daemon = again(&folder, daemon.addr);
    let mut c = rejoin(daemon.addr, session);
    assert!(c.read(slab, 0, 1) == page(5));
    daemon.signal(libc::SIGINT);
    assert!(c.is_told_of_the_end());
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let daemon = again(&folder, daemon.addr);
    let gone = Client::greet(daemon.addr, session, 1, None).unwrap_err();
    assert_eq!(gone, Status::NoSession);
}

#[test]
fn a_folder_is_for_one_server_and_its_owner() {
    let folder = Folder::new();
    let daemon = folder.daemon(ANY, &[]);
    let text = folder.fails(&[]);
    assert!(text.contains("in use by another server"), "{text}");
    drop(daemon);
    for file in ["table", "bits", "pages"] {
        let about = fs::metadata(folder.path().join(file)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let about = fs::metadata(folder.path()).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o700);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
    let text = folder.fails(&[]);
    assert!(text.contains("chmod 700"), "{text}");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let other = format!("/proc/{}", std::process::id());
    let (_, text) = fails(&["--listen", ANY, "--backing", &other]);
    assert!(text.contains("not on a tmpfs"), "{text}");
}

#[test]
fn hostile_contents_of_a_folder_are_refused() {
    let of = |put: &dyn Fn(&Path)| {
        let folder = Folder::new();
        fs::create_dir(folder.path()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        put(&folder.path());
        folder.fails(&[])
    };
    let text = of(&|path| symlink("/etc/hostname", path.join("pages")).unwrap());
    assert!(text.contains("`pages` that is a symbolic link"), "{text}");
    let text = of(&|path| fs::create_dir(path.join("bits")).unwrap());
    assert!(text.contains("`bits` that cannot be opened"), "{text}");
    let text = of(&|path| {
        fs::write(path.join("table"), b"").unwrap();
        fs::set_permissions(path.join("table"), Permissions::from_mode(0o644)).unwrap();
    });
    assert!(text.contains("`table` that others may open"), "{text}");
    let text = of(&|path| {
        fs::write(path.join("table"), b"").unwrap();
        fs::set_permissions(path.join("table"), Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(path.join("table"), path.join("other")).unwrap();
    });
    assert!(text.contains("`table` that has another name too"), "{text}");
    let text = of(&|path| {
        let file = path.join("table");
        fs::write(&file, b"not what it should be").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    });
    assert!(text.contains("not a session table"), "{text}");
    // A link in place of the folder.
    let folder = Folder::new();
    symlink("/dev/shm", folder.path()).unwrap();
    let text = folder.fails(&[]);
    assert!(text.contains("cannot be opened"), "{text}");
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } == 0 {
        let text = of(&|path| std::os::unix::fs::chown(path, Some(65534), None).unwrap());
        assert!(
            text.contains("belongs to another user (uid 65534)"),
            "{text}"
        );
    }
}

#[test]
fn files_of_a_server_with_other_sizes_are_refused() {
    let folder = Folder::new();
    let mut daemon = folder.daemon(ANY, &[]);
    Client::new(daemon.addr).grant(8);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let text = folder.fails(&["--capacity", "8M", "--slab-size", "512K"]);
    assert!(text.contains("give --slab-size 262144"), "{text}");
    let text = folder.fails(&["--capacity", "1M", "--slab-size", "256K"]);
    assert!(text.contains("--capacity of 2097152 bytes"), "{text}");
    let table = folder.path().join("table");
    let mut bytes = fs::read(&table).unwrap();
    bytes[8200] ^= 1;
    fs::write(&table, &bytes).unwrap();
    let text = folder.fails(&["--capacity", "8M", "--slab-size", "256K"]);
    assert!(text.contains("damaged at byte"), "{text}");
}

#[test]
fn a_folder_holds_no_name_by_which_a_session_can_be_joined() {
    let folder = Folder::new();
    let daemon = folder.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    c.grant(1);
    let child = c.share();
    for file in ["table", "bits", "pages"] {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        for id in [c.session().0, child.0] {
            assert!(!bytes.windows(16).any(|window| window == id), "{file}");
        }
    }
}

/// A tmpfs of a few MiB; `None` for who may not mount one.
struct Small(Folder);

impl Small {
    fn new() -> Option<Small> {
        let folder = Folder::new();
        fs::create_dir(folder.path()).unwrap();
        let path = std::ffi::CString::new(folder.arg()).unwrap();
        let (kind, options) = (c"tmpfs", c"size=4m,mode=700");
        // SAFETY: all are strings.
        let mounted = unsafe {
            let options = options.as_ptr().cast();
            libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options)
        };
        (mounted == 0).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.arg()).unwrap();
        // SAFETY: a string.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_folder_that_is_full_refuses_pages_and_the_daemon_goes_on() {
    let Some(small) = Small::new() else {
        eprintln!("only root can mount a small tmpfs");
        return;
    };
    let mut daemon = small.0.daemon(ANY, &[]);
    let mut c = Client::new(daemon.addr);
    let mut slabs = c.grant(1);
    let (mut stored, mut seed) = (Vec::new(), 0);
    let refused = 'full: loop {
        for slab in &slabs {
            for at in 0..64 {
                seed += 1;
                let (status, _) = c.ask(run(Op::Write, *slab, at, 1), &page(seed));
                match status {
                    Status::Ok => stored.push((*slab, at, seed)),
                    status => break 'full status,
                }
            }
        }
        match c.ask(run(Op::Grant, 0, 0, 1), &[]) {
            (Status::Ok, list) => slabs = tmem_wire::decode_slab_list(&list).unwrap(),
            (status, _) => break status,
        }
    };
    assert_eq!(refused, Status::Full);
    assert!(stored.len() > 500, "{} pages", stored.len());
    let all_there = |c: &mut Client, stored: &[(u32, u32, u64)]| {
        for (slab, at, seed) in stored {
            assert!(
                c.read(*slab, *at, 1) == page(*seed),
                "page {at} of slab {slab}"
            );
        }
    };
    all_there(&mut c, &stored);
    // Fill the rest, so that the table has only what it took ahead.
    let filler = small.0.path().join("filler");
    let _ = fs::write(&filler, vec![1; 8 << 20]);
    let (slab, at, _) = stored.pop().unwrap();
    c.discard(slab, at, 1);
    let session = c.session();
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let daemon = again(&small.0, daemon.addr);
    let mut c = rejoin(daemon.addr, session);
    all_there(&mut c, &stored);
    // Memory that is given back serves again.
    fs::remove_file(&filler).unwrap();
    c.write(slab, at, &page(1));
    let gone: Vec<u32> = stored.iter().map(|(slab, ..)| *slab).take(1).collect();
    c.release(&gone);
    c.grant(1);
}
