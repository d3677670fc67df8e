//! Passes one connection of an engine on to a memory server.

mod answers;
mod requests;

use crate::Error;
use crate::counts::Counts;
use crate::inbound::Inbound;
use crate::keys::Keys;
use crate::outbound::Outbound;
use crate::staging::{SENDS, Staging};
use crate::work::{DEPTH, Done, Jobs};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tmem_verbs::{Connection, Event, Limits};
use tmem_wire::{RDMA_RECEIVES, RDMA_SEND, Status};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent busy-waits for answers before it sleeps: about as long as a slow
/// network takes for a page.
const AWAKE: Duration = Duration::from_micros(50);
/// How long the delivery of the last messages may take.
const LINGER: Duration = Duration::from_secs(1);
/// No more requests are taken while this many bytes are on their way to the server.
const QUEUED: usize = 1 << 20;
/// The number of the agent's own request. Engines count from 0.
const OWN: u64 = 1 << 63;
/// How many RDMA reads the agent wants to have under way at once.
const READS: u8 = 16;
/// A SEND of up to this many bytes takes them along, so that the device need not fetch them.
const INLINE: u32 = 64;

/// A connection between an engine and a server.
pub(crate) struct Proxy {
    engine: UnixStream,
    inbound: Inbound,
    out: Outbound,
    jobs: Jobs,
    keys: Keys,
    /// The key that the server was asked for, before the next request can go on: its slab, and
    /// whether it is for writing.
    asked: Option<(u32, bool)>,
    refused: Option<Status>,
    /// The server's device reaches no more of its memory: pages are sent as messages, as over
    /// TCP.
    through: bool,
    /// A request has to wait until something else is finished.
    given_back: bool,
    /// A SHARE is under way: keys for writing are void once it is answered.
    sharing: bool,
    /// The engine has said BYE: any end of the connection is right.
    bye: bool,
    /// Messages to the server.
    to_server: Vec<u8>,
    from_server: Vec<u8>,
    slab_pages: u32,
    /// Dropped before the memory, which the device uses as long as there is a connection.
    conn: Connection,
    staging: Staging,
}

/// How a turn ended.
enum Turn {
    Busy,
    Idle,
    Over,
}

impl Proxy {
    /// Connects to a server for an engine at the other end of `engine`.
    pub(crate) fn connect(server: SocketAddr, engine: UnixStream) -> Result<Proxy, Error> {
        let limits = Limits {
            sends: (DEPTH + SENDS) as u32,
            receives: RDMA_RECEIVES as u32,
            inline: INLINE,
            reads: READS,
        };
        let mut staging = None;
        // Receives are there before the server can say anything.
        let conn = Connection::connect_with(server, PATIENCE, &limits, &[], |conn| {
            let memory = Staging::new(&conn.domain())?;
            let posted = (0..RDMA_RECEIVES)
                .map(|slot| {
                    Ok((
                        Done::receive(slot),
                        memory.piece(Staging::from_server(slot))?,
                    ))
                })
                .collect::<Result<Vec<_>, _>>()?;
            conn.post_receives(&posted)?;
            staging = Some(memory);
            Ok(())
        })?;
        let staging = staging.ok_or_else(gone)?;
        engine.set_nonblocking(true)?;
        Ok(Proxy {
            engine,
            inbound: Inbound::new(),
            out: Outbound::default(),
            jobs: Jobs::default(),
            keys: Keys::default(),
            asked: None,
            refused: None,
            through: false,
            given_back: false,
            sharing: false,
            bye: false,
            to_server: Vec::new(),
            from_server: Vec::new(),
            slab_pages: 0,
            conn,
            staging,
        })
    }

    /// Passes messages on until one of the sides ends. Returns what was done, and the error
    /// that broke the connection to the server, if one did.
    pub(crate) fn run(mut self) -> (Counts, Result<(), Error>) {
        let end = self.serve();
        // The engine still reads the last messages of the server.
        let until = Instant::now() + LINGER;
        while !self.out.is_empty() && Instant::now() < until {
            if self.out.flush(&self.engine, &mut self.staging).is_err() {
                break;
            }
            wait(&[(self.engine.as_raw_fd(), libc::POLLOUT)], 10);
        }
        self.conn.disconnect();
        let right = self.bye || self.inbound.is_ended();
        (self.jobs.counts(), if right { Ok(()) } else { end })
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut last = Instant::now();
        loop {
            match self.turn()? {
                Turn::Over => return Ok(()),
                Turn::Busy => last = Instant::now(),
                Turn::Idle if last.elapsed() < AWAKE => std::hint::spin_loop(),
                Turn::Idle => {
                    self.sleep()?;
                    last = Instant::now();
                }
            }
            if self.inbound.is_ended() && self.has_said_all() {
                return Ok(());
            }
        }
    }

