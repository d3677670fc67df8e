//! What one client can make a server hold, try and keep.

use crate::client::{Asks, Client, page, run, server, server_with, until};
use crate::daemon::Daemon;
use std::io::Write;
use std::time::Duration;
use tmem_wire::{Header, Op, PAGE_SIZE, Packer, PageBytes, SessionId, Status};

const MIB: u64 = 1 << 20;

/// A page of which half is random, so that it packs to about half.
fn half(seed: u64) -> PageBytes {
    let mut bytes = page(seed);
    bytes[PAGE_SIZE / 2..].fill(0);
    bytes.try_into().unwrap()
}

fn packed(count: u64) -> Vec<u8> {
    let mut packer = Packer::new(count as usize);
    for seed in 0..count {
        assert!(packer.add(&half(seed)));
    }
    packer.finish().unwrap()
}

#[test]
fn a_malformed_message_ends_a_session_like_a_close() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    c.grant(1);
    c.stream.write_all(&[0xff; 32]).unwrap();
    assert_eq!(c.receive().0.status, Status::BadRequest);
    assert!(c.is_ended());
    // The grace is an hour.
    until("ended", || server.stats().sessions == 0);
    // Its memory is freed after it was taken from the list of sessions.
    until("freed", || server.stats().granted_pages == 0);
}

#[test]
fn wrong_secrets_are_not_tried_for_ever_and_those_who_are_in_stay_in() {
    let secret = b"a secret of tests";
    let server = server_with(64, |config| config.secret = Some(secret.to_vec()));
    let new = SessionId::NEW;
    let mut c = Client::greet(server.addr(), new, 0, Some(secret)).unwrap();
    let attempt = |secret: &[u8]| Client::greet(server.addr(), new, 0, Some(secret)).unwrap_err();
    let told = (0..200).filter(|_| attempt(b"a guess of a stranger") == Status::Auth);
    // Ten in a row, and one a second.
    assert!(told.count() < 200);
    until("slowed", || attempt(b"another") == Status::Limit);
    let joined = Client::greet(server.addr(), c.session(), 1, Some(secret));
    joined.unwrap().ping();
    c.ping();
    // Nobody is kept out for good.
    until("let in", || {
        Client::greet(server.addr(), new, 0, Some(secret)).is_ok()
    });
}

#[test]
fn packed_pages_that_nobody_takes_and_those_that_do_not_end_need_little_memory() {
    const RUN: u32 = 512;
    let daemon = Daemon::on_free_port(&["--capacity", "256M", "--slab-size", "2M"]);
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let first = Client::new(daemon.addr);
        let id = first.session();
        crowd.push(first);
        crowd.extend((1..16).map(|lane| Client::join(daemon.addr, id, lane)));
    }
    let body = packed(RUN.into());
    let write = Header {
        packed: true,
        ..run(Op::Write, 0, 0, RUN)
    };
    for first in crowd.chunks_mut(16).map(|session| &mut session[0]) {
        first.grant(1);
        first.done(write, &body);
    }
    let before = daemon.resident();
    // WRITEs that lack a byte: all of a session to the same pages.
    let cut = &body[..body.len() - 1];
    let header = Header {
        len: body.len() as u32,
        ..write
    };
    for c in &mut crowd {
        c.stream.write_all(&header.encode()).unwrap();
        c.stream.write_all(cut).unwrap();
    }
    let mut other = Client::new(daemon.addr);
    other.ping();
    let held = daemon.resident().saturating_sub(before);
    assert!(held < 16 * MIB, "{held} for what does not end");
    for c in &mut crowd {
        c.stream.write_all(&body[body.len() - 1..]).unwrap();
        assert_eq!(c.receive().0.status, Status::Ok);
    }
    // READs whose answers nobody takes.
    let read = Header {
        packed: true,
        ..run(Op::Read, 0, 0, RUN)
    };
    let many = read.encode().repeat(16);
    crowd
        .iter_mut()
        .for_each(|c| c.stream.write_all(&many).unwrap());
    let mut last = 0;
    until("stuck", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = other.stats().pages_read;
        std::mem::replace(&mut last, now) == now && now > 0
    });
    let held = daemon.resident().saturating_sub(before);
    assert!(held < 40 * MIB, "{held} for what nobody takes");
    drop(crowd);
    other.ping();
}

