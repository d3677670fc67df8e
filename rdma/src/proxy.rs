//! One connection of an engine, led on to a memory server.

use crate::Error;
use crate::counts::Counts;
use crate::inbound::{Inbound, Request};
use crate::keys::{Answer, Keys};
use crate::outbound::Outbound;
use crate::staging::{Place, SENDS, Staging};
use crate::work::{DEPTH, Done, Job, Jobs};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tmem_verbs::{Completion, Connection, Event, Kind, Limits, Status as Outcome};
use tmem_wire::{
    ACCESS_READ, ACCESS_WRITE, HEADER_LEN, Header, HelloReply, Op, RDMA_RECEIVES, RDMA_SEND,
    Status, decode_slab_list,
};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent looks for answers awake before it sleeps: about what the
/// slowest of networks takes for a page.
const AWAKE: Duration = Duration::from_micros(50);
/// How long what was said last may take to be delivered.
const LINGER: Duration = Duration::from_secs(1);
/// With so many bytes on their way to the server, no more requests are taken.
const QUEUED: usize = 1 << 20;
/// The name of the agent's own request: engines count from 0.
const OWN: u64 = 1 << 63;
/// READs on their way at once that are asked for.
const READS: u8 = 16;
/// SENDs of so many bytes need no look at registered memory.
const INLINE: u32 = 64;

/// The connection, in both directions.
pub(crate) struct Proxy {
    engine: UnixStream,
    inbound: Inbound,
    out: Outbound,
    jobs: Jobs,
    keys: Keys,
    /// What is wanted to know before the next request can go on.
    asked: Option<(u32, bool)>,
    refused: Option<Status>,
    /// The server's device reaches no more of its memory: pages go with the
    /// stream, as over TCP.
    through: bool,
    /// A request could not be taken before something else is done.
    given_back: bool,
    /// A SHARE is on its way: what lets write is void once it is answered.
    sharing: bool,
    /// The engine has said goodbye: however it ends is right.
    bye: bool,
    /// What goes to the server, apart from pages.
    to_server: Vec<u8>,
    from_server: Vec<u8>,
    slab_pages: u32,
    /// Before the memory: the device uses it as long as there is a connection.
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