    fn has_said_all(&self) -> bool {
        self.to_server.is_empty() && self.jobs.is_idle()
    }

    /// Does what can be done now.
    fn turn(&mut self) -> Result<Turn, Error> {
        let mut busy = self.hear_engine()?;
        self.tell_server()?;
        let batch = self.jobs.batch();
        if !batch.is_empty() {
            self.conn.post(&batch)?;
            busy = true;
        }
        let mut done = Vec::new();
        busy |= self.conn.poll(&mut done)? > 0;
        // What came before it broke counts.
        done.sort_by_key(|c| c.status.is_err());
        for completion in done {
            if !self.completed(&completion)? {
                return Ok(Turn::Over);
            }
        }
        match self.out.flush(&self.engine, &mut self.staging) {
            Ok(any) => busy |= any,
            // The engine is gone.
            Err(_) => return Ok(Turn::Over),
        }
        Ok(if busy { Turn::Busy } else { Turn::Idle })
    }

    /// Takes requests as long as they can be carried out.
    fn hear_engine(&mut self) -> Result<bool, Error> {
        let mut any = false;
        self.given_back = false;
        while !self.inbound.is_ended() && !self.is_held_up() {
            let next = self.inbound.next(&mut self.engine, &mut self.staging);
            let Some(request) = next? else { break };
            if let Some(later) = self.take(request)? {
                self.inbound.put_back(later);
                self.given_back = true;
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// Whether requests have to wait until something else is finished.
    fn is_held_up(&self) -> bool {
        let queued = self.to_server.len() >= QUEUED;
        self.asked.is_some() || self.sharing || self.jobs.is_full() || queued
    }

    /// Sends messages to the server, in pieces.
    fn tell_server(&mut self) -> Result<(), Error> {
        let mut from = 0;
        while from < self.to_server.len()
            && let Some(slot) = self.jobs.free_send()
        {
            let rest = &self.to_server[from..];
            let n = rest.len().min(RDMA_SEND);
            self.staging.put(Staging::to_server(slot), &rest[..n]);
            self.jobs.send(slot, n, &self.staging)?;
            from += n;
        }
        self.to_server.drain(..from);
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) -> Result<(), Error> {
        self.conn.arm()?;
        let mut done = Vec::new();
        if self.conn.poll(&mut done)? > 0 {
            for completion in done {
                if !self.completed(&completion)? {
                    return Err(gone());
                }
            }
            return Ok(());
        }
        let mut engine = 0;
        let stuck = self.given_back || self.inbound.wants_room() || self.is_held_up();
        if !self.inbound.is_ended() && !stuck {
            engine |= libc::POLLIN;
        }
        if !self.out.is_empty() {
            engine |= libc::POLLOUT;
        }
        wait(
            &[
                (self.engine.as_raw_fd(), engine),
                (self.conn.completion_fd(), libc::POLLIN),
                (self.conn.event_fd(), libc::POLLIN),
            ],
            1000,
        );
        self.conn.clear_completion_events()?;
        while let Some(event) = self.conn.next_event()? {
            match event {
                Event::Established | Event::Other(_) => {}
                _ => {
                    // What was received before is dealt with first.
                    let mut done = Vec::new();
                    self.conn.poll(&mut done)?;
                    for completion in done.iter().filter(|c| c.status.is_ok()) {
                        self.completed(completion)?;
                    }
                    return Err(gone());
                }
            }
        }
        Ok(())
    }
}

fn gone() -> Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the server ended the connection",
    )
    .into()
}

/// Waits for any of these.
fn wait(fds: &[(RawFd, i16)], timeout_ms: i32) {
    let mut fds: Vec<libc::pollfd> = fds
        .iter()
        .map(|&(fd, events)| libc::pollfd {
            fd,
            events,
            revents: 0,
        })
        .collect();
    // SAFETY: as many descriptors as said. When it fails it is tried again.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
}
