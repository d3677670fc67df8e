//! Who has which memory, and for how long.

use crate::client::{
    Asks, Client, connect, ended, hello, page, pages, receive, run, server, server_with, until,
};
use crate::greeting::message;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use tmem_wire::{Header, Op, PAGE_SIZE, SessionId, Status};

#[test]
fn sessions_do_not_see_each_other() {
    let server = server(1024);
    let (mut a, mut b) = (Client::new(server.addr()), Client::new(server.addr()));
    assert_ne!(a.session(), b.session());
    let slabs = a.grant(3);
    a.write(slabs[2], 0, &page(1));
    for (request, payload) in [
        (run(Op::Read, slabs[2], 0, 1), vec![]),
        (run(Op::Write, slabs[2], 0, 1), page(9)),
        (run(Op::Discard, slabs[2], 0, 1), vec![]),
        (run(Op::Release, 0, 0, 0), slabs[2].to_le_bytes().to_vec()),
    ] {
        assert_eq!(b.ask(request, &payload).0, Status::NoSuchSlab);
    }
    // The numbers are each session's own.
    let own = b.grant(3);
    assert_eq!(own, slabs);
    assert!(b.read(own[2], 0, 1).iter().all(|x| *x == 0));
    b.write(own[2], 0, &page(2));
    assert!(a.read(slabs[2], 0, 1) == page(1));
    b.bye();
    assert!(a.read(slabs[2], 0, 1) == page(1));
}

