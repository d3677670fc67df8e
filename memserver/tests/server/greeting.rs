//! How clients are let in.

use crate::client::{
    Asks, Client, connect, ended, hello, nothing_said, page, receive, run, server, server_with,
};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use tmem_wire::auth::Keys;
use tmem_wire::{Header, Hello, HelloReply, Op, SessionId, Status, VERSION};

#[test]
fn the_secret_opens_and_nothing_else_does() {
    let secret = b"open sesame, please";
    let server = server_with(64, |config| config.secret = Some(secret.to_vec()));
    let new = SessionId::NEW;
    let mut c = Client::greet(server.addr(), new, 0, Some(secret)).unwrap();
    let slab = c.grant(1)[0];
    c.write(slab, 0, &page(1));
    for wrong in [&b"open sesame, pleas"[..], b"", b"open sesame, please\n"] {
        let refused = Client::greet(server.addr(), new, 0, Some(wrong));
        assert_eq!(refused.unwrap_err(), Status::Auth);
    }
    // Knowing a session is not enough.
    let refused = Client::greet(server.addr(), c.session(), 0, Some(b"x"));
    assert_eq!(refused.unwrap_err(), Status::Auth);
    assert!(Client::greet(server.addr(), c.session(), 3, Some(secret)).is_ok());
    let gone = Client::greet(server.addr(), SessionId([1; 16]), 0, Some(secret));
    assert_eq!(gone.unwrap_err(), Status::NoSession);
    // Nor is a proof for another connection, or no proof, or the server's own.
    let other = Keys::new(secret, 0, &hello(new).encode(), &nothing_said());
    for proof in [&other.auth(new)[..], &[], &[0; 48], &[0; 5000]] {
        let (mut stream, told) = challenged(server.addr(), &hello(new));
        assert_eq!((told.instance, told.capacity_pages), ([0; 16], 0));
        assert_eq!((told.features, told.slab_pages), (0, 0));
        stream
            .write_all(&message(run(Op::Auth, 0, 0, 0), proof))
            .unwrap();
        let (reply, text) = receive(&mut stream).unwrap();
        assert_eq!(reply.status, Status::Auth);
        // It proves nothing to a stranger.
        assert!(text.len() < 48, "{text:?}");
        assert!(ended(&mut stream));
    }
    // Another request instead of the proof.
    let (mut stream, _) = challenged(server.addr(), &hello(new));
    stream
        .write_all(&message(run(Op::Grant, 0, 0, 1), &[]))
        .unwrap();
    assert_eq!(receive(&mut stream).unwrap().0.status, Status::BadRequest);
    assert!(ended(&mut stream));
    assert_eq!(server.stats().sessions, 1);
}

/// A connection whose HELLO was answered with a challenge.
fn challenged(addr: SocketAddr, hello: &Hello) -> (TcpStream, HelloReply) {
    let mut stream = connect(addr);
    let greeting = message(run(Op::Hello, 0, 0, 0), &hello.encode());
    stream.write_all(&greeting).unwrap();
    let (reply, body) = receive(&mut stream).unwrap();
    assert_eq!(reply.status, Status::Auth);
    (stream, HelloReply::decode(&body).unwrap())
}

#[test]
fn another_version_is_refused_with_what_is_spoken() {
    let server = server(64);
    for (min, max, fits) in [
        (VERSION + 1, u16::MAX, false),
        (0, VERSION - 1, false),
        (u16::MAX, 0, false),
        (0, u16::MAX, true),
    ] {
        let hello = Hello {
            min_version: min,
            max_version: max,
            ..hello(SessionId::NEW)
        };
        let mut stream = connect(server.addr());
        stream
            .write_all(&message(run(Op::Hello, 0, 0, 0), &hello.encode()))
            .unwrap();
        let (reply, body) = receive(&mut stream).unwrap();
        if fits {
            assert_eq!(reply.status, Status::Ok);
        } else {
            assert_eq!(reply.status, Status::BadVersion);
            let text = String::from_utf8(body).unwrap();
            assert!(text.contains(&format!("version {VERSION}")), "{text}");
            assert!(ended(&mut stream));
        }
    }
}

/// A message with this payload.
pub(crate) fn message(header: Header, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        len: payload.len() as u32,
        ..header
    };
    [&header.encode()[..], payload].concat()
}

#[test]
fn a_server_without_rdma_does_not_promise_it() {
    let server = server(64);
    let c = Client::new(server.addr());
    assert_eq!(c.hello.features & tmem_wire::FEATURE_RDMA, 0);
    assert_eq!(server.rdma_addr(), None);
}
