//! Servers that are reached through an agent.

use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::string::String;
use std::thread;
use tmem_wire::Preface;

const TOKEN: [u8; 16] = [9; 16];

/// Leads two connections on to where their preface says, over TCP.
fn agent(name: &str) -> thread::JoinHandle<Vec<Preface>> {
    let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name).unwrap()).unwrap();
    thread::spawn(move || {
        (0..2)
            .map(|_| {
                let (mut engine, _) = listener.accept().unwrap();
                let mut bytes = [0; Preface::LEN];
                engine.read_exact(&mut bytes).unwrap();
                let preface = Preface::decode(&bytes).unwrap();
                let server = TcpStream::connect(preface.server).unwrap();
                let (up, down) = (engine.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(engine, server));
                thread::spawn(move || copy_back(down, up));
                preface
            })
            .collect()
    })
}

fn copy(mut from: UnixStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn copy_back(mut from: TcpStream, mut to: UnixStream) {
    let mut bytes = [0; 8192];
    while let Ok(n) = from.read(&mut bytes)
        && n > 0
        && to.write_all(&bytes[..n]).is_ok()
    {}
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn an_agent_is_told_the_token_and_the_server_before_anything_else() {
    let fake = Fake::new();
    let name = std::format!("tmem-test-{}", std::process::id());
    let leading = agent(&name);
    let endpoint = Endpoint {
        name: String::from("rdma"),
        addrs: vec![fake.addr()],
        agent: Some(Agent {
            name: name.into_bytes(),
            token: TOKEN,
        }),
    };
    let mut c = Client::of(vec![endpoint], Options::default());
    c.until(|c| matches!(c, Completion::Up { .. }));
    assert_eq!(c.grant(1).len(), 1);
    let mut frames = Frames::new(1);
    c.write(1, at(0, 0), &mut frames, &[0]);
    c.until_second();
    for preface in leading.join().unwrap() {
        assert_eq!((preface.token, preface.server), (TOKEN, fake.addr()));
    }
}

#[test]
fn an_agent_that_is_not_there_is_a_server_that_cannot_be_reached() {
    let endpoint = Endpoint {
        name: String::from("rdma"),
        addrs: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1))],
        agent: Some(Agent {
            name: std::format!("tmem-test-none-{}", std::process::id()).into_bytes(),
            token: TOKEN,
        }),
    };
    let mut c = Client::of(vec![endpoint], Options::default());
    assert!(matches!(c.until(|_| true), Completion::Refused { .. }));
}
