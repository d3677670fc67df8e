//! A daemon that goes on with what another has, and what systemd passes from one to the next.

use crate::client::{Asks, Client, page, run, until};
use crate::daemon::{Daemon, command, fails};
use crate::restart::{ANY, Folder, rejoin};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Local, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};
use tmem_wire::Op;

const SIZES: [&str; 4] = ["--capacity", "64M", "--slab-size", "256K"];

fn daemon(listen: &str, more: &[&str]) -> Daemon {
    Daemon::start(&[&["--listen", listen], &SIZES[..], more].concat())
}

/// The new daemon of one at that address.
fn successor(addr: SocketAddr, more: &[&str]) -> Daemon {
    let listen = addr.to_string();
    Daemon::start(&[&["--listen", &listen, "--takeover"], &SIZES[..], more].concat())
}

#[test]
fn a_new_daemon_goes_on_with_memory_and_socket_of_the_old() {
    let mut old = daemon(ANY, &[]);
    let mut c = Client::new(old.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 3, &page(3));
    let (child, session, instance) = (c.share(), c.session(), c.hello.instance);
    let new = successor(old.addr, &[]);
    assert_eq!(new.addr, old.addr);
    assert_eq!(old.wait(), Some(0));
    // The connection ends without a word.
    assert!(c.is_ended());
    let mut c = rejoin(new.addr, session);
    assert_eq!(c.hello.instance, instance);
    assert!(c.read(slab, 3, 1) == page(3));
    assert!(rejoin(new.addr, child).read(slab, 3, 1) == page(3));
    // And again.
    let mut last = successor(new.addr, &[]);
    drop(new);
    let mut c = rejoin(last.addr, session);
    assert!(c.read(slab, 3, 1) == page(3));
    last.signal(libc::SIGTERM);
    assert!(c.is_told_of_the_end());
    assert_eq!(last.wait(), Some(0));
}

#[test]
fn a_daemon_starts_as_usual_where_there_is_none_to_take_over() {
    let new = daemon(ANY, &["--takeover"]);
    Client::new(new.addr).ping();
}

#[test]
fn a_folder_is_handed_over_with_its_lock() {
    let folder = Folder::new();
    let path = folder.arg();
    let mut old = daemon(ANY, &["--backing", &path]);
    let mut c = Client::new(old.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(1));
    let mut new = successor(old.addr, &["--backing", &path]);
    old.wait();
    let other = ["--listen", ANY, "--backing", &path];
    let (_, text) = fails(&other);
    assert!(text.contains("in use by another server"), "{text}");
    let mut again = rejoin(new.addr, c.session());
    assert!(again.read(slab, 0, 1) == page(1));
    new.signal(libc::SIGKILL);
    new.wait();
    let last = daemon(&new.addr.to_string(), &["--backing", &path]);
    assert!(rejoin(last.addr, c.session()).read(slab, 0, 1) == page(1));
}

#[test]
fn the_old_daemon_goes_on_where_the_new_one_fails() {
    let old = daemon(ANY, &["--log", "error"]);
    let listen = old.addr.to_string();
    let mut c = Client::new(old.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(1));
    let fails = |more: &[&str]| {
        let all = [&["--listen", &listen, "--takeover"], more].concat();
        fails(&all).1
    };
    let text = fails(&["--slab-size", "512K"]);
    assert!(text.contains("--slab-size 262144"), "{text}");
    let text = fails(&["--backing", "/dev/shm/tmem-no-such-folder"]);
    assert!(text.contains("leave --backing out"), "{text}");
    assert!(text.contains("it goes on"), "{text}");
    // One that says nothing, or anything, or nothing more once it has all.
    let uid = rustix::process::geteuid().as_raw();
    let name = Local::from_abstract_name(format!("tmem-memserver {uid} {listen}")).unwrap();
    let ask = || UnixStream::connect_addr(&name).unwrap();
    drop(ask());
    ask().write_all(b"what is that to you, my friend?").unwrap();
    let mut halfway = ask();
    halfway.write_all(b"tmem takeover 1\n").unwrap();
    halfway.read_exact(&mut [0; 16]).unwrap();
    drop(halfway);
    let mut c = rejoin(old.addr, c.session());
    assert!(c.read(slab, 0, 1) == page(1));
    c.bye();
    until("freed", || Client::new(old.addr).stats().granted_pages == 0);
    // And is taken over in the end.
    successor(old.addr, &[]);
}

