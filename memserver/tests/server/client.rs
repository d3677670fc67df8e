//! A small client that waits for its answers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tmem_memserver::{Config, Handle, Server};
use tmem_wire::{
    BYE_ID, HEADER_LEN, Header, Hello, HelloReply, Op, PAGE_SIZE, ServerStats, SessionId, Status,
    VERSION, auth::Keys, decode_slab_list, encode_slab_list,
};

/// A server with `pages` pages in slabs of 64, whose sessions outlive the test.
pub(crate) fn server(pages: u64) -> Handle {
    server_with(pages, |_| {})
}

pub(crate) fn server_with(pages: u64, change: impl FnOnce(&mut Config)) -> Handle {
    let mut config = Config {
        listen: "127.0.0.1:0".to_owned(),
        capacity: pages * PAGE_SIZE as u64,
        slab_size: 64 * PAGE_SIZE as u64,
        grace: Duration::from_secs(3600),
        ..Config::default()
    };
    change(&mut config);
    Server::bind(config).unwrap().spawn().unwrap()
}

/// Waits until it is so; generous, since it only ends a test that fails.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A page that only `seed` makes.
pub(crate) fn page(seed: u64) -> Vec<u8> {
    let words = (0..PAGE_SIZE as u64 / 8).map(|i| (seed << 16 | i).wrapping_mul(0x9e37_79b9));
    words.flat_map(u64::to_le_bytes).collect()
}

pub(crate) fn pages(seeds: impl IntoIterator<Item = u64>) -> Vec<u8> {
    seeds.into_iter().flat_map(page).collect()
}

pub(crate) fn hello(session: SessionId) -> Hello {
    Hello {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
        session,
        nonce: [7; 16],
    }
}

pub(crate) fn run(op: Op, slab: u32, page: u32, count: u32) -> Header {
    Header {
        slab,
        page,
        count,
        ..Header::request(op, 0)
    }
}

/// What clients ask over connections of any kind.
pub(crate) trait Asks {
    /// Sends a request and receives the reply to it.
    fn ask(&mut self, header: Header, payload: &[u8]) -> (Status, Vec<u8>);

    fn done(&mut self, header: Header, payload: &[u8]) -> Vec<u8> {
        let (status, body) = self.ask(header, payload);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, Status::Ok, "{header:?}: {text}");
        body
    }

    fn grant(&mut self, count: u32) -> Vec<u32> {
        decode_slab_list(&self.done(run(Op::Grant, 0, 0, count), &[])).unwrap()
    }

    fn release(&mut self, slabs: &[u32]) {
        self.done(run(Op::Release, 0, 0, 0), &encode_slab_list(slabs));
    }

    fn share(&mut self) -> SessionId {
        let body = self.done(run(Op::Share, 0, 0, 0), &[]);
        SessionId(body.try_into().unwrap())
    }
}

/// A connection that is greeted.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) hello: HelloReply,
    next: u64,
}

impl Asks for Client {
    fn ask(&mut self, header: Header, payload: &[u8]) -> (Status, Vec<u8>) {
        let id = self.send(header, payload);
        let (reply, body) = self.receive();
        assert!(reply.reply && reply.id == id, "{reply:?}");
        assert_eq!(reply.op, header.op);
        (reply.status, body)
    }
}

/// A connection that is not greeted.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

impl Client {
    /// Opens a session.
    pub(crate) fn new(addr: SocketAddr) -> Client {
        Client::greet(addr, SessionId::NEW, 0, None).unwrap()
    }

    /// Joins a session, or opens one.
    pub(crate) fn greet(
        addr: SocketAddr,
        session: SessionId,
        lane: u32,
        secret: Option<&[u8]>,
    ) -> Result<Client, Status> {
        let mut client = Client {
            stream: connect(addr),
            hello: HelloReply::decode(&nothing_said()).unwrap(),
            next: 1,
        };
        // Those who know the secret tell nobody else what they want.
        let told = secret.map_or(session, |_| SessionId::NEW);
        let hello = hello(told).encode();
        let request = run(Op::Hello, lane, 0, 0);
        let (mut status, mut reply) = client.ask(request, &hello);
        if let (Status::Auth, Some(secret)) = (status, secret) {
            let keys = Keys::new(secret, lane, &hello, &reply);
            let auth = keys.auth(session);
            (status, reply) = client.ask(run(Op::Auth, 0, 0, 0), &auth);
            if let Status::Ok | Status::NoSession = status {
                let told = keys.told(&auth, &reply).expect("the server proves itself");
                reply = told.encode().to_vec();
            }
        }
        if status == Status::NoSession {
            let told = HelloReply::decode(&reply).unwrap();
            assert_ne!(
                told.instance, [0; 16],
                "the client is told which server it is"
            );
        }
        if status != Status::Ok {
            return Err(status);
        }
        client.hello = HelloReply::decode(&reply).unwrap();
        Ok(client)
    }

