//! The memory server over RDMA, on a machine with a device:
//!
//!     cargo test -p tmem-memserver --no-run
//!     scripts/rdma-vm target/debug deps/rdma-… --ignored --test-threads 1
//!
//! (with the name that cargo prints).
#![expect(
    clippy::unwrap_used,
    reason = "all of it is tests, whose helpers the lint does not know as such"
)]

#[allow(dead_code, reason = "the other tests need more of it")]
#[path = "../server/client.rs"]
mod client;
mod peer;

use client::{Asks, Client, page, pages, run, server_with, until};
use peer::Peer;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tmem_memserver::{Config, Handle};
use tmem_verbs::Status as Outcome;
use tmem_wire::{FEATURE_RDMA, Op, PAGE_SIZE, SessionId, Status};

/// The device that `scripts/rdma-vm` makes.
const DEVICE: &str = "10.77.0.1:0";

fn server(pages: u64) -> (Handle, SocketAddr) {
    with(pages, |_| {})
}

fn with(pages: u64, change: impl FnOnce(&mut Config)) -> (Handle, SocketAddr) {
    let server = server_with(pages, |config| {
        config.rdma = Some(DEVICE.parse().unwrap());
        change(config);
    });
    let addr = server.rdma_addr().unwrap();
    (server, addr)
}

