//! A server that is to end once it holds nothing, and what it asks of its clients.

use crate::client::{Asks, Client, hello, page, receive, run, server, until};
use crate::daemon::{Daemon, command};
use std::io::Write;
use tmem_wire::{FEATURE_NOTICE, Header, Hello, NOTICE_DRAIN, NOTICE_ID, Op, SessionId, Status};

/// A client that hears what it has not asked for.
fn hearing(daemon: &Daemon, session: SessionId) -> Client {
    let hello = Hello {
        features: FEATURE_NOTICE,
        ..hello(session)
    };
    Client::greet_as(daemon.addr, &hello, 1)
}

/// Whether the next message is that the server drains.
fn is_told(client: &mut Client) -> bool {
    let (notice, _) = receive(&mut client.stream).unwrap();
    (notice.op, notice.id, notice.reply, notice.page) == (Op::Notice, NOTICE_ID, true, NOTICE_DRAIN)
}

#[test]
fn a_server_that_drains_tells_its_clients_and_ends_when_it_holds_nothing() {
    let mut daemon = Daemon::on_free_port(&["--capacity", "16M", "--slab-size", "1M"]);
    let mut c = hearing(&daemon, SessionId::NEW);
    let mut silent = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(1));
    let other = silent.grant(1);
    daemon.signal(libc::SIGUSR1);
    assert!(is_told(&mut c));
    // What is there can be read, written and given back, and no more is to be had.
    assert!(c.read(slab, 0, 1) == page(1));
    c.write(slab, 1, &page(2));
    assert_eq!(c.ask(run(Op::Grant, 0, 0, 1), &[]).0, Status::Full);
    // Whoever comes again is told again, and one that does not hear is not.
    let mut again = hearing(&daemon, c.session());
    assert!(is_told(&mut again));
    assert_eq!(again.hello.free_pages, 0);
    silent.ping();
    silent.release(&other);
    silent.ping();
    again.release(&[slab]);
    assert!(again.is_told_of_the_end());
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn an_answer_that_is_being_sent_is_not_torn_by_what_was_not_asked_for() {
    let daemon = Daemon::on_free_port(&["--capacity", "16M", "--slab-size", "1M"]);
    let mut c = hearing(&daemon, SessionId::NEW);
    let slab = c.grant(1)[0];
    let all = crate::client::pages(0..256);
    c.write(slab, 0, &all);
    // More than the kernel keeps for a client that does not read.
    for _ in 0..40 {
        c.send(run(Op::Read, slab, 0, 256), &[]);
    }
    for _ in 0..50 {
        daemon.signal(libc::SIGUSR1);
    }
    let (mut reads, mut notices) = (0, 0);
    while reads < 40 || notices == 0 {
        let (header, body) = c.receive();
        match header.op {
            Op::Read => {
                assert!(body == all);
                reads += 1;
            }
            Op::Notice => notices += 1,
            op => panic!("{op:?}"),
        }
    }
}

fn drain(daemon: &Daemon, more: &[&str]) -> (Option<i32>, String) {
    let addr = daemon.addr.to_string();
    let output = command(&[&["drain", &addr], more].concat())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_command_drains_a_server_and_says_what_is_left() {
    let mut daemon = Daemon::on_free_port(&["--capacity", "16M", "--slab-size", "1M"]);
    let mut c = Client::new(daemon.addr);
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(1));
    let (status, text) = drain(&daemon, &["--wait", "0"]);
    assert_eq!(status, Some(3), "{text}");
    assert!(
        text.contains("still holds 1 pages (0 MiB) of 1 sessions"),
        "{text}"
    );
    c.release(&[slab]);
    assert_eq!(daemon.wait(), Some(0));
    let (status, text) = drain(&daemon, &[]);
    assert_eq!(status, Some(1), "{text}");
    let mut empty = Daemon::on_free_port(&["--capacity", "16M"]);
    let (status, text) = drain(&empty, &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("is drained, and has ended"), "{text}");
    assert_eq!(empty.wait(), Some(0));
}

#[test]
fn who_does_not_know_the_secret_drains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let secret = crate::daemon::write(&folder.path().join("secret"), "0123456789abcdef");
    let mut daemon = Daemon::on_free_port(&["--capacity", "16M", "--secret-file", &secret]);
    let (status, text) = drain(&daemon, &[]);
    assert_eq!(status, Some(1), "{text}");
    // Nor one that asks before it has greeted.
    let mut stranger = crate::client::connect(daemon.addr);
    stranger
        .write_all(&Header::request(Op::Drain, 1).encode())
        .unwrap();
    let (reply, _) = receive(&mut stranger).unwrap();
    assert_eq!(reply.status, Status::BadRequest);
    let (status, text) = drain(&daemon, &["--secret-file", &secret]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_notice_from_a_client_is_refused_and_harms_nobody() {
    let server = server(256);
    let mut c = Client::new(server.addr());
    let (status, _) = c.ask(run(Op::Notice, 0, NOTICE_DRAIN, 0), &[]);
    assert_eq!(status, Status::BadRequest);
    c.ping();
    until("served", || {
        Client::new(server.addr()).stats().sessions >= 1
    });
}
