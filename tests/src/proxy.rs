//! A proxy in front of a good server that makes it a bad one while it is used.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use tmem_wire::{HEADER_LEN, Header, Op, Status};

/// What is done to messages that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// One bit of every READ's answer is turned over.
    FlipReads,
    /// One bit of the next READ's answer is turned over; then no fault.
    FlipRead,
    /// The next READ is answered with `Internal`; then no fault.
    FailRead,
    /// The next WRITE is answered with `Internal`; then no fault.
    FailWrite,
    /// Every READ is answered with `Internal`.
    FailReads,
    /// Every WRITE after the first ones, of this number, is answered with `Internal`.
    FailWrites(u64),
    /// Everything passes as through a network of 100 Mbit/s.
    Slow,
    /// READs are answered with zeros.
    ZeroReads,
    /// The next READ's answer ends in the middle of a page, with the
    /// connection; then no fault.
    CutRead,
    /// The next WRITE ends in the middle of a page, with the connection; then
    /// no fault.
    CutWrite,
    /// The next READ's answer has a header that means nothing.
    GarbageHeader,
    /// Connections are cut and new ones closed at once.
    Gone,
    /// Nothing passes any more, and nothing is closed.
    Stall,
}

/// What a byte takes on a network of 100 Mbit/s.
const SLOW: Duration = Duration::from_nanos(80);

struct Shared {
    upstream: SocketAddr,
    fault: Mutex<Fault>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicU32,
    faults: AtomicU64,
    writes: AtomicU64,
}

/// A proxy on a free port; it lives as long as the test's process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of `upstream`, faultless at first.
    pub fn spawn(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            upstream,
            fault: Mutex::new(Fault::None),
            changed: Condvar::new(),
            streams: Mutex::new(vec![]),
            connections: AtomicU32::new(0),
            faults: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that fails is what these tests are about.
                let _ = accepting.connect(stream);
            }
        });
        Proxy { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this happens.
    pub fn set(&self, fault: Fault) {
        self.shared.set(fault);
        if fault == Fault::Gone {
            self.shared.cut();
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(SeqCst)
    }

    /// Messages spoilt so far.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(SeqCst)
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("no thread panics with the lock")
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().expect("no thread panics with the lock") = fault;
        self.changed.notify_all();
    }

    fn cut(&self) {
        for stream in self
            .streams
            .lock()
            .expect("no thread panics with the lock")
            .drain(..)
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits while nothing may pass; the fault that holds then.
    fn passing(&self) -> Fault {
        let fault = self.fault.lock().expect("no thread panics with the lock");
        let stalled = |fault: &mut Fault| *fault == Fault::Stall;
        *self
            .changed
            .wait_while(fault, stalled)
            .expect("no thread panics with the lock")
    }

    /// The fault of one message: `fault` if it holds, and then no more.
    fn take_once(&self, fault: Fault) -> bool {
        let mut current = self.fault.lock().expect("no thread panics with the lock");
        let taken = *current == fault;
        if taken {
            *current = Fault::None;
        }
        taken
    }

    fn connect(self: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
        if self.fault() == Fault::Gone {
            return Ok(());
        }
        let server = TcpStream::connect(self.upstream)?;
        self.connections.fetch_add(1, SeqCst);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        self.streams
            .lock()
            .expect("no thread panics with the lock")
            .extend(ends);
        let pairs = [(client.try_clone()?, server.try_clone()?), (server, client)];
        for (from, to) in pairs {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                // Whatever ends one direction ends the connection.
                let _ = shared.relay(&from, &to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn relay(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        loop {
            let mut message = vec![0; HEADER_LEN];
            from.read_exact(&mut message)?;
            let mut head = [0; HEADER_LEN];
            head.copy_from_slice(&message);
            let header = Header::decode(&head).map_err(io::Error::other)?;
            message.resize(HEADER_LEN + header.len as usize, 0);
            from.read_exact(&mut message[HEADER_LEN..])?;
            let ends = self.spoil(&header, &mut message);
            to.write_all(&message)?;
            if ends {
                return Ok(());
            }
        }
    }

    /// Does to `message` what the fault says; whether the connection ends
    /// with it.
    fn spoil(&self, header: &Header, message: &mut Vec<u8>) -> bool {
        let is_read = header.op == Op::Read && header.reply && header.status == Status::Ok;
        let is_write = header.op == Op::Write && !header.reply;
        let is_written = header.op == Op::Write && header.reply && header.status == Status::Ok;
        let fault = self.passing();
        let ends = match fault {
            Fault::FlipReads if is_read => {
                let middle = HEADER_LEN + header.len as usize / 2;
                message[middle] ^= 0x10;
                false
            }
            Fault::FlipRead if is_read && self.take_once(fault) => {
                message[HEADER_LEN] ^= 1;
                false
            }
            Fault::FailRead if is_read && self.take_once(fault) => fail(header, message),
            Fault::FailWrite if is_written && self.take_once(fault) => fail(header, message),
            Fault::FailReads if is_read => fail(header, message),
            Fault::FailWrites(after) if is_written => {
                if self.writes.fetch_add(1, SeqCst) < after {
                    return false;
                }
                fail(header, message)
            }
            Fault::Slow => {
                thread::sleep(SLOW * message.len() as u32);
                return false;
            }
            Fault::ZeroReads if is_read => {
                message[HEADER_LEN..].fill(0);
                false
            }
            Fault::GarbageHeader if is_read && self.take_once(fault) => {
                message[..HEADER_LEN].fill(0xee);
                false
            }
            Fault::CutRead if is_read && self.take_once(fault) => {
                message.truncate(message.len() - 1000);
                true
            }
            Fault::CutWrite if is_write && self.take_once(fault) => {
                message.truncate(message.len() - 1000);
                true
            }
            _ => return false,
        };
        self.faults.fetch_add(1, SeqCst);
        ends
    }
}

/// Makes an answer one that says that the server failed; the connection goes on.
fn fail(header: &Header, message: &mut Vec<u8>) -> bool {
    let failed = Header {
        status: Status::Internal,
        len: 0,
        packed: false,
        ..*header
    };
    *message = failed.encode().to_vec();
    false
}