/// What a device says of a key that is worth nothing; or the server has ended the
/// connection because of it before that is heard.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Outcome>) {
    let outcome = outcome.unwrap_err();
    let is_refused = matches!(outcome, Outcome::RemoteAccess | Outcome::Flushed);
    assert!(is_refused, "{outcome:?}");
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn pages_move_one_sidedly_and_are_seen_by_all() {
    let (server, addr) = server(256);
    let mut peer = Peer::new(addr);
    assert_eq!(addr.port(), server.addr().port());
    assert_eq!(peer.hello.features & FEATURE_RDMA, FEATURE_RDMA);
    let slab = peer.grant(2)[1];
    let key = peer.key(slab, true).unwrap();
    assert!(key.write);
    assert_eq!(peer.read(&key, 63, 1).unwrap(), vec![0; PAGE_SIZE]);
    peer.write(&key, 3, &pages([1, 2])).unwrap();
    assert_eq!(peer.read(&key, 3, 2).unwrap(), pages([1, 2]));
    let stats = server.stats();
    assert_eq!((stats.pages_read, stats.pages_written), (0, 0));
    assert_eq!(stats.stored_pages, 64);
    // Over TCP, and through the stream, they are the same.
    let mut tcp = Client::join(server.addr(), peer.hello.session, 7);
    assert_eq!(tcp.hello.features & FEATURE_RDMA, FEATURE_RDMA);
    assert_eq!(tcp.read(slab, 3, 2), pages([1, 2]));
    let body = peer.done(run(Op::Read, slab, 3, 2), &[]);
    assert_eq!(body, pages([1, 2]));
    tcp.write(slab, 4, &page(9));
    assert_eq!(peer.read(&key, 4, 1).unwrap(), page(9));
    // What is discarded reads as zeros, and what is written then is held.
    tcp.discard(slab, 3, 2);
    assert_eq!(peer.read(&key, 3, 2).unwrap(), vec![0; 2 * PAGE_SIZE]);
    peer.write(&key, 4, &page(5)).unwrap();
    assert_eq!(tcp.read(slab, 3, 2), [vec![0; PAGE_SIZE], page(5)].concat());
    // A key for reading does not write.
    let key = peer.key(slab, false).unwrap();
    assert!(!key.write);
    assert_eq!(peer.read(&key, 4, 1).unwrap(), page(5));
    refused(peer.write(&key, 4, &page(6)));
    assert!(peer.is_ended());
    assert_eq!(tcp.read(slab, 4, 1), page(5));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn the_stream_carries_all_that_tcp_does() {
    let (server, addr) = server(1024);
    let mut peer = Peer::new(addr);
    let slabs = peer.grant(16);
    for (n, slab) in (0..).zip(&slabs) {
        peer.done(run(Op::Write, *slab, 0, 64), &pages(n * 64..n * 64 + 64));
    }
    for (n, slab) in (0..).zip(&slabs) {
        let body = peer.done(run(Op::Read, *slab, 0, 64), &[]);
        assert!(body == pages(n * 64..n * 64 + 64));
    }
    // What is refused is thrown away to its end.
    let refusal = peer.ask(run(Op::Write, 99, 0, 64), &pages(0..64));
    assert_eq!(refusal.0, Status::NoSuchSlab);
    for (slab, page, count, status) in [
        (99, 0, 0, Status::NoSuchSlab),
        (slabs[0], 2, 0, Status::BadRequest),
        (slabs[0], 0, 1, Status::BadRequest),
    ] {
        let refusal = peer.ask(run(Op::Keys, slab, page, count), &[]);
        assert_eq!(refusal.0, status);
    }
    let stats = server.stats();
    assert_eq!((stats.pages_read, stats.pages_written), (1024, 1024));
    let mut tcp = Client::join(server.addr(), peer.hello.session, 1);
    let refusal = tcp.ask(run(Op::Keys, slabs[0], 0, 0), &[]);
    assert_eq!(refusal.0, Status::BadRequest);
    drop(tcp);
    peer.done(run(Op::Bye, 0, 0, 0), &[]);
    until("freed", || server.stats().granted_pages == 0);
    assert!(peer.is_ended());
    let mut other = Peer::connect(addr);
    other.say(&[0xff; 32]).unwrap();
    let (reply, _) = client::receive(&mut other).unwrap();
    assert_eq!(reply.status, Status::BadRequest);
    assert!(other.is_ended());
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_key_ends_with_the_release_of_its_slab_over_any_connection() {
    let (server, addr) = server(64);
    for over_tcp in [false, true] {
        for write in [false, true] {
            let mut peer = Peer::new(addr);
            let slab = peer.grant(1)[0];
            let key = peer.key(slab, write).unwrap();
            assert_eq!(peer.key(slab, write), Ok(key));
            peer.done(run(Op::Write, slab, 0, 1), &page(1));
            assert_eq!(peer.read(&key, 0, 1).unwrap(), page(1));
            if over_tcp {
                Client::join(server.addr(), peer.hello.session, 2).release(&[slab]);
            } else {
                peer.release(&[slab]);
            }
            // The same memory, for somebody else.
            let mut other = Client::new(server.addr());
            let theirs = other.grant(1)[0];
            other.write(theirs, 0, &page(2));
            assert_eq!(peer.key(slab, write), Err(Status::NoSuchSlab));
            if write {
                refused(peer.write(&key, 0, &page(3)));
            } else {
                refused(peer.read(&key, 0, 1));
            }
            assert_eq!(other.read(theirs, 0, 1), page(2));
            other.bye();
            assert!(peer.is_ended());
        }
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_key_is_worth_nothing_on_another_connection() {
    let (_server, addr) = server(128);
    let mut first = Peer::join(addr, tmem_wire::SessionId::NEW, 1);
    let slab = first.grant(1)[0];
    let key = first.key(slab, true).unwrap();
    first.write(&key, 0, &page(1)).unwrap();
    let mut stranger = Peer::new(addr);
    let mine = stranger.grant(1)[0];
    stranger.key(mine, true).unwrap();
    refused(stranger.write(&key, 0, &page(2)));
    refused(Peer::new(addr).read(&key, 0, 1));
    let mut second = Peer::join(addr, first.hello.session, 2);
    let other = second.key(slab, true).unwrap();
    assert_ne!(other.key, key.key);
    assert_eq!(second.read(&other, 0, 1).unwrap(), page(1));
    refused(second.write(&key, 0, &page(3)));
    assert_eq!(first.read(&key, 0, 1).unwrap(), page(1));
    // Nor beyond its slab.
    refused(first.read(&key, 64, 1));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_replaced_connection_has_no_keys() {
    let (_server, addr) = server(64);
    let mut old = Peer::join(addr, tmem_wire::SessionId::NEW, 1);
    let slab = old.grant(1)[0];
    let stale = old.key(slab, true).unwrap();
    old.write(&stale, 0, &page(1)).unwrap();
    let mut new = Peer::join(addr, old.hello.session, 1);
    assert!(old.write(&stale, 0, &page(2)).is_err());
    let key = new.key(slab, true).unwrap();
    assert_eq!(new.read(&key, 0, 1).unwrap(), page(1));
}

/// Memory of this process that devices have, in KiB.
fn pinned() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmPin:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_lost_connection_leaves_nothing_pinned_in_a_session_that_lives() {
    let (server, addr) = server(64);
    let mut tcp = Client::new(server.addr());
    let slab = tcp.grant(1)[0];
    let before = pinned();
    let mut peer = Peer::join(addr, tcp.session(), 2);
    let connected = pinned();
    let key = peer.key(slab, true).unwrap();
    peer.write(&key, 0, &page(1)).unwrap();
    assert_eq!(pinned(), connected + 256);
    drop(peer);
    until("unpinned", || pinned() == before);
    assert_eq!(tcp.read(slab, 0, 1), page(1));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn share_takes_write_keys_and_leaves_read_keys() {
    let (server, addr) = server(64);
    let mut parent = Peer::join(addr, tmem_wire::SessionId::NEW, 1);
    let mut other = Peer::join(addr, parent.hello.session, 2);
    let slab = parent.grant(1)[0];
    let read = parent.key(slab, false).unwrap();
    let write = parent.key(slab, true).unwrap();
    let theirs = other.key(slab, true).unwrap();
    parent.write(&write, 5, &pages([1, 2])).unwrap();
    let child = parent.share();
    assert_eq!(parent.read(&read, 5, 2).unwrap(), pages([1, 2]));
    assert_eq!(parent.key(slab, true), Err(Status::Shared));
    let mut child = Peer::join(addr, child, 0);
    assert_eq!(child.key(slab, true), Err(Status::Shared));
    let childs = child.key(slab, false).unwrap();
    assert_eq!(child.read(&childs, 5, 2).unwrap(), pages([1, 2]));
    refused(other.write(&theirs, 5, &page(3)));
    // What the child gives up, the parent still has.
    child.done(run(Op::Discard, slab, 5, 1), &[]);
    assert_eq!(parent.read(&read, 5, 2).unwrap(), pages([1, 2]));
    child.release(&[slab]);
    let again = parent.key(slab, true).unwrap();
    parent.write(&again, 5, &page(4)).unwrap();
    assert_eq!(parent.read(&read, 5, 2).unwrap(), pages([4, 2]));
    refused(child.read(&childs, 5, 1));
    refused(parent.write(&write, 5, &page(3)));
    let mut tcp = Client::join(server.addr(), parent.hello.session, 3);
    assert_eq!(tcp.read(slab, 5, 2), pages([4, 2]));
}

/// What is started for, and killed by, the next test.
#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_client_to_be_killed() {
    let Ok(addr) = std::env::var("TMEM_TEST_ADDR") else {
        return;
    };
    let mut peer = Peer::new(addr.parse().unwrap());
    let slab = peer.grant(1)[0];
    let key = peer.key(slab, true).unwrap();
    loop {
        peer.write(&key, 0, &page(1)).unwrap();
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_killed_clients_slabs_are_free_soon() {
    let (server, addr) = server(64);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_client_to_be_killed"])
        .env("TMEM_TEST_ADDR", addr.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("there", || server.stats().stored_pages == 64);
    child.kill().unwrap();
    child.wait().unwrap();
    // The grace is an hour.
    until("gone", || server.stats().granted_pages == 0);
    let mut tcp = Client::new(server.addr());
    let slab = tcp.grant(1)[0];
    assert_eq!(tcp.read(slab, 0, 1), vec![0; PAGE_SIZE]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn the_servers_end_is_seen_by_greeted_and_silent_clients() {
    let (server, addr) = server(64);
    let mut peer = Peer::new(addr);
    let slab = peer.grant(1)[0];
    let key = peer.key(slab, false).unwrap();
    let mut silent = Peer::connect(addr);
    server.shutdown();
    assert!(peer.is_ended() && silent.is_ended());
    assert!(peer.read(&key, 0, 1).is_err());
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_client_that_takes_no_replies_does_not_hold_up_the_servers_end() {
    let (server, addr) = server(64);
    let mut peer = Peer::new(addr);
    let slab = peer.grant(1)[0];
    peer.stuff(slab);
    // So many do not fit between the two.
    until("asked for", || server.stats().pages_read >= 128);
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    server.shutdown();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_silent_client_that_is_there_stays() {
    let (_server, addr) = server(64);
    let mut peer = Peer::new(addr);
    let slab = peer.grant(1)[0];
    // Longer than the server waits before it asks whether the client is there.
    std::thread::sleep(Duration::from_secs(12));
    let key = peer.key(slab, false).unwrap();
    peer.read(&key, 0, 1).unwrap();
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn connections_of_both_kinds_count() {
    let (server, addr) = with(64, |config| config.max_connections = 2);
    let mut tcp = Client::new(server.addr());
    let mut peer = Peer::new(addr);
    assert_eq!(server.stats().connections, 2);
    assert!(client::ended(&mut client::connect(server.addr())));
    // Strangers may connect, to be told that there is no place for them.
    let mut refused = Peer::connect(addr);
    let greeting = client::hello(SessionId::NEW).encode();
    let (status, _) = refused.ask(run(Op::Hello, 0, 0, 0), &greeting);
    assert_eq!(status, Status::Limit);
    tcp.ping();
    peer.done(run(Op::Ping, 0, 0, 0), &[]);
}

/// A daemon that may lock two MiB, killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn too_little_lockable_memory_is_said_and_the_stream_still_works() {
    let script = format!(
        "ulimit -l 2048; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock {} \
         --listen 127.0.0.1:0 --rdma {DEVICE} --capacity 8M --slab-size 4M",
        env!("CARGO_BIN_EXE_tmem-memserver")
    );
    let child = Command::new("bash")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    let mut line = String::new();
    let mut out = BufReader::new(daemon.0.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let addrs: Vec<SocketAddr> = line
        .split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect();
    assert_eq!(addrs.len(), 2, "{line}");
    assert_eq!(addrs[0].port(), addrs[1].port(), "{line}");
    let mut peer = Peer::new(addrs[1]);
    let slab = peer.grant(1)[0];
    for _ in 0..3 {
        assert_eq!(peer.key(slab, true), Err(Status::Full));
    }
    peer.done(run(Op::Write, slab, 0, 1), &page(1));
    assert_eq!(peer.done(run(Op::Read, slab, 0, 1), &[]), page(1));
    drop(peer);
    daemon.0.kill().unwrap();
    let mut text = String::new();
    let err = daemon.0.stderr.as_mut().unwrap();
    err.read_to_string(&mut text).unwrap();
    let complaints = text.lines().filter(|l| l.contains("cannot pin")).count();
    assert_eq!(complaints, 1, "{text}");
    assert!(text.contains("less than the capacity"), "{text}");
    assert_eq!(text.matches("ulimit -l").count(), 2, "{text}");
}
