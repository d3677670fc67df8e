//! Clients that mean harm, or are broken. After them others are served.

use crate::client::{
    Asks, Client, connect, ended, hello, page, pages, receive, run, server, until,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use tmem_memserver::Handle;
use tmem_wire::{HEADER_LEN, Header, Op, PAGE_SIZE, SessionId, Status};

/// The server serves, and nothing is left of those before.
fn still_serves(server: &Handle, held: u64) {
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    c.write(slab, 0, &pages(0..64));
    assert!(c.read(slab, 0, 64) == pages(0..64));
    c.bye();
    until("all gone", || server.stats().connections == held);
}

/// Sends bytes and waits until the server has enough of them, or they are
/// answered and the other half is ended too.
fn throw(stream: &mut TcpStream, bytes: &[u8]) {
    let mut sender = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server may end the connection whenever it has seen enough.
            let _ = sender.write_all(bytes);
            let _ = sender.shutdown(Shutdown::Write);
        });
        let mut answer = [0; 4096];
        while stream.read(&mut answer).is_ok_and(|n| n > 0) {}
    });
}

fn greeted(addr: SocketAddr) -> TcpStream {
    let mut c = Client::new(addr);
    c.grant(1);
    c.stream
}

#[test]
fn random_bytes_end_the_connection_and_nothing_else() {
    let server = server(64 * 400);
    let mut good = Client::new(server.addr());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let addr = server.addr();
            scope.spawn(move || {
                let bytes = prop::collection::vec(any::<u8>(), 0..400);
                let mut runner = TestRunner::deterministic();
                for n in 0..40 {
                    let bytes = bytes.new_tree(&mut runner).unwrap().current();
                    let mut stream = if (n + thread) % 2 == 0 {
                        connect(addr)
                    } else {
                        greeted(addr)
                    };
                    throw(&mut stream, &bytes);
                }
            });
        }
        for _ in 0..100 {
            good.ping();
        }
    });
    until("alone", || server.stats().connections == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Headers of which most fields make sense.
    #[test]
    fn near_misses_do_no_harm(
        messages in prop::collection::vec(
            (0..14u8, 0..8u8, 0..14u16, prop_oneof![
                Just(0), Just(PAGE_SIZE as u32), 0..70_000u32, any::<u32>(),
            ], 0..3u32, 0..70u32, prop_oneof![0..4u32, any::<u32>()], 0..6000usize),
            1..12,
        ),
        greet: bool,
    ) {
        let server = server(128);
        let mut bytes = Vec::new();
        for (op, flags, status, len, slab, at, count, sent) in messages {
            let mut header = run(Op::Ping, slab, at, count);
            header.len = len;
            let mut header = header.encode();
            (header[0], header[1]) = (op, flags);
            header[2..4].copy_from_slice(&status.to_le_bytes());
            bytes.extend_from_slice(&header);
            bytes.resize(bytes.len() + sent, 0x5a);
        }
        let mut stream = if greet { greeted(server.addr()) } else { connect(server.addr()) };
        throw(&mut stream, &bytes);
        let mut c = Client::new(server.addr());
        c.ping();
        let stats = c.stats();
        prop_assert!(stats.granted_pages <= stats.capacity_pages);
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_anything_is_kept() {
    let server = server(1024);
    for (op, len, count) in [
        (Op::Hello, u32::MAX, 0),
        (Op::Ping, 64 * 1024 + 1, 0),
        (Op::Write, u32::MAX, u32::MAX),
        (Op::Write, 513 * PAGE_SIZE as u32, 513),
        (Op::Write, PAGE_SIZE as u32 - 1, 1),
        (Op::Release, 1 << 31, 0),
        (Op::Read, 1 << 20, 1),
    ] {
        for mut stream in [connect(server.addr()), greeted(server.addr())] {
            let header = Header {
                len,
                ..run(op, 0, 0, count)
            };
            stream.write_all(&header.encode()).unwrap();
            let (reply, text) = receive(&mut stream).unwrap();
            assert_eq!((reply.op, reply.status), (op, Status::BadRequest));
            assert!(!text.is_empty());
            assert!(ended(&mut stream));
        }
    }
}

#[test]
fn messages_cut_short_anywhere_leave_nothing_behind() {
    let server = crate::client::server_with(4096, |c| c.grace = Duration::ZERO);
    let mut write = run(Op::Write, 0, 0, 2);
    write.len = 2 * PAGE_SIZE as u32;
    let write = [&write.encode()[..], &pages([1, 2])].concat();
    let mut greeting = run(Op::Hello, 0, 0, 0);
    greeting.len = 48;
    let greeting = [&greeting.encode()[..], &hello(SessionId::NEW).encode()].concat();
    for cut in [0, 1, 31, 32, 33, 79] {
        connect(server.addr()).write_all(&greeting[..cut]).unwrap();
    }
    for cut in [0, 1, 31, 32, 33, 32 + 4096, 32 + 2 * 4096 - 1] {
        greeted(server.addr()).write_all(&write[..cut]).unwrap();
    }
    still_serves(&server, 0);
    until("freed", || server.stats().granted_pages == 0);
}

#[test]
fn many_that_say_nothing_hold_nobody_up() {
    let server = server(4096);
    let silent: Vec<_> = (0..200).map(|_| connect(server.addr())).collect();
    let mut half: Vec<_> = (0..50).map(|_| greeted(server.addr())).collect();
    for stream in &mut half {
        stream
            .write_all(&run(Op::Write, 0, 0, 1).encode()[..HEADER_LEN / 2])
            .unwrap();
    }
    still_serves(&server, 50);
    drop((silent, half));
}

#[test]
fn one_that_does_not_read_holds_nobody_up() {
    let server = server(4096);
    let mut slow = Client::new(server.addr());
    let slab = slow.grant(1)[0];
    slow.write(slab, 0, &pages(0..64));
    let id = slow.session();
    // Many times what the sockets hold; the rest waits in this thread.
    let mut stream = slow.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let one = run(Op::Read, slab, 0, 64).encode();
        let many = one.repeat(1000);
        while stream.write_all(&many).is_ok() {}
    });
    until("begun", || server.stats().pages_read > 64);
    let mut c = Client::new(server.addr());
    let own = c.grant(1)[0];
    for n in 0..1000 {
        c.write(own, 3, &page(n));
        assert!(c.read(own, 3, 1) == page(n));
    }
    // Its own other lane goes on too.
    let mut other = Client::join(server.addr(), id, 5);
    assert!(other.read(slab, 0, 64) == pages(0..64));
    other.write(slab, 0, &page(9));
    // Nor does it hold up the end.
    server.shutdown();
    flood.join().unwrap();
}

#[test]
fn one_that_is_slow_within_a_message_holds_nobody_up() {
    let server = server(4096);
    let mut slow = Client::new(server.addr());
    let slab = slow.grant(1)[0];
    let mut header = run(Op::Write, slab, 0, 64);
    header.len = 64 * PAGE_SIZE as u32;
    slow.stream.write_all(&header.encode()).unwrap();
    slow.stream.write_all(&pages(0..30)).unwrap();
    let mut other = Client::join(server.addr(), slow.session(), 0);
    other.write(slab, 63, &page(1));
    // What has not come in whole was not written.
    assert!(other.read(slab, 0, 63).iter().all(|b| *b == 0));
    other.grant(1);
    still_serves(&server, 2);
    slow.stream.write_all(&pages(30..64)).unwrap();
    assert_eq!(slow.receive().0.status, Status::Ok);
    assert!(other.read(slab, 0, 64) == pages(0..64));
}