#[test]
fn nothing_of_a_client_that_has_gone_stays_in_memory() {
    let daemon = Daemon::on_free_port(&["--capacity", "16M", "--slab-size", "1M"]);
    let mut marker = *b"tmem leaves no trace of xxxxxxxx";
    let made = marker.len() - 8;
    // Not in the memory of this test's own program text, nor of the daemon's.
    marker[made..].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    let mut bytes = page(1);
    for place in bytes.chunks_mut(128) {
        place[..marker.len()].copy_from_slice(&marker);
    }
    let bytes: PageBytes = bytes.try_into().unwrap();
    let mut packer = Packer::new(64);
    let mut squeezed = bytes;
    squeezed[PAGE_SIZE / 2..].fill(0);
    (0..64).for_each(|_| assert!(packer.add(&squeezed)));
    let body = packer.finish().unwrap();
    let mut c = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    let write = Header {
        packed: true,
        ..run(Op::Write, slab, 0, 64)
    };
    let read = Header {
        packed: true,
        ..run(Op::Read, slab, 0, 64)
    };
    c.done(write, &body);
    c.done(read, &[]);
    c.write(slab, 64, &bytes.repeat(64));
    c.read(slab, 64, 64);
    let found = |daemon: &Daemon| daemon.memory().map(|m| count(&m, &marker));
    let Some(there) = found(&daemon) else {
        // Only root can look: that is a part of it.
        return;
    };
    assert!(there > 64, "{there} while it is there");
    c.bye();
    // The connection's thread wipes its buffers when it ends, which is after its answer.
    until("wiped", || found(&daemon) == Some(0));
}

fn count(memory: &[Vec<u8>], marker: &[u8]) -> usize {
    let of = |region: &Vec<u8>| {
        region
            .windows(marker.len())
            .filter(|w| *w == marker)
            .count()
    };
    memory.iter().map(of).sum()
}

#[test]
fn a_daemon_leaves_no_core_file() {
    let daemon = Daemon::on_free_port(&["--capacity", "16M"]);
    let limits = daemon.proc("limits");
    let core = limits.lines().find(|l| l.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{words:?}");
}

#[test]
fn children_of_one_client_do_not_take_all_memory_for_their_tables() {
    // Slabs of a page have tables as large as a twentieth of themselves.
    let server = server_with(64 << 10, |config| config.slab_size = PAGE_SIZE as u64);
    let mut c = Client::new(server.addr());
    while c.ask(run(Op::Grant, 0, 0, 16384), &[]).0 == Status::Ok {}
    // They are joined, so that it is not their number that is limited.
    let mut children = Vec::new();
    let refused = loop {
        let (status, child) = c.ask(run(Op::Share, 0, 0, 0), &[]);
        if status != Status::Ok {
            break status;
        }
        let child = SessionId(child.try_into().unwrap());
        children.push(Client::join(server.addr(), child, 0));
        assert!(children.len() < 64);
    };
    assert_eq!(refused, Status::Limit);
    // Room is made by those who end.
    children.pop().unwrap().bye();
    c.share();
}

#[test]
fn a_client_gets_no_more_memory_than_it_may_have_however_many_sessions_it_opens() {
    let server = server_with(1024, |config| {
        config.client_memory = Some(3 * 64 * PAGE_SIZE as u64);
    });
    let mut one = Client::new(server.addr());
    let mut other = Client::new(server.addr());
    assert_eq!(one.grant(2).len(), 2);
    let slabs = other.grant(2);
    assert_eq!(slabs.len(), 1);
    assert_eq!(one.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    // A child shares what there is, which counts once.
    let child = one.share();
    other.release(&slabs);
    one.grant(1);
    let mut child = Client::join(server.addr(), child, 0);
    assert_eq!(child.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    one.bye();
    other.bye();
    until("freed", || {
        child.ask(run(Op::Grant, 0, 0, 1), &[]).0 == Status::Ok
    });
}

#[test]
fn a_client_gets_no_more_sessions_than_it_may_have() {
    let server = server_with(1024, |config| config.client_sessions = Some(2));
    let one = Client::new(server.addr());
    let _other = Client::new(server.addr());
    let refused = Client::greet(server.addr(), SessionId::NEW, 0, None).unwrap_err();
    assert_eq!(refused, Status::Limit);
    one.bye();
    until("let in", || {
        Client::greet(server.addr(), SessionId::NEW, 0, None).is_ok()
    });
}

#[test]
fn nothing_is_given_of_what_is_reserved_for_others() {
    let server = server_with(1024, |config| config.reserve = u64::MAX);
    let mut c = Client::new(server.addr());
    assert_eq!(c.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    let server = server_with(1024, |config| config.reserve = 1);
    Client::new(server.addr()).grant(1);
}

#[test]
fn clients_are_asked_for_slabs_that_they_do_not_use_when_others_find_none() {
    let server = server(64);
    let hello = tmem_wire::Hello {
        features: tmem_wire::FEATURE_NOTICE,
        ..crate::client::hello(SessionId::NEW)
    };
    let mut idle = Client::greet_as(server.addr(), &hello, 1);
    let slabs = idle.grant(1);
    let mut other = Client::new(server.addr());
    assert_eq!(other.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    let (notice, _) = idle.receive();
    assert_eq!((notice.op, notice.id), (Op::Notice, tmem_wire::NOTICE_ID));
    assert_eq!(notice.page, tmem_wire::NOTICE_GIVE_BACK);
    idle.release(&slabs);
    other.grant(1);
}
