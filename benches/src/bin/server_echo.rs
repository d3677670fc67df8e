//! `server_echo [ROUNDS]` (default 15): what the memory server adds to the cost of the network.
//!
//! The same client talks by turns to a memory server and to a bare server. The bare server reads
//! the same requests and sends as many bytes out of as much memory, but looks at nothing but the
//! operation. The client first reads one page at a time, then reads and writes runs of 256 KiB
//! with eight requests under way. Writes to the memory server are also measured to pages for
//! which the kernel has no memory yet. Prints medians and their ratio, server to bare.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;
use tmem_benches::median;
use tmem_memserver::{Config, Server};
use tmem_wire::{HEADER_LEN, Header, MAX_RUN, Op, PAGE_SIZE, greeting};

/// Bytes of memory, all in one slab.
const MEMORY: usize = 64 << 20;
const RUN: usize = 64;
const UNDER_WAY: usize = 8;
const ROUND_TRIPS: usize = 3000;
const STREAMED: usize = 4 * MEMORY;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |n| n.parse())?;
    let server = Server::bind(Config {
        listen: "127.0.0.1:0".to_owned(),
        capacity: MEMORY as u64,
        slab_size: MEMORY as u64,
        ..Config::default()
    })?
    .spawn()?;
    let mut server = Client::greeted(server.addr())?;
    let mut bare = Client::new(bare()?)?;
    let mut times = [const { [const { Vec::new() }; 2] }; 4];
    for round in 0..=rounds {
        for (which, client) in [&mut server, &mut bare].into_iter().enumerate() {
            if which == 0 {
                // All pages are fresh again.
                client.stream(Op::Discard, MAX_RUN as usize, UNDER_WAY, MEMORY)?;
            }
            let measured = [
                client.stream(Op::Write, RUN, UNDER_WAY, MEMORY)?,
                client.stream(Op::Write, RUN, UNDER_WAY, STREAMED)?,
                client.stream(Op::Read, RUN, UNDER_WAY, STREAMED)?,
                client.stream(Op::Read, 1, 1, ROUND_TRIPS * PAGE_SIZE)?,
            ];
            // The first round populates memory and warms up.
            if round > 0 {
                (times.iter_mut().zip(measured)).for_each(|(t, m)| t[which].push(m));
            }
        }
    }
    let [fresh, write, read, trip] = times.map(|mut t| [median(&mut t[0]), median(&mut t[1])]);
    let us = |seconds: f64| seconds / ROUND_TRIPS as f64 * 1e6;
    let [a, b] = trip;
    println!(
        "4 KiB read: server {:.2} us, bare {:.2} us, ratio {:.3}",
        us(a),
        us(b),
        a / b
    );
    for (name, bytes, [a, b]) in [
        ("reads", STREAMED, read),
        ("writes", STREAMED, write),
        ("writes of fresh pages", MEMORY, fresh),
    ] {
        let gb = |seconds: f64| bytes as f64 / seconds / 1e9;
        println!(
            "256 KiB {name}: server {:.2} GB/s, bare {:.2} GB/s, ratio of times {:.3}",
            gb(a),
            gb(b),
            a / b
        );
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn new(addr: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let buffer = vec![0x5a; HEADER_LEN + RUN * PAGE_SIZE];
        Ok(Client { stream, buffer })
    }

    /// Connects to a memory server and gets its slab 0.
    fn greeted(addr: SocketAddr) -> Result<Client> {
        let mut client = Client::new(addr)?;
        let greeting = greeting::Client::new(None, 0, 0, None, [1; 16], Vec::new());
        greeting.greet(&mut client.stream, None)?;
        let mut grant = Header::request(Op::Grant, 0);
        grant.count = 1;
        client.stream.write_all(&grant.encode())?;
        let mut head = [0; HEADER_LEN];
        client.stream.read_exact(&mut head)?;
        let len = Header::decode(&head)?.len as usize;
        client.stream.read_exact(&mut client.buffer[..len])?;
        Ok(client)
    }

    /// Reads or writes `bytes` bytes in runs of `pages`. Returns the seconds that it took.
    fn stream(&mut self, op: Op, pages: usize, under_way: usize, bytes: usize) -> Result<f64> {
        let run = pages * PAGE_SIZE;
        let (out, back) = match op {
            Op::Read => (HEADER_LEN, HEADER_LEN + run),
            Op::Discard => (HEADER_LEN, HEADER_LEN),
            _ => (HEADER_LEN + run, HEADER_LEN),
        };
        let count = bytes / run;
        let start = Instant::now();
        for n in 0..count + under_way {
            if n >= under_way {
                self.stream.read_exact(&mut self.buffer[..back])?;
                let mut head = [0; HEADER_LEN];
                head.copy_from_slice(&self.buffer[..HEADER_LEN]);
                let reply = Header::decode(&head)?;
                if reply.status != tmem_wire::Status::Ok {
                    return Err(reply.status.into());
                }
            }
            if n < count {
                let request = Header {
                    page: ((n * run) % MEMORY / PAGE_SIZE) as u32,
                    count: pages as u32,
                    len: (out - HEADER_LEN) as u32,
                    ..Header::request(op, n as u64)
                };
                self.buffer[..HEADER_LEN].copy_from_slice(&request.encode());
                self.stream.write_all(&self.buffer[..out])?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A server for one connection that does nothing but receive and send.
fn bare() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut memory = vec![1u8; MEMORY + HEADER_LEN];
        let mut head = [0; HEADER_LEN];
        loop {
            stream.read_exact(&mut head)?;
            let field = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
            };
            let (page, count) = (field(20), field(24));
            let run = page * PAGE_SIZE..(page + count) * PAGE_SIZE;
            head[1] = 1;
            if head[0] == Op::Read as u8 {
                let len = (count * PAGE_SIZE) as u32;
                head[4..8].copy_from_slice(&len.to_le_bytes());
                // In one call, as a server would that does not copy pages.
                let run = run.start..run.end + HEADER_LEN;
                memory[run.start..run.start + HEADER_LEN].copy_from_slice(&head);
                stream.write_all(&memory[run])?;
            } else {
                stream.read_exact(&mut memory[run])?;
                head[4..8].fill(0);
                stream.write_all(&head)?;
            }
        }
    });
    Ok(addr)
}
