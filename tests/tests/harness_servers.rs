//! The bad servers are bad in the way they say. No tmem here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tmem_tests::Proxy;
use tmem_tests::fake::{self, Behaviour};
use tmem_tests::proxy::Fault;
use tmem_wire::{HEADER_LEN, Header, Hello, Op, PAGE_SIZE, SessionId, Status, VERSION};

/// Answers every READ with pages of 0x55.
fn good_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; HEADER_LEN];
            while stream.read_exact(&mut head).is_ok() {
                let request = Header::decode(&head).expect("a good request");
                let payload = vec![0x55; request.count as usize * PAGE_SIZE];
                let reply = request.reply(Status::Ok, payload.len() as u32);
                let message = [&reply.encode()[..], &payload].concat();
                if stream.write_all(&message).is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// What comes back for a READ of two pages, until the connection ends or
/// nothing comes for a while.
fn read_through(proxy: &Proxy, stream: &mut TcpStream) -> Vec<u8> {
    let request = Header {
        count: 2,
        ..Header::request(Op::Read, 7)
    };
    stream
        .write_all(&request.encode())
        .expect("the proxy takes a request");
    let mut answer = vec![];
    let mut buffer = [0; 4096];
    while answer.len() < HEADER_LEN + 2 * PAGE_SIZE {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => answer.extend(&buffer[..n]),
            _ => break,
        }
    }
    assert!(proxy.connections() > 0);
    answer
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout can be set");
    stream
}

#[test]
fn a_proxy_without_fault_changes_nothing() {
    let proxy = Proxy::spawn(good_server());
    let answer = read_through(&proxy, &mut connect(&proxy));
    assert_eq!(answer[HEADER_LEN..], [0x55; 2 * PAGE_SIZE]);
    assert_eq!(proxy.faults(), 0);
}

#[test]
fn a_lying_proxy_turns_one_bit() {
    let proxy = Proxy::spawn(good_server());
    proxy.set(Fault::FlipReads);
    let answer = read_through(&proxy, &mut connect(&proxy));
    let bits: u32 = answer[HEADER_LEN..]
        .iter()
        .map(|b| (b ^ 0x55).count_ones())
        .sum();
    assert_eq!(bits, 1);
    proxy.set(Fault::ZeroReads);
    let answer = read_through(&proxy, &mut connect(&proxy));
    assert_eq!(answer[HEADER_LEN..], [0; 2 * PAGE_SIZE]);
    assert_eq!(proxy.faults(), 2);
}

#[test]
fn a_cut_comes_in_the_middle_of_a_page_and_once() {
    let proxy = Proxy::spawn(good_server());
    proxy.set(Fault::CutRead);
    let answer = read_through(&proxy, &mut connect(&proxy));
    assert_eq!(answer.len(), HEADER_LEN + 2 * PAGE_SIZE - 1000);
    let answer = read_through(&proxy, &mut connect(&proxy));
    assert_eq!(answer.len(), HEADER_LEN + 2 * PAGE_SIZE);
    assert_eq!(proxy.faults(), 1);
}

#[test]
fn a_proxy_that_is_gone_ends_its_connections_and_takes_no_more() {
    let proxy = Proxy::spawn(good_server());
    let mut stream = connect(&proxy);
    read_through(&proxy, &mut stream);
    proxy.set(Fault::Gone);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(matches!(connect(&proxy).read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn bad_servers_answer_a_hello_as_they_say() {
    let hello = Hello {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
        session: SessionId::NEW,
        nonce: [0; 16],
    };
    let request = Header {
        len: Hello::LEN as u32,
        ..Header::request(Op::Hello, 1)
    };
    let message = [&request.encode()[..], &hello.encode()].concat();
    let answer = |behaviour| {
        let mut stream = TcpStream::connect(fake::server(behaviour)).expect("it listens");
        stream.write_all(&message).expect("it takes a request");
        let mut head = [0; HEADER_LEN];
        stream
            .read_exact(&mut head)
            .ok()
            .map(|()| Header::decode(&head).map(|h| h.status))
    };
    assert_eq!(
        answer(Behaviour::OtherVersion),
        Some(Ok(Status::BadVersion))
    );
    assert_eq!(answer(Behaviour::Full), Some(Ok(Status::Ok)));
    assert!(matches!(answer(Behaviour::Garbage), Some(Err(_))));
    assert_eq!(answer(Behaviour::Closes), None);
    assert!(TcpStream::connect(fake::nobody()).is_err());
}