    /// Leads on what either side says until one of them ends: what was done, and
    /// what broke the connection to the server, if that did.
    pub(crate) fn run(mut self) -> (Counts, Result<(), Error>) {
        let end = self.serve();
        // What the server said last is for the engine to read.
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

    /// Takes requests as long as they can be dealt with.
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

    /// Whether no request can be taken before something else has ended.
    fn is_held_up(&self) -> bool {
        let queued = self.to_server.len() >= QUEUED;
        self.asked.is_some() || self.sharing || self.jobs.is_full() || queued
    }

    /// Deals with a request, or gives it back.
    fn take(&mut self, request: Request) -> Result<Option<Request>, Error> {
        if matches!(request, Request::Read(_) | Request::Write(..)) && self.through {
            return Ok(self.lead_through(request));
        }
        match request {
            Request::Refused(header, status) => self.refuse(&header, status),
            Request::Read(header) => {
                let len = header.count as usize * tmem_wire::PAGE_SIZE;
                match self.remote(&header, false) {
                    Ok(None) => return Ok(Some(request)),
                    Err(status) => self.refuse(&header, status),
                    Ok(Some(remote)) => {
                        let Some(place) = self.staging.take_read(len) else {
                            return Ok(Some(request));
                        };
                        let job = Job {
                            header,
                            place,
                            write: false,
                        };
                        self.jobs.pages(job, remote, &self.staging)?;
                    }
                }
            }
            Request::Write(header, place) => match self.remote(&header, true) {
                Ok(None) => return Ok(Some(request)),
                Err(status) => {
                    self.staging.give(place);
                    self.refuse(&header, status);
                }
                Ok(Some(remote)) => {
                    let job = Job {
                        header,
                        place,
                        write: true,
                    };
                    self.jobs.pages(job, remote, &self.staging)?;
                }
            },
            // The memory of a slab that a device may use is not given back page
            // by page, so that the server need not hear of it.
            Request::Other(header, _) if header.op == Op::Discard => {
                self.out.say(header.reply(Status::Ok, 0).encode().to_vec());
            }
            Request::Other(header, bytes) => {
                if header.op == Op::Share {
                    if !self.jobs.has_no_pages() {
                        return Ok(Some(Request::Other(header, bytes)));
                    }
                    self.sharing = true;
                }
                if let (Op::Release, Ok(slabs)) =
                    (header.op, decode_slab_list(&bytes[HEADER_LEN..]))
                {
                    self.keys.forget(&slabs);
                }
                self.bye |= header.op == Op::Bye;
                self.to_server.extend_from_slice(&bytes);
            }
        }
        Ok(None)
    }

    /// Has the server itself read or write pages, or gives the request back.
    fn lead_through(&mut self, request: Request) -> Option<Request> {
        // What the device does has its place in the order of all.
        if !self.jobs.has_no_pages() {
            return Some(request);
        }
        match request {
            Request::Read(header) => self.to_server.extend_from_slice(&header.encode()),
            Request::Write(header, place) => {
                self.to_server.extend_from_slice(&header.encode());
                self.staging.append_to(&mut self.to_server, place);
                self.staging.give(place);
            }
            other => return Some(other),
        }
        None
    }

    /// Where pages lie; nothing while the server is being asked.
    fn remote(
        &mut self,
        header: &Header,
        write: bool,
    ) -> Result<Option<crate::keys::Remote>, Status> {
        if let Some(status) = self.refused.take() {
            return Err(status);
        }
        let end = u64::from(header.page) + u64::from(header.count);
        if end > u64::from(self.slab_pages) {
            return Err(Status::OutOfRange);
        }
        if let Some(remote) = self.keys.find(header.slab, header.page, write) {
            return Ok(Some(remote));
        }
        let ask = Header {
            slab: header.slab,
            page: if write { ACCESS_WRITE } else { ACCESS_READ },
            ..Header::request(Op::Keys, OWN)
        };
        self.to_server.extend_from_slice(&ask.encode());
        self.asked = Some((header.slab, write));
        Ok(None)
    }

    fn refuse(&mut self, header: &Header, status: Status) {
        self.out.say(header.reply(status, 0).encode().to_vec());
    }

    /// Cuts what goes to the server into pieces.
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

    /// The device has done something; `false` when that ends the connection.
    fn completed(&mut self, completion: &Completion) -> Result<bool, Error> {
        if let Err(status) = completion.status {
            // What was received before it broke has been dealt with. A server
            // that goes says so, and what is under way is flushed.
            return match status {
                Outcome::Flushed => Ok(false),
                status => Err(status.into()),
            };
        }
        match (Done::of(completion.id), completion.kind) {
            (Done::Received(slot), Kind::Receive(len)) if slot < RDMA_RECEIVES => {
                let place = Staging::from_server(slot);
                let len = (len as usize).min(place.len);
                let filled = Place { len, ..place };
                self.staging.append_to(&mut self.from_server, filled);
                let id = Done::receive(slot);
                self.conn.post_receive(id, &self.staging.piece(place)?)?;
                self.hear_server()?;
            }
            (Done::Sent(slot), Kind::Work) => self.jobs.sent(slot),
            (Done::Pages(id), Kind::Work) => {
                for job in self.jobs.done(id) {
                    let len = if job.write { 0 } else { job.place.len as u32 };
                    let reply = job.header.reply(Status::Ok, len);
                    self.out.say(reply.encode().to_vec());
                    if job.write {
                        self.staging.give(job.place);
                    } else {
                        self.out.pages(job.place);
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Leads on the server's messages that have come whole.
    fn hear_server(&mut self) -> Result<(), Error> {
        let mut from = 0;
        while let Some(head) = self.from_server[from..].first_chunk::<HEADER_LEN>() {
            let header = Header::decode(head)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let end = from + HEADER_LEN + header.len as usize;
            let Some(message) = self.from_server.get(from..end) else {
                break;
            };
            let (whole, body) = (message.to_vec(), &message[HEADER_LEN..]);
            from = end;
            let ok = header.status == Status::Ok;
            match header.op {
                Op::Keys if header.id == OWN => {
                    // Whatever it says, the request that wants the key is taken again.
                    match self.keys.answered(self.asked.take(), header.status, body) {
                        Answer::Known | Answer::AskAgain => {}
                        Answer::Unreachable => self.through = true,
                        Answer::Refused(status) => self.refused = Some(status),
                    }
                    continue;
                }
                Op::Hello | Op::Auth if ok => {
                    // In a reply to AUTH a proof follows, which is the client's to look at.
                    let told = body.get(..HelloReply::LEN).unwrap_or(body);
                    self.slab_pages = HelloReply::decode(told).map_or(0, |r| r.slab_pages);
                }
                Op::Share => {
                    self.sharing = false;
                    self.keys.shared();
                }
                _ => {}
            }
            self.out.say(whole);
        }
        self.from_server.drain(..from);
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
