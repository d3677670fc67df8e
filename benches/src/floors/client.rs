//! A client of the memory server that does one thing at a time.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tmem_wire::{HEADER_LEN, Header, Op, PAGE_SIZE, Status, decode_slab_list, greeting};

use super::echo::{UNDER_WAY, repeat};
use super::{CHUNK, Times};
use crate::Error;

/// For connecting, and for each answer: a busy server is given as long as by a program.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages of a chunk.
const PAGES: usize = CHUNK / PAGE_SIZE;

/// A memory server.
#[derive(Clone, Debug)]
pub struct Server {
    /// `host:port`.
    pub address: String,
    /// Its secret, if it has one.
    pub secret: Option<Vec<u8>>,
}

impl Server {
    /// Greets it, and writes a few pages to read.
    pub(super) fn connect(&self) -> Result<Client, Error> {
        let mut client = Client::connect(&self.address)?;
        client.greet(self.secret.as_deref())?;
        client.prepare()?;
        Ok(client)
    }
}

/// A connection with a session of its own.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    slab: u32,
    /// Pages of the slab that hold something.
    pages: u32,
    id: u64,
}

impl Client {
    fn connect(address: &str) -> Result<Client, Error> {
        let failed = Error::io("connecting to the memory server");
        let connect = || {
            let mut last = std::io::ErrorKind::NotFound.into();
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        stream.set_write_timeout(Some(PATIENCE))?;
                        return Ok(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        Ok(Client {
            stream: connect().map_err(failed)?,
            buffer: Vec::new(),
            slab: 0,
            pages: 0,
            id: 0,
        })
    }

    /// Whether both ends have one address: then they are on one machine.
    pub(super) fn is_local(&self) -> bool {
        let ends = (self.stream.local_addr(), self.stream.peer_addr());
        matches!(ends, (Ok(here), Ok(there)) if here.ip() == there.ip())
    }

    fn greet(&mut self, secret: Option<&[u8]>) -> Result<(), Error> {
        // The proof goes over this connection once; nothing hangs on a nonce
        // that others could guess.
        let greeting = greeting::Client::new(None, 0, 0, secret, [1; 16], Vec::new());
        let greeted = greeting.greet(&mut self.stream, secret);
        greeted
            .map(drop)
            .map_err(Error::io("greeting the memory server"))
    }

    fn prepare(&mut self) -> Result<(), Error> {
        let grant = Header {
            count: 1,
            ..Header::request(Op::Grant, 0)
        };
        accepted(self.exchange(grant, &[])?)?;
        let slabs = decode_slab_list(&self.buffer).map_err(|e| Error::Server(e.to_string()))?;
        let first = slabs.first();
        self.slab = *first.ok_or_else(|| Error::Server("grants no slab".to_owned()))?;
        // The pages of a chunk, or of the slab if it has fewer.
        let mut pages = PAGES as u32;
        loop {
            let payload = vec![0x5a; pages as usize * PAGE_SIZE];
            match self.exchange(self.run(Op::Write, pages), &payload)? {
                Status::OutOfRange if pages > 1 => pages /= 2,
                status => {
                    self.pages = pages;
                    return accepted(status);
                }
            }
        }
    }

    fn run(&self, op: Op, count: u32) -> Header {
        Header {
            slab: self.slab,
            count,
            ..Header::request(op, 0)
        }
    }

    fn send(&mut self, mut header: Header, payload: &[u8]) -> Result<(), Error> {
        self.id += 1;
        header.id = self.id;
        header.len = payload.len() as u32;
        let message = [&header.encode()[..], payload].concat();
        let sent = self.stream.write_all(&message);
        sent.map_err(Error::io("asking the memory server"))
    }

    /// The next answer, its payload into the buffer.
    fn receive(&mut self) -> Result<Status, Error> {
        let failed = || Error::io("hearing the memory server");
        let mut head = [0; HEADER_LEN];
        self.stream.read_exact(&mut head).map_err(failed())?;
        let reply = Header::decode(&head).map_err(|e| Error::Server(e.to_string()))?;
        self.buffer.resize(reply.len as usize, 0);
        self.stream.read_exact(&mut self.buffer).map_err(failed())?;
        Ok(reply.status)
    }

    fn exchange(&mut self, header: Header, payload: &[u8]) -> Result<Status, Error> {
        self.send(header, payload)?;
        self.receive()
    }

    /// Round trips without pages.
    pub(super) fn pings(&mut self, time: Duration) -> Result<Times, Error> {
        repeat(time, || {
            accepted(self.exchange(Header::request(Op::Ping, 0), &[])?)
        })
    }

    /// Reads of one page.
    pub(super) fn reads(&mut self, time: Duration) -> Result<Times, Error> {
        repeat(time, || {
            accepted(self.exchange(self.run(Op::Read, 1), &[])?)
        })
    }

    /// Reads of chunks, several under way; 10^9 bytes per second.
    pub(super) fn stream(&mut self, time: Duration) -> Result<f64, Error> {
        let read = self.run(Op::Read, self.pages);
        for _ in 0..UNDER_WAY {
            self.send(read, &[])?;
        }
        let start = Instant::now();
        let mut bytes = 0;
        while bytes == 0 || start.elapsed() < time {
            accepted(self.receive()?)?;
            bytes += self.buffer.len();
            self.send(read, &[])?;
        }
        let ns = start.elapsed().as_nanos() as f64;
        for _ in 0..UNDER_WAY {
            accepted(self.receive()?)?;
        }
        Ok(bytes as f64 / ns)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A server that is gone needs no farewell.
        let _ = self.exchange(Header::request(Op::Bye, 0), &[]);
    }
}

fn accepted(status: Status) -> Result<(), Error> {
    match status {
        Status::Ok => Ok(()),
        other => Err(Error::Server(format!("refuses: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_memserver::Config;

    fn start(secret: Option<&[u8]>) -> (tmem_memserver::Handle, Server) {
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            capacity: 4 << 20,
            // Less than a chunk.
            slab_size: 256 << 10,
            secret: secret.map(<[u8]>::to_vec),
            ..Config::default()
        };
        let bound = tmem_memserver::Server::bind(config).unwrap();
        let handle = bound.spawn().unwrap();
        let server = Server {
            address: handle.addr().to_string(),
            secret: secret.map(<[u8]>::to_vec),
        };
        (handle, server)
    }

    #[test]
    fn a_server_is_measured() {
        let (_handle, server) = start(Some(b"a secret of tests"));
        let mut client = server.connect().unwrap();
        assert!(client.is_local());
        // However little time there is.
        for time in [Duration::ZERO, Duration::from_millis(20)] {
            assert!(client.pings(time).unwrap().mean_ns > 0.0);
            assert!(client.stream(time).unwrap() > 0.0);
            assert!(client.reads(time).unwrap().mean_ns > 0.0);
        }
    }

    #[test]
    fn a_secret_that_is_missing_is_told() {
        let (_handle, mut server) = start(Some(b"a secret of tests"));
        server.secret = None;
        let error = server.connect().err().unwrap();
        assert_eq!(
            error.to_string(),
            "greeting the memory server: it wants a secret, and none is configured"
        );
        server.secret = Some(b"another secret of tests".to_vec());
        let error = server.connect().err().unwrap();
        assert_eq!(
            error.to_string(),
            "greeting the memory server: it does not accept the secret"
        );
    }
}
