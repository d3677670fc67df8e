//! Connections come about, or not, and end.

use crate::common::*;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tmem_verbs::{Connection, Error, Event, Kind, Limits, Listener, Op, Status, available};

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn rdma_is_available() {
    available().unwrap();
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn both_ends_see_each_others_private_data() {
    let mut listener = listen();
    let to = listener.local_addr();
    assert_ne!(to.port(), 0);
    assert!(listener.next().unwrap().is_none());
    let request = pattern(56, 1);
    let sent = request.clone();
    let client = thread::spawn(move || Connection::connect(to, PATIENCE, &LIMITS, &sent).unwrap());
    wait(listener.fd());
    let incoming = listener.next().unwrap().unwrap();
    assert_eq!(incoming.private_data(), request);
    assert_eq!(incoming.peer().unwrap().ip(), to.ip());
    let mut server = incoming.accept(&LIMITS, b"welcome").unwrap();
    let client = client.join().unwrap();
    assert!(client.private_data().starts_with(b"welcome\0"));
    assert!(client.private_data()[7..].iter().all(|byte| *byte == 0));
    assert_eq!(client.peer(), Some(to));
    assert_eq!(server.private_data(), request);
    assert_eq!(event(&mut server), Event::Established);

    let error = Connection::connect(to, PATIENCE, &LIMITS, &[0; 57]).unwrap_err();
    let too_long = matches!(error, Error::PrivateData { len: 57, most: 56 });
    assert!(too_long, "{error}");
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_device_clips_the_limits() {
    let mut listener = listen();
    let to = listener.local_addr();
    let most = Limits {
        sends: 16,
        receives: 16,
        inline: 1 << 20,
        reads: 255,
    };
    let client = thread::spawn(move || Connection::connect(to, PATIENCE, &most, b"").unwrap());
    wait(listener.fd());
    let incoming = listener.next().unwrap().unwrap();
    let server = incoming.accept(&LIMITS, b"").unwrap();
    let client = client.join().unwrap();
    println!("wanted {most:?}, got {:?}", client.limits());
    assert!(client.limits().inline < most.inline);
    assert!(client.limits().reads > 0);
    assert_eq!(server.limits(), &LIMITS);
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn receives_posted_before_the_connection_is_there_are_in_time() {
    let mut listener = listen();
    let to = listener.local_addr();
    let client = thread::spawn(move || Connection::connect(to, PATIENCE, &LIMITS, b"").unwrap());
    wait(listener.fd());
    let mut room = None;
    let incoming = listener.next().unwrap().unwrap();
    let mut server = incoming
        .accept_with(&LIMITS, b"", |server| {
            let memory = Memory::new(&server.domain(), &[0; 64], ALL);
            let posted = server.post_receive(4, &memory.region().piece(0, 64)?);
            room = Some(memory);
            posted
        })
        .unwrap();
    let mut client = client.join().unwrap();
    let message = Memory::new(&client.domain(), b"hello", ALL);
    let begin = Instant::now();
    run(&mut client, Op::Send, message.whole()).unwrap();
    println!("sent and acknowledged in {:?}", begin.elapsed());
    assert_eq!(completions(&mut server, 1)[0].kind, Kind::Receive(5));
    assert!(room.unwrap().bytes().starts_with(b"hello"));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn the_other_end_sees_a_disconnect() {
    // Said, and by dropping.
    for said in [true, false] {
        let (mut client, mut server) = ends();
        let room = Memory::new(&server.domain(), &[0; 64], ALL);
        for id in 0..3 {
            let piece = room.region().piece(0, 64).unwrap();
            server.post_receive(id, &piece).unwrap();
        }
        server.arm().unwrap();
        if said {
            let room = Memory::new(&client.domain(), &[0; 64], ALL);
            let piece = room.region().piece(0, 64).unwrap();
            client.post_receive(9, &piece).unwrap();
            client.disconnect();
            let done = completions(&mut client, 1)[0];
            assert_eq!((done.id, done.status), (9, Err(Status::Flushed)));
        } else {
            drop(client);
        }
        assert_eq!(event(&mut server), Event::Disconnected);
        wait(server.completion_fd());
        server.clear_completion_events().unwrap();
        for (id, done) in completions(&mut server, 3).iter().enumerate() {
            assert_eq!((done.id, done.kind), (id as u64, Kind::Receive(0)));
            assert_eq!(done.status, Err(Status::Flushed));
        }
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn nobody_listening_and_a_refusal_are_told_apart() {
    let nowhere = SocketAddr::new(addr().ip(), 9);
    let begin = Instant::now();
    let error = Connection::connect(nowhere, PATIENCE, &LIMITS, b"").unwrap_err();
    println!("{error}, after {:?}", begin.elapsed());
    assert!(matches!(error, Error::NobodyListens { .. }), "{error}");

    for said in [true, false] {
        let mut listener = listen();
        let to = listener.local_addr();
        let client = thread::spawn(move || Connection::connect(to, PATIENCE, &LIMITS, b""));
        wait(listener.fd());
        let incoming = listener.next().unwrap().unwrap();
        if said {
            incoming.reject();
        } else {
            drop(incoming);
        }
        let error = client.join().unwrap().unwrap_err();
        println!("{error}");
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn no_answer_and_an_address_without_a_device_are_errors() {
    let listener = listen();
    let to = listener.local_addr();
    let begin = Instant::now();
    let short = Duration::from_millis(500);
    let error = Connection::connect(to, short, &LIMITS, b"").unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() >= short);

    let elsewhere = "127.0.0.1:7070".parse().unwrap();
    let error = Connection::connect(elsewhere, PATIENCE, &LIMITS, b"").unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");

    let nobodys = Listener::bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
    println!("{nobodys}");
    assert!(nobodys.to_string().contains("an RDMA device's address"));

    let busy = Listener::bind(to, 1).unwrap_err();
    println!("{busy}");
    assert!(matches!(busy, Error::Listen { .. }), "{busy}");
}