    /// Says this HELLO, to a server without a secret.
    pub(crate) fn greet_as(addr: SocketAddr, hello: &Hello, lane: u32) -> Client {
        let mut client = Client {
            stream: connect(addr),
            hello: HelloReply::decode(&nothing_said()).unwrap(),
            next: 1,
        };
        let reply = client.done(run(Op::Hello, lane, 0, 0), &hello.encode());
        client.hello = HelloReply::decode(&reply).unwrap();
        client
    }

    pub(crate) fn join(addr: SocketAddr, session: SessionId, lane: u32) -> Client {
        Client::greet(addr, session, lane, None).unwrap()
    }

    pub(crate) fn session(&self) -> SessionId {
        self.hello.session
    }

    /// Sends a request; its id.
    pub(crate) fn send(&mut self, header: Header, payload: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        let header = Header {
            id,
            len: payload.len() as u32,
            ..header
        };
        let message = [&header.encode()[..], payload].concat();
        self.stream.write_all(&message).unwrap();
        id
    }

    /// As [`Asks::ask`], where the connection may break.
    pub(crate) fn try_ask(&mut self, header: Header, payload: &[u8]) -> io::Result<Status> {
        let header = Header {
            id: self.next,
            len: payload.len() as u32,
            ..header
        };
        self.next += 1;
        self.stream
            .write_all(&[&header.encode()[..], payload].concat())?;
        Ok(receive(&mut self.stream)?.0.status)
    }

    /// Receives a reply.
    pub(crate) fn receive(&mut self) -> (Header, Vec<u8>) {
        receive(&mut self.stream).unwrap()
    }

    pub(crate) fn write(&mut self, slab: u32, page: u32, bytes: &[u8]) {
        let count = (bytes.len() / PAGE_SIZE) as u32;
        self.done(run(Op::Write, slab, page, count), bytes);
    }

    pub(crate) fn read(&mut self, slab: u32, page: u32, count: u32) -> Vec<u8> {
        self.done(run(Op::Read, slab, page, count), &[])
    }

    pub(crate) fn discard(&mut self, slab: u32, page: u32, count: u32) {
        self.done(run(Op::Discard, slab, page, count), &[]);
    }

    pub(crate) fn ping(&mut self) {
        self.done(run(Op::Ping, 0, 0, 0), &[]);
    }

    pub(crate) fn stats(&mut self) -> ServerStats {
        ServerStats::decode(&self.done(run(Op::Stats, 0, 0, 0), &[])).unwrap()
    }

    pub(crate) fn bye(mut self) {
        self.done(run(Op::Bye, 0, 0, 0), &[]);
    }

    /// Waits for the server to say why it ends the connection, and to do so.
    pub(crate) fn is_told_of_the_end(&mut self) -> bool {
        let (bye, text) = self.receive();
        assert_eq!((bye.op, bye.id, bye.reply), (Op::Bye, BYE_ID, true));
        assert_eq!(text, bye.status.to_string().as_bytes());
        bye.status == Status::ShuttingDown && self.is_ended()
    }

    /// Whether the server has ended the connection, once it has.
    pub(crate) fn is_ended(&mut self) -> bool {
        ended(&mut self.stream)
    }
}

/// Waits for the end of a connection; `false` when bytes come instead.
pub(crate) fn ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Receives a message.
pub(crate) fn receive(stream: &mut impl Read) -> io::Result<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head)?;
    let header = Header::decode(&head).map_err(io::Error::other)?;
    let mut body = vec![0; header.len as usize];
    stream.read_exact(&mut body)?;
    Ok((header, body))
}

/// What a greeting says before it is answered.
pub(crate) fn nothing_said() -> [u8; HelloReply::LEN] {
    let mut bytes = [0; HelloReply::LEN];
    bytes[..4].copy_from_slice(&tmem_wire::MAGIC);
    bytes
}