#[test]
fn a_full_server_grants_what_is_left_and_then_says_so() {
    // Room for four slabs of 64 pages, and a part of one.
    let server = server(5 * 64 - 1);
    let (mut a, mut b) = (Client::new(server.addr()), Client::new(server.addr()));
    assert_eq!(a.hello.capacity_pages, 256);
    assert_eq!(a.hello.free_pages, 256);
    let of_a = a.grant(3);
    assert_eq!((of_a.len(), b.grant(3).len()), (3, 1));
    for c in [&mut a, &mut b] {
        assert_eq!(c.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    }
    assert_eq!(Client::new(server.addr()).hello.free_pages, 0);
    // Nothing at all is released by a list that is wrong somewhere.
    for wrong in [vec![of_a[0], 99], vec![of_a[0], of_a[0]]] {
        let list = tmem_wire::encode_slab_list(&wrong);
        assert_eq!(
            a.ask(run(Op::Release, 0, 0, 0), &list).0,
            Status::NoSuchSlab
        );
        assert_eq!(server.stats().granted_pages, 256);
    }
    a.release(&of_a[..2]);
    assert_eq!(server.stats().granted_pages, 128);
    let again = b.grant(u32::MAX);
    assert_eq!(again.len(), 2);
    assert!(b.read(again[1], 0, 64).iter().all(|x| *x == 0));
    // A number that was released names nothing for ever.
    assert_eq!(
        a.ask(run(Op::Read, of_a[0], 0, 1), &[]).0,
        Status::NoSuchSlab
    );
    b.release(&again);
    assert!(!of_a.contains(&a.grant(1)[0]));
}

#[test]
fn a_session_outlives_its_connections_for_the_grace_and_no_longer() {
    let server = server(1024);
    let mut c = Client::new(server.addr());
    let (id, instance) = (c.session(), c.hello.instance);
    let slab = c.grant(1)[0];
    c.write(slab, 9, &page(4));
    drop(c);
    until("left", || server.stats().connections == 0);
    let mut c = Client::join(server.addr(), id, 0);
    assert_eq!((c.session(), c.hello.instance), (id, instance));
    assert!(c.read(slab, 9, 1) == page(4));
    assert_eq!(c.stats().sessions, 1);

    let server = server_with(1024, |config| config.grace = Duration::from_millis(1));
    let mut c = Client::new(server.addr());
    let id = c.session();
    let slab = c.grant(16)[0];
    c.write(slab, 0, &pages(0..64));
    // As long as there is one connection it goes on.
    let other = Client::join(server.addr(), id, 0);
    drop(other);
    until("left", || server.stats().connections == 1);
    std::thread::sleep(Duration::from_millis(50));
    assert!(c.read(slab, 0, 64) == pages(0..64));
    drop(c);
    until("freed", || server.stats().granted_pages == 0);
    assert_eq!(
        (server.stats().sessions, server.stats().stored_pages),
        (0, 0)
    );
    let late = Client::greet(server.addr(), id, 0, None);
    assert_eq!(late.unwrap_err(), Status::NoSession);
}

#[test]
fn the_memory_of_clients_that_have_ended_is_there_for_others_at_once() {
    let server = server(1024);
    for _ in 0..3 {
        let mut c = Client::new(server.addr());
        assert_eq!(c.hello.free_pages, 1024);
        for slab in c.grant(16) {
            c.write(slab, 0, &pages(0..64));
        }
        drop(c);
        until("left", || server.stats().connections == 0);
    }
    // One that is there keeps what it has.
    let mut c = Client::new(server.addr());
    c.grant(10);
    let mut other = Client::new(server.addr());
    assert_eq!((other.hello.free_pages, other.grant(16).len()), (6 * 64, 6));
    assert_eq!(other.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
}

#[test]
fn nobody_joins_a_session_that_is_not_there() {
    let server = server(64);
    let _one = Client::new(server.addr());
    for id in [SessionId([1; 16]), SessionId([0xff; 16])] {
        let refused = Client::greet(server.addr(), id, 0, None);
        assert_eq!(refused.unwrap_err(), Status::NoSession);
    }
    assert_eq!(server.stats().sessions, 1);
}

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "run by another test"]
fn a_client_to_be_killed() {
    let Ok(addr) = std::env::var("TMEM_TEST_ADDR") else {
        return;
    };
    let mut c = Client::new(addr.parse().unwrap());
    for slab in c.grant(8) {
        c.write(slab, 0, &pages(0..64));
    }
    // In the midst of a request.
    c.stream
        .write_all(&run(Op::Read, 0, 0, 1).encode()[..20])
        .unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn the_memory_of_a_killed_client_is_freed() {
    let server = server_with(1024, |config| config.grace = Duration::from_millis(200));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sessions::a_client_to_be_killed"])
        .env("TMEM_TEST_ADDR", server.addr().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("stored", || server.stats().stored_pages == 512);
    child.kill().unwrap();
    child.wait().unwrap();
    until("freed", || server.stats().granted_pages == 0);
    let stats = server.stats();
    assert_eq!((stats.sessions, stats.stored_pages), (0, 0));
    let mut c = Client::new(server.addr());
    assert_eq!(c.grant(16).len(), 16);
}

#[test]
fn a_bye_ends_the_session_with_its_last_connection() {
    let server = server(1024);
    let mut c = Client::new(server.addr());
    let id = c.session();
    let mut other = Client::join(server.addr(), id, 0);
    let slab = c.grant(2)[1];
    c.write(slab, 0, &page(1));
    c.bye();
    assert!(other.read(slab, 0, 1) == page(1));
    drop(other);
    until("ended", || server.stats().sessions == 0);
    // Its memory is freed after it was taken from the list of sessions.
    until("freed", || server.stats().granted_pages == 0);
    let mut c = Client::new(server.addr());
    c.grant(16);
    // When the answer is there, the memory is free.
    c.bye();
    assert_eq!(server.stats().granted_pages, 0);
}

#[test]
fn a_connection_takes_the_place_of_that_of_its_lane() {
    let server = server(64);
    let mut one = Client::greet(server.addr(), SessionId::NEW, 1, None).unwrap();
    let id = one.session();
    let mut two = Client::join(server.addr(), id, 2);
    let mut new_two = Client::join(server.addr(), id, 2);
    assert!(two.is_ended());
    one.ping();
    new_two.ping();
    // What the old one left unfinished does not come after.
    let slab = one.grant(1)[0];
    let cut = Header {
        len: PAGE_SIZE as u32,
        ..run(Op::Write, slab, 0, 1)
    };
    new_two.stream.write_all(&cut.encode()).unwrap();
    new_two.stream.write_all(&page(1)[..4000]).unwrap();
    let mut third = Client::join(server.addr(), id, 2);
    third.write(slab, 0, &page(2));
    let _ = new_two.stream.write_all(&page(1)[4000..]);
    assert!(third.read(slab, 0, 1) == page(2));
    assert!(one.read(slab, 0, 1) == page(2));
    assert_eq!(server.stats().connections, 2);
}

#[test]
fn without_lanes_two_connections_are_kept_and_a_third_replaces_both() {
    let server = server(64);
    let mut a = Client::new(server.addr());
    let id = a.session();
    let mut b = Client::join(server.addr(), id, 0);
    a.ping();
    b.ping();
    let mut c = Client::join(server.addr(), id, 0);
    assert!(a.is_ended() && b.is_ended());
    c.ping();
    let mut d = Client::join(server.addr(), id, 0);
    c.ping();
    // One that broke is the one that is replaced.
    c.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let mut e = Client::join(server.addr(), id, 0);
    d.ping();
    e.ping();
    assert_eq!(server.stats().sessions, 1);
}

#[test]
fn shared_pages_are_read_by_both_and_written_by_neither() {
    let server = server(1024);
    let mut parent = Client::new(server.addr());
    let slabs = parent.grant(2);
    parent.write(slabs[0], 0, &pages(0..64));
    let child_id = parent.share();
    assert_ne!(child_id, parent.session());
    // It waits for its child as long as the parent is there.
    let mut child = Client::join(server.addr(), child_id, 0);
    assert!(child.read(slabs[0], 0, 64) == pages(0..64));
    for c in [&mut parent, &mut child] {
        let (status, _) = c.ask(run(Op::Write, slabs[0], 0, 1), &page(9));
        assert_eq!(status, Status::Shared);
        let (status, _) = c.ask(run(Op::Write, slabs[1], 0, 1), &page(9));
        assert_eq!(status, Status::Shared);
    }
    assert_eq!(server.stats().granted_pages, 128);
    assert_eq!(server.stats().stored_pages, 64);
    // New slabs are each one's own.
    let (p, c) = (parent.grant(1)[0], child.grant(1)[0]);
    parent.write(p, 0, &page(100));
    child.write(c, 0, &page(200));
    assert!(parent.read(p, 0, 1) == page(100) && child.read(c, 0, 1) == page(200));
    // What one discards the other still has.
    child.discard(slabs[0], 0, 32);
    assert!(child.read(slabs[0], 0, 32).iter().all(|b| *b == 0));
    assert!(parent.read(slabs[0], 0, 64) == pages(0..64));
    assert_eq!(server.stats().stored_pages, 66);
    parent.discard(slabs[0], 16, 32);
    assert_eq!(server.stats().stored_pages, 66 - 16);
    assert!(child.read(slabs[0], 32, 32) == pages(32..64));
    parent.release(&slabs[..1]);
    assert!(child.read(slabs[0], 32, 32) == pages(32..64));
    assert_eq!(server.stats().stored_pages, 2 + 32);
    // With one owner left it is as it was before.
    child.write(slabs[0], 0, &page(3));
    assert!(child.read(slabs[0], 0, 1) == page(3));
    child.bye();
    parent.write(slabs[1], 5, &page(6));
    assert_eq!(server.stats().granted_pages, 128);
}

#[test]
fn a_child_of_a_child_and_children_without_a_parent() {
    let server = server_with(1024, |config| config.grace = Duration::from_secs(3600));
    let mut parent = Client::new(server.addr());
    let slab = parent.grant(1)[0];
    parent.write(slab, 0, &page(1));
    let child = parent.share();
    parent.bye();
    let mut child = Client::join(server.addr(), child, 0);
    let grandchild = child.share();
    let mut grandchild = Client::join(server.addr(), grandchild, 0);
    child.bye();
    assert!(grandchild.read(slab, 0, 1) == page(1));
    grandchild.write(slab, 0, &page(2));
    grandchild.bye();
    assert_eq!(server.stats().granted_pages, 0);
    // One that nobody joins goes with its parent, after the grace.
    let server = server_with(64, |config| config.grace = Duration::from_millis(1));
    let mut parent = Client::new(server.addr());
    parent.grant(1);
    parent.share();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(server.stats().sessions, 2);
    parent.bye();
    until("ended", || server.stats().sessions == 0);
    // Its memory is freed after it was taken from the list of sessions.
    until("freed", || server.stats().granted_pages == 0);
}

#[test]
fn a_fork_that_meets_the_limit_of_children_waits_for_one_to_be_joined() {
    let server = server(64);
    let mut parent = Client::new(server.addr());
    let children: Vec<_> = (0..64).map(|_| parent.share()).collect();
    let asked = parent.send(run(Op::Share, 0, 0, 0), &[]);
    let mut other = Client::join(server.addr(), parent.session(), 7);
    other.ping();
    let _child = Client::join(server.addr(), children[0], 0);
    let (reply, child) = parent.receive();
    assert_eq!((reply.id, reply.status), (asked, Status::Ok));
    let child = SessionId(child.try_into().unwrap());
    Client::join(server.addr(), child, 0).ping();
}

#[test]
fn connections_are_limited_and_those_that_say_nothing_make_room() {
    let server = server_with(64, |config| {
        (config.max_connections, config.max_per_client) = (8, Some(8));
    });
    let mut clients: Vec<_> = (0..6).map(|_| Client::new(server.addr())).collect();
    // Another program is told why it cannot be served.
    let mut stream = connect(server.addr());
    stream
        .write_all(&message(
            run(Op::Hello, 0, 0, 0),
            &hello(SessionId::NEW).encode(),
        ))
        .unwrap();
    let (reply, text) = receive(&mut stream).unwrap();
    assert_eq!(reply.status, Status::Limit);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("--max-connections"), "{text}");
    assert!(ended(&mut stream));
    // Those who are in have places left, for their children first.
    let further = Client::greet(server.addr(), clients[0].session(), 9, None);
    assert_eq!(further.unwrap_err(), Status::Limit);
    let forked: Vec<_> = clients.iter_mut().take(3).map(|c| c.share()).collect();
    let join = |n: usize| Client::greet(server.addr(), forked[n], 0, None);
    let joined: Vec<_> = (0..2).map(|n| join(n).unwrap()).collect();
    assert_eq!(join(2).unwrap_err(), Status::Limit);
    drop(joined);
    join(2).unwrap().ping();
    clients.iter_mut().for_each(Client::ping);
    clients.truncate(2);
    until("left", || server.stats().connections == 2);
    let mut silent: Vec<_> = (0..100).map(|_| connect(server.addr())).collect();
    let mut c = Client::new(server.addr());
    c.ping();
    clients.iter_mut().for_each(Client::ping);
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn one_client_machine_has_half_of_the_connections_and_some_more_for_its_forks() {
    let server = server_with(64, |config| config.max_connections = 8);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(server.addr())).collect();
    let refused = Client::greet(server.addr(), SessionId::NEW, 0, None);
    assert_eq!(refused.unwrap_err(), Status::Limit);
    let forked: Vec<_> = clients.iter_mut().map(|c| c.share()).collect();
    let join = |n: usize| Client::greet(server.addr(), forked[n], 0, None);
    let _joined: Vec<_> = (0..2).map(|n| join(n).unwrap()).collect();
    assert_eq!(join(2).unwrap_err(), Status::Limit);
}
