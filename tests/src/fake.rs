//! Servers that are no good from the first byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use tmem_wire::{HEADER_LEN, Header, HelloReply, Op, SessionId, Status, VERSION};

/// What a bad server does with each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes it and closes it.
    Closes,
    /// Takes it and says nothing.
    Silent,
    /// Answers everything with bytes that mean nothing.
    Garbage,
    /// Speaks another version only.
    OtherVersion,
    /// Greets, and grants nothing.
    Full,
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a listener has an address")
}

/// Starts a bad server; it lives as long as the test's process.
pub fn server(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // What a client does with a bad server is not an error here.
            thread::spawn(move || drop(serve(&stream, behaviour)));
        }
    });
    address
}

fn serve(mut stream: &TcpStream, behaviour: Behaviour) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Closes => Ok(()),
        Behaviour::Silent => loop {
            if stream.read(&mut [0; 512])? == 0 {
                return Ok(());
            }
        },
        Behaviour::Garbage => loop {
            if stream.read(&mut [0; 512])? == 0 {
                return Ok(());
            }
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        },
        Behaviour::OtherVersion | Behaviour::Full => loop {
            let mut head = [0; HEADER_LEN];
            stream.read_exact(&mut head)?;
            let Ok(header) = Header::decode(&head) else {
                return Ok(());
            };
            stream.read_exact(&mut vec![0; header.len as usize])?;
            let (status, payload) = answer(header.op, behaviour);
            let reply = header.reply(status, payload.len() as u32);
            stream.write_all(&[&reply.encode()[..], &payload].concat())?;
        },
    }
}

fn answer(op: Op, behaviour: Behaviour) -> (Status, Vec<u8>) {
    match (op, behaviour) {
        (Op::Hello, Behaviour::OtherVersion) => (
            Status::BadVersion,
            b"this server speaks version 99 only".to_vec(),
        ),
        (Op::Hello, _) => {
            let reply = HelloReply {
                version: VERSION,
                features: 0,
                slab_pages: 4096,
                session: SessionId([3; 16]),
                instance: [4; 16],
                challenge: [0; 16],
                capacity_pages: 4096,
                free_pages: 0,
            };
            (Status::Ok, reply.encode().to_vec())
        }
        (Op::Grant, _) => (Status::Full, b"all memory is granted".to_vec()),
        (Op::Ping | Op::Bye | Op::Release, _) => (Status::Ok, vec![]),
        _ => (Status::NoSuchSlab, vec![]),
    }
}