#[test]
fn a_connection_that_comes_meanwhile_waits_and_is_served() {
    let old = daemon(ANY, &[]);
    let mut others: Vec<TcpStream> = Vec::new();
    let addr = old.addr;
    let taking = std::thread::spawn(move || successor(addr, &[]));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !taking.is_finished() && Instant::now() < deadline {
        others.push(TcpStream::connect(addr).unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
    let new = taking.join().unwrap();
    drop(others);
    Client::new(new.addr).ping();
}

#[test]
fn clients_see_a_short_pause_and_lose_nothing_when_a_signal_has_it_upgraded() {
    let mut old = daemon(ANY, &[]);
    let mut c = Client::new(old.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(9));
    let (session, addr) = (c.session(), old.addr);
    let (mut longest, mut breaks, mut reads) = (Duration::ZERO, 0, 0);
    old.signal(libc::SIGUSR2);
    let mut last = Instant::now();
    let deadline = last + Duration::from_secs(60);
    while reads < 50 || breaks == 0 {
        assert!(Instant::now() < deadline, "never taken over");
        // A client as it is: it joins again at once, and asks again.
        if c.try_ask(run(Op::Read, slab, 0, 1), &[]).is_err() {
            breaks += 1;
            c = rejoin(addr, session);
            continue;
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        reads += u32::from(breaks > 0);
    }
    assert_eq!(old.wait(), Some(0));
    assert!(c.read(slab, 0, 1) == page(9));
    println!("paused for {longest:?}, {breaks} connections broke");
    // The process that nobody here has started is ended.
    let mut line = String::new();
    old.read_line(&mut line);
    assert!(line.contains("ready on"), "{line}");
    old.end_successor();
    assert!(c.is_told_of_the_end());
}

/// The service manager's socket, and the descriptors that it has been given to keep.
struct Manager {
    socket: UnixDatagram,
    name: String,
    kept: Vec<(String, OwnedFd)>,
    said: Vec<String>,
}

impl Manager {
    fn new() -> Manager {
        let name = format!("tmem-test-manager-{}-{:p}", std::process::id(), &());
        let addr = Local::from_abstract_name(&name).unwrap();
        Manager {
            socket: UnixDatagram::bind_addr(&addr).unwrap(),
            name: format!("@{name}"),
            kept: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Takes messages until one has this text.
    fn until(&mut self, text: &str) {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        self.socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        loop {
            let mut bytes = [0; 256];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [std::io::IoSliceMut::new(&mut bytes)];
            let got = recvmsg(&self.socket, &mut into, &mut control, RecvFlags::empty()).unwrap();
            let said = String::from_utf8(bytes[..got.bytes].to_vec()).unwrap();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(all) = message {
                    let name = said.rsplit_once("FDNAME=").unwrap().1.to_owned();
                    self.kept.extend(all.map(|fd| (name.clone(), fd)));
                }
            }
            let is_it = said.contains(text);
            self.said.push(said);
            if is_it {
                return;
            }
        }
    }

    /// A daemon that is passed these descriptors.
    fn start(&self, passed: &[(&str, RawFd)]) -> Daemon {
        let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
        let own = command(&[]);
        let mut command = std::process::Command::new("/bin/sh");
        let script = "export LISTEN_PID=$$; exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(own.get_program());
        command.args(["--listen", "127.0.0.1:0"]).args(SIZES);
        command.env("NOTIFY_SOCKET", &self.name).env("FDSTORE", "8");
        command.env("LISTEN_FDS", passed.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        let raw: Vec<RawFd> = passed.iter().map(|(_, fd)| *fd).collect();
        // SAFETY: only what a forked child may do: its descriptors are put in order, from
        // copies beyond all of them.
        unsafe {
            command.pre_exec(move || {
                for (at, fd) in raw.iter().enumerate() {
                    libc::fcntl(*fd, libc::F_DUPFD, 200 + at as i32);
                }
                for at in 0..raw.len() as i32 {
                    libc::dup2(200 + at, 3 + at);
                    libc::close(200 + at);
                }
                Ok(())
            })
        };
        Daemon::spawn(command)
    }
}

#[test]
fn systemd_is_told_and_keeps_what_a_daemon_that_crashes_had() {
    let mut manager = Manager::new();
    let mut daemon = manager.start(&[]);
    manager.until("READY=1");
    let names: Vec<&str> = manager.kept.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(
        names,
        ["tmem-listen", "tmem-table", "tmem-bits", "tmem-pages"]
    );
    let mut c = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(4));
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    let stored = std::mem::take(&mut manager.kept);
    let kept: Vec<(&str, RawFd)> = stored
        .iter()
        .map(|(name, fd)| (&name[..], fd.as_raw_fd()))
        .collect();
    let mut next = manager.start(&kept);
    assert_eq!(next.addr, daemon.addr);
    let mut c = rejoin(next.addr, c.session());
    assert!(c.read(slab, 0, 1) == page(4));
    manager.until("READY=1");
    // It is restarted: what clients have is kept, as it was given already.
    next.signal(libc::SIGTERM);
    assert!(c.is_ended());
    assert_eq!(next.wait(), Some(0));
    manager.until("STOPPING=1");
    let mut last = manager.start(&kept);
    manager.until("READY=1");
    let mut c = rejoin(last.addr, c.session());
    assert!(c.read(slab, 0, 1) == page(4));
    last.signal(libc::SIGINT);
    assert!(c.is_told_of_the_end());
    last.wait();
    manager.until("STOPPING=1");
    manager.until("FDSTOREREMOVE=1\nFDNAME=tmem-pages");
}

#[test]
fn a_socket_that_systemd_listens_on_is_used() {
    let manager = Manager::new();
    let listener = TcpListener::bind(ANY).unwrap();
    let addr = listener.local_addr().unwrap();
    // A client may come before the daemon.
    let early = TcpStream::connect(addr).unwrap();
    let daemon = manager.start(&[("unknown", listener.as_raw_fd())]);
    assert_eq!(daemon.addr, addr);
    drop(early);
    Client::new(addr).ping();
}

#[test]
fn descriptors_that_are_none_of_ours_are_left_alone() {
    let manager = Manager::new();
    let (one, _other) = UnixDatagram::pair().unwrap();
    // SAFETY: a new descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"x".as_ptr(), 0)) };
    let daemon = manager.start(&[
        ("strange", file.as_raw_fd()),
        ("tmem-pages", file.as_raw_fd()),
    ]);
    Client::new(daemon.addr).ping();
    drop(one);
}

#[test]
fn a_process_of_another_user_is_handed_nothing() {
    // Somebody else has the name: what it says is not believed, and it is not asked again.
    let uid = rustix::process::geteuid().as_raw();
    let free = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    let name = Local::from_abstract_name(format!("tmem-memserver {uid} {free}")).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    let liar = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"tmem handover 1\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let (status, text) = fails(&["--listen", &free.to_string(), "--takeover"]);
    assert_eq!(status, 1);
    assert!(text.contains("it has sent too little"), "{text}");
    liar.join().unwrap();
}
