//! A client over RDMA that waits for its answers.

use crate::client::{Asks, hello, nothing_said, receive, run};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tmem_verbs::{
    Buffer, Completion, Connection, Error, Event, Kind, Limits, Op as Do, Status as Outcome, Work,
};
use tmem_wire::{
    Header, HelloReply, Op, PAGE_SIZE, RDMA_RECEIVES, RDMA_SEND, SessionId, SlabKey, Status,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Pages of the area that one-sided access goes from and to.
const PAGES: usize = 64;

/// Where sends are sent from, and where that area is.
const SEND: usize = RDMA_RECEIVES * RDMA_SEND;
const AREA: usize = SEND + RDMA_SEND;

/// A connection that is greeted.
pub(crate) struct Peer {
    connection: Connection,
    memory: Buffer,
    received: VecDeque<u8>,
    done: HashMap<u64, Result<(), Outcome>>,
    disconnected: bool,
    next: u64,
    pub(crate) hello: HelloReply,
}

impl Peer {
    /// Opens a session.
    pub(crate) fn new(addr: SocketAddr) -> Peer {
        Peer::join(addr, SessionId::NEW, 0)
    }

    pub(crate) fn join(addr: SocketAddr, session: SessionId, lane: u32) -> Peer {
        let mut peer = Peer::connect(addr);
        let body = peer.done(run(Op::Hello, lane, 0, 0), &hello(session).encode());
        peer.hello = HelloReply::decode(&body).unwrap();
        peer
    }

    /// A connection that is not greeted.
    pub(crate) fn connect(addr: SocketAddr) -> Peer {
        Peer::try_connect(addr).unwrap()
    }

    pub(crate) fn try_connect(addr: SocketAddr) -> Result<Peer, Error> {
        let limits = Limits {
            sends: 16,
            receives: RDMA_RECEIVES as u32,
            inline: 0,
            reads: 16,
        };
        let mut memory = None;
        let connection = Connection::connect_with(addr, PATIENCE, &limits, &[], |c| {
            let made = Buffer::new(&c.domain(), AREA + PAGES * PAGE_SIZE)?;
            for n in 0..RDMA_RECEIVES {
                c.post_receive(n as u64, &made.piece(n * RDMA_SEND, RDMA_SEND)?)?;
            }
            memory = Some(made);
            Ok(())
        });
        Ok(Peer {
            connection: connection?,
            memory: memory.unwrap(),
            received: VecDeque::new(),
            done: HashMap::new(),
            disconnected: false,
            next: 1 << 32,
            hello: HelloReply::decode(&nothing_said()).unwrap(),
        })
    }

    pub(crate) fn key(&mut self, slab: u32, write: bool) -> Result<SlabKey, Status> {
        match self.ask(run(Op::Keys, slab, write.into(), 0), &[]) {
            (Status::Ok, body) => Ok(SlabKey::decode(&body).unwrap()),
            (status, _) => Err(status),
        }
    }

    /// Sends bytes of the stream, in pieces of odd lengths.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Result<(), Outcome> {
        let mut len = 40;
        let mut at = 0;
        while at < bytes.len() {
            let n = len.min(bytes.len() - at).min(RDMA_SEND);
            self.memory.put(SEND, &bytes[at..at + n]);
            self.work(Do::Send, SEND, n)?;
            at += n;
            len = len * 3 + 1;
        }
        Ok(())
    }

    /// Writes pages one-sidedly.
    pub(crate) fn write(&mut self, key: &SlabKey, page: u32, bytes: &[u8]) -> Result<(), Outcome> {
        self.memory.put(AREA, bytes);
        let remote = key.address + u64::from(page) * PAGE_SIZE as u64;
        let op = Do::Write {
            remote,
            key: key.key,
        };
        self.work(op, AREA, bytes.len())
    }

    /// Reads pages one-sidedly.
    pub(crate) fn read(
        &mut self,
        key: &SlabKey,
        page: u32,
        count: u32,
    ) -> Result<Vec<u8>, Outcome> {
        let len = count as usize * PAGE_SIZE;
        self.memory.put(AREA, &vec![0xee; len]);
        let remote = key.address + u64::from(page) * PAGE_SIZE as u64;
        let op = Do::Read {
            remote,
            key: key.key,
        };
        self.work(op, AREA, len)?;
        let mut bytes = Vec::new();
        self.memory.append_to(&mut bytes, AREA, len);
        Ok(bytes)
    }

    /// Asks for more pages than the client has room for, and receives none.
    pub(crate) fn stuff(&mut self, slab: u32) {
        let header = run(Op::Read, slab, 0, 64);
        self.memory.put(SEND, &header.encode());
        for _ in 0..12 {
            let work = Work {
                id: 0,
                op: Do::Send,
                pieces: self.memory.piece(SEND, 32).unwrap().into(),
                signaled: true,
                fence: false,
            };
            self.connection.post(&[work]).unwrap();
        }
    }

    /// Whether the server has ended the connection, once it has.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.until(|peer| peer.disconnected || !peer.received.is_empty());
        self.disconnected
    }

    fn work(&mut self, op: Do, at: usize, len: usize) -> Result<(), Outcome> {
        self.next += 1;
        let id = self.next;
        let work = Work {
            id,
            op,
            pieces: self.memory.piece(at, len).unwrap().into(),
            signaled: true,
            fence: false,
        };
        // It fails when the connection has ended.
        let posted = self.connection.post(&[work]);
        posted.map_err(|_| Outcome::Flushed)?;
        self.until(|peer| peer.done.contains_key(&id));
        self.done.remove(&id).unwrap()
    }

    /// Waits until it is so.
    fn until(&mut self, mut is_so: impl FnMut(&Peer) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut completions = Vec::new();
        loop {
            self.connection.poll(&mut completions).unwrap();
            for done in completions.drain(..) {
                self.follow(done);
            }
            while let Some(event) = self.connection.next_event().unwrap() {
                self.disconnected |= matches!(event, Event::Disconnected | Event::Failed(_));
            }
            if is_so(self) {
                return;
            }
            assert!(Instant::now() < deadline, "never");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn follow(&mut self, done: Completion) {
        match (done.kind, done.status) {
            (Kind::Work, status) => drop(self.done.insert(done.id, status)),
            (Kind::Receive(len), Ok(())) => {
                let at = done.id as usize * RDMA_SEND;
                let mut bytes = Vec::new();
                self.memory.append_to(&mut bytes, at, len as usize);
                self.received.extend(bytes);
                let piece = self.memory.piece(at, RDMA_SEND).unwrap();
                // It fails when the connection has ended.
                let _ = self.connection.post_receive(done.id, &piece);
            }
            (Kind::Receive(_), Err(_)) => {}
        }
    }
}

impl Asks for Peer {
    fn ask(&mut self, header: Header, payload: &[u8]) -> (Status, Vec<u8>) {
        self.next += 1;
        let header = Header {
            id: self.next,
            len: payload.len() as u32,
            ..header
        };
        self.say(&[&header.encode()[..], payload].concat()).unwrap();
        let (reply, body) = receive(self).unwrap();
        assert!(reply.reply && reply.id == header.id, "{reply:?}");
        (reply.status, body)
    }
}

impl Read for Peer {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.until(|peer| peer.disconnected || !peer.received.is_empty());
        self.received.read(to)
    }
}
