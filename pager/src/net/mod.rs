//! The client's side of the protocol: many requests under way to several memory
//! servers, over connections that may break for a moment.
//!
//! Nothing here waits: [`Servers::drive`] does what can be done now, and
//! [`Servers::interests`] and [`Servers::next_timer`] say when to call it again.
//! Each server has one session, with a second connection while many pages move,
//! so that a page that a thread waits for does not queue behind write-back:
//! [`Lane`]. Requests of one lane that touch the same pages take effect in order.

mod clock;
mod conn;
mod handshake;
mod link;
mod local;
#[cfg(test)]
pub(crate) mod model;
mod packing;
mod reason;
mod request;
mod retry;
mod second;
mod server;
mod sock;
mod transport;

pub use local::{LocalCopy, LocalTier};
pub use reason::{Code, Reason, RequestError};

use crate::ServerId;
use crate::When;
use crate::sys::fd::Fd;
use crate::sys::wait::Interest;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use clock::Clock;
pub use conn::Packed;
use core::net::SocketAddr;
use request::{Payload, Request};
use server::Server;
use sock::{Poller, Sock, Sockets};
use tmem_policy::placement::Speed;
use tmem_wire::{HelloReply, MAX_CONTROL, MAX_RUN, Op, SessionId, Status, encode_slab_list};
use transport::{Network, Ready};

/// A server as the user named it, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For messages.
    pub name: String,
    /// Tried in this order.
    pub addrs: Vec<SocketAddr>,
    /// Where they are reached over RDMA: the process that does so.
    pub agent: Option<Agent>,
}

/// A process on this machine that speaks RDMA for the engine, which cannot use
/// the libraries for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Agent {
    /// The name of its socket, in the abstract namespace.
    pub name: Vec<u8>,
    /// Proves that it may be used.
    pub token: [u8; 16],
}

impl core::fmt::Debug for Agent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The token is a secret.
        f.write_str("agent")
    }
}

/// How to deal with servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What servers that ask for a secret are shown proof of.
    pub secret: Option<Vec<u8>>,
    /// How long a broken connection is attempted again before anybody hears of
    /// it, in milliseconds. A server that has taken one is waited for as below.
    pub reconnect_ms: u64,
    /// A server that answers nothing for so many milliseconds while requests, or a
    /// greeting, wait is lost.
    pub stall_ms: u64,
    /// How pages travel.
    pub packing: When,
    /// How long a server is waited for that alone has pages, in milliseconds; `None` if not
    /// longer than others. See [`Servers::set_waited_for`].
    pub wait_ms: Option<u64>,
    /// Goes into nonces beside the kernel's random numbers.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            secret: None,
            reconnect_ms: 5_000,
            stall_ms: 30_000,
            packing: When::Auto,
            wait_ms: None,
            seed: 0,
        }
    }
}

/// Which connection carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A thread waits for it.
    Demand = 0,
    /// Prefetch, write-back and everything else.
    Bulk = 1,
}

/// A run of remote pages begins here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The server, by its place in the list of endpoints.
    pub server: ServerId,
    /// The slab, as the server calls it.
    pub slab: u32,
    /// The first page within the slab.
    pub page: u32,
}

/// What became of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// A read has ended. Unless the result is `Ok`, the frames hold anything.
    Read {
        /// As given.
        token: u64,
        /// Whether the frames hold the pages.
        result: Result<(), RequestError>,
    },
    /// The server has the pages.
    Written {
        /// As given.
        token: u64,
        /// The server.
        server: ServerId,
    },
    /// The server does not have the pages, or only some of them.
    WriteFailed {
        /// As given.
        token: u64,
        /// The server.
        server: ServerId,
        /// Why.
        error: RequestError,
    },
    /// The server granted slabs: at least one, at most as many as asked for.
    Granted {
        /// The server.
        server: ServerId,
        /// As the server calls them.
        slabs: Vec<u32>,
    },
    /// The server grants no slab now.
    GrantRefused {
        /// The server.
        server: ServerId,
        /// Why.
        error: RequestError,
    },
    /// The server was asked for a child of the session.
    Shared {
        /// The server.
        server: ServerId,
        /// The child, which has every slab of the session.
        result: Result<SessionId, RequestError>,
    },
    /// The server can be used, and holds nothing yet.
    Up {
        /// The server.
        server: ServerId,
        /// Pages of each of its slabs.
        slab_pages: u32,
        /// Pages that it can hold.
        capacity_pages: u64,
        /// Pages that it could still grant.
        free_pages: u64,
    },
    /// The server means to end: it grants nothing more, and what is there is to be moved to
    /// others.
    Drains {
        /// The server.
        server: ServerId,
    },
    /// Others want the slabs of the server in which nothing is.
    WantsBack {
        /// The server.
        server: ServerId,
    },
    /// The server has taken a connection and not answered the greeting: it may be busy,
    /// and is waited for. Told once of each server.
    Silent {
        /// The server.
        server: ServerId,
        /// For so many milliseconds.
        ms: u64,
        /// It is waited for so many in all.
        until_ms: u64,
    },
    /// The server has no place for a connection to a session that there is, and is waited for.
    /// Told once of each server.
    NoPlace {
        /// The server.
        server: ServerId,
        /// What it has none of.
        reason: Reason,
        /// It is waited for so many milliseconds in all.
        until_ms: u64,
    },
    /// The server is away for longer than others are waited for, and is waited for all
    /// the same. Told once a minute.
    Away {
        /// The server.
        server: ServerId,
        /// For so many milliseconds.
        ms: u64,
        /// Why.
        reason: Reason,
    },
    /// The server cannot be used any more, and what it held is gone. All that
    /// was asked of it has failed before this.
    Lost {
        /// The server.
        server: ServerId,
        /// Why.
        reason: Reason,
    },
    /// The server could not be had, and is not tried again before the next
    /// [`Servers::connect`].
    Refused {
        /// The server.
        server: ServerId,
        /// Why.
        reason: Reason,
    },
}

/// A connection to a server that was begun for another process.
#[derive(Debug)]
pub struct Dialled {
    /// The server.
    pub server: ServerId,
    /// The server's address, by its place in the list.
    pub addr: usize,
    /// The socket.
    pub fd: Fd,
}

/// All memory servers.
#[derive(Debug)]
pub struct Servers {
    servers: Vec<Server>,
    /// Has the number after those of the servers.
    local: Option<Box<LocalTier>>,
    options: Options,
    poller: Poller,
    /// Whether reads of the demand lane are waited for awake.
    prompt: bool,
    /// The links that may be ready, and for what where that is known. The others
    /// were entered in the poll.
    polled: Vec<(usize, usize, Option<Ready>)>,
    /// Failures of requests that could not be made.
    early: Vec<Completion>,
    clock: Clock,
    /// Until when the end of the program is told to servers.
    leave_by: Option<u64>,
}

/// How long servers have to hear that the program is about to end.
const LEAVE_NS: u64 = 100_000_000;

impl Servers {
    /// Servers that are all down; [`Servers::connect`] begins.
    pub fn new(endpoints: Vec<Endpoint>, options: Options) -> Servers {
        let sockets: Rc<dyn Network> = Rc::new(Sockets);
        Servers::over(&sockets, endpoints, options)
    }

    /// The same, reached by any network.
    fn over(network: &Rc<dyn Network>, endpoints: Vec<Endpoint>, options: Options) -> Servers {
        let numbered = ServerId::all().zip(endpoints);
        Servers {
            servers: numbered
                .map(|(id, e)| Server::new(id, e, options.packing, network))
                .collect(),
            local: None,
            options,
            poller: Poller::default(),
            prompt: false,
            polled: Vec::new(),
            early: Vec::new(),
            clock: Clock::default(),
            leave_by: None,
        }
    }

    /// Begins to connect to all servers that are down. `now_ns` is on the clock
    /// of [`Servers::drive`].
    pub fn connect(&mut self, now_ns: u64) {
        let now = self.clock.look(now_ns);
        self.servers.iter_mut().for_each(|s| s.connect(now));
        if let (Some(id), Some(local)) = (self.local(), self.local.as_deref_mut()) {
            self.early.extend(local.begin(id));
        }
    }

    /// Whether the server holds pages or could: also while its connections are
    /// broken for a moment.
    pub fn is_up(&self, server: ServerId) -> bool {
        self.is_local_up(server) || self.servers.get(server.index()).is_some_and(Server::is_up)
    }

    /// Whether any server is up.
    pub fn any_up(&self) -> bool {
        self.local.as_deref().is_some_and(LocalTier::is_up)
            || self.servers.iter().any(Server::is_up)
    }

    /// Whether no server is being connected to.
    pub fn is_settled(&self) -> bool {
        self.servers.iter().all(Server::is_settled)
    }

    /// Whether no server is down.
    pub fn is_complete(&self) -> bool {
        self.servers.iter().all(|s| !s.is_down())
    }

    /// Whether a server that is away is waited for as long as [`Options::wait_ms`] says.
    pub fn set_waited_for(&mut self, server: ServerId, is: bool) {
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.set_waited_for(is);
        }
    }

    /// Gives up a server that has answered nothing for so many milliseconds while another
    /// one answers. Only one of `which` is, at a time: with one server less, the caller may
    /// not want to give up others.
    pub fn give_up_silent(&mut self, ms: u64, mut which: impl FnMut(ServerId) -> bool) {
        let now = self.clock.now();
        let least = ms.saturating_mul(1_000_000);
        let answers = |s: &Server| s.is_up() && s.is_settled() && s.silent_ns(now) < least / 3;
        let others = self.servers.iter().any(answers);
        let mut numbered = ServerId::all().zip(&mut self.servers);
        let silent =
            numbered.find(|(id, s)| others && s.is_up() && s.silent_ns(now) >= least && which(*id));
        if let Some((_, server)) = silent {
            server.lost(Reason::Stalled(ms), &mut self.early);
        }
    }

    /// How many servers are away and waited for.
    pub fn away(&self) -> usize {
        self.servers.iter().filter(|s| s.is_away()).count()
    }

    /// The addresses of a server that had none.
    pub fn set_addresses(&mut self, server: ServerId, addrs: Vec<SocketAddr>) {
        if let Some(server) = self.servers.get_mut(server.index())
            && server.endpoint.addrs.is_empty()
        {
            server.endpoint.addrs = addrs;
        }
    }

    /// The server's name for messages.
    pub fn name(&self, server: ServerId) -> &str {
        self.servers
            .get(server.index())
            .map_or("?", |s| &s.endpoint.name)
    }

    /// Whether reads of the demand lane from now on are waited for awake, which
    /// servers are told.
    pub fn set_prompt(&mut self, prompt: bool) {
        self.prompt = prompt;
    }

    /// Makes the connection of `lane` anew, and sends again over it what is not
    /// answered: whatever spoils answers may be on its way.
    pub fn renew(&mut self, server: ServerId, lane: Lane, now_ns: u64) {
        let now = self.clock.look(now_ns);
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.renew(lane, now);
        }
    }

    /// Reads one page into each of the frames at the addresses `dest`, at most
    /// [`MAX_RUN`]. Ends with [`Completion::Read`].
    ///
    /// # Safety
    /// Each address is that of 4096 bytes that may be written, and that nobody
    /// else uses until the read has ended or these `Servers` are gone.
    pub unsafe fn read(&mut self, lane: Lane, token: u64, at: At, dest: &[usize]) {
        // SAFETY: as the caller vouches.
        unsafe { self.pages(Op::Read, lane, token, at, dest) };
    }

    /// Writes one page from each of the frames at the addresses `src`, at most
    /// [`MAX_RUN`]. Ends with [`Completion::Written`] or
    /// [`Completion::WriteFailed`].
    ///
    /// # Safety
    /// Each address is that of 4096 bytes that may be read, and that do not
    /// change until the write has ended or these `Servers` are gone.
    pub unsafe fn write(&mut self, token: u64, at: At, src: &[usize]) {
        // SAFETY: as the caller vouches.
        unsafe { self.pages(Op::Write, Lane::Bulk, token, at, src) };
    }

    /// Says that the contents of `count` pages are not wanted any more. Takes
    /// effect after the writes that were asked for before it, and before those
    /// asked for later.
    pub fn discard(&mut self, at: At, count: u32) {
        let mut at = at;
        let mut left = count;
        while left > 0 {
            let count = left.min(MAX_RUN);
            self.push(
                at.server,
                Request {
                    slab: at.slab,
                    page: at.page,
                    count,
                    ..Request::new(Op::Discard)
                },
            );
            at.page = at.page.saturating_add(count);
            left -= count;
        }
    }

    /// Asks for `n` slabs. Ends with [`Completion::Granted`] or
    /// [`Completion::GrantRefused`]. A connection
    /// that breaks before the answer makes the server grant twice; it has the
    /// others back when the session ends.
    pub fn grant(&mut self, server: ServerId, n: u32) {
        self.push(
            server,
            Request {
                count: n.min(MAX_LIST as u32),
                ..Request::new(Op::Grant)
            },
        );
    }

    /// Gives slabs back.
    pub fn release(&mut self, server: ServerId, slabs: &[u32]) {
        for list in slabs.chunks(MAX_LIST) {
            let payload = Payload::Bytes(encode_slab_list(list).into());
            self.push(
                server,
                Request {
                    payload,
                    ..Request::new(Op::Release)
                },
            );
        }
    }

    /// Asks for a child of the session, which has every slab that the session
    /// has when this is taken. Ends with [`Completion::Shared`]. All slabs there
    /// are cannot be written any more as long as the child has them.
    pub fn share(&mut self, server: ServerId) {
        self.push(server, Request::new(Op::Share));
    }

    /// The session with a server that is up, as its greeting told it.
    pub fn session(&self, server: ServerId) -> Option<&HelloReply> {
        let server = self.servers.get(server.index())?;
        server.session().filter(|_| server.is_up())
    }

    /// Whether second connections may be opened from now on. A filter of system calls may
    /// end the program for it.
    pub fn allow_second(&mut self, may: bool) {
        let servers = self.servers.iter_mut();
        servers.for_each(|server| server.may_open = may);
    }

    /// Joins a session of a server that is down, as if its connection had just
    /// been broken. The server is up from here on.
    pub fn resume(&mut self, server: ServerId, session: HelloReply, now_ns: u64) {
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.resume(session, self.clock.look(now_ns));
        }
    }

    /// Begins to connect to a server for a process that is about to be forked, which
    /// may not be able to; nothing where that fails.
    pub fn dial(&self, server: ServerId) -> Option<Dialled> {
        let of = self.servers.get(server.index())?;
        let (sock, addr) = of.dial(&self.options)?;
        Some(Dialled {
            server,
            addr,
            fd: sock.into_fd()?,
        })
    }

    /// Goes on, after [`Servers::resume`], with what the parent process has dialled.
    pub fn resume_by(&mut self, dialled: Dialled, now_ns: u64) {
        let server = self.servers.get_mut(dialled.server.index());
        if let Some(server) = server.filter(|s| s.is_up()) {
            let sock = Box::new(Sock::inherited(dialled.fd));
            let now = self.clock.look(now_ns);
            server.resume_by(sock, dialled.addr, now);
        }
    }

    /// Whether some server that is up has not been greeted since it was resumed.
    pub fn is_resuming(&self) -> bool {
        self.servers.iter().any(Server::is_resuming)
    }

    /// The sockets to wait for.
    pub fn interests(&self, out: &mut Vec<Interest>) {
        self.servers.iter().for_each(|s| s.interests(out));
    }

    /// Sends what can be sent now, and does what is due by the clock; appends
    /// what came of it to `out`.
    pub fn send(&mut self, now_ns: u64, out: &mut Vec<Completion>) {
        let now = self.clock.look(now_ns);
        out.append(&mut self.early);
        if let (Some(id), Some(local)) = (self.local(), self.local.as_deref_mut()) {
            local.work(id, out);
        }
        // Every demand lane before any bulk lane.
        for link in 0..2 {
            for s in &mut self.servers {
                s.prepare(link, now, &self.options, out);
            }
        }
    }

    /// Does all sending and receiving that can be done now, and what is due by
    /// the clock; appends what came of it to `out`.
    pub fn drive(&mut self, now_ns: u64, out: &mut Vec<Completion>) {
        self.send(now_ns, out);
        let now = self.clock.look(now_ns);
        self.poller.clear();
        self.polled.clear();
        for link in 0..2 {
            for (i, s) in self.servers.iter().enumerate() {
                if let Some((sock, write)) = s.sock(link) {
                    let known = sock.ready();
                    if known.is_none() {
                        self.poller.add(sock.interest(write).fd, write);
                    }
                    self.polled.push((i, link, known));
                }
            }
        }
        let any = self.poller.poll();
        let mut nth = 0;
        for (i, link, known) in &self.polled {
            let ready = match known {
                Some(ready) => *ready,
                None if any => self.poller.ready(nth),
                None => Ready::default(),
            };
            nth += usize::from(known.is_none());
            self.servers[*i].drive(*link, ready, now, &self.options, out);
        }
    }

    /// [`Servers::drive`] where the caller has waited for the sockets of
    /// [`Servers::interests`] and knows which can be read.
    pub fn receive(&mut self, readable: &[i32], now_ns: u64, out: &mut Vec<Completion>) {
        let now = self.clock.look(now_ns);
        for link in 0..2 {
            for s in &mut self.servers {
                let raw = s.sock(link).map(|(sock, write)| sock.interest(write).fd);
                if raw.is_some_and(|raw| readable.contains(&raw)) {
                    let ready = Ready {
                        read: true,
                        write: true,
                    };
                    s.drive(link, ready, now, &self.options, out);
                }
            }
        }
        self.send(now_ns, out);
    }

    /// The caller has waited so long for the sockets, with nothing else to do.
    pub fn waited(&mut self, ns: u64) {
        self.servers.iter_mut().for_each(|s| s.waited(ns));
    }

    /// A thread waited so long for a page of `server`.
    pub fn waited_for(&mut self, server: ServerId, ns: u64) {
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.waited_for(ns);
        }
    }

    /// How long threads wait for a page of `server` on average, in nanoseconds, once that
    /// is known.
    pub fn wait_ns(&self, server: ServerId) -> Option<u64> {
        self.servers.get(server.index())?.speed().wait_ns
    }

    /// After how many nanoseconds an answer of `server` is late.
    pub fn late_ns(&self, server: ServerId) -> u64 {
        let server = self.servers.get(server.index());
        server.map_or(0, Server::late_ns)
    }

    /// What each server that is up takes, as measured.
    pub fn speeds(&self) -> impl Iterator<Item = (ServerId, Speed)> {
        let up = ServerId::all()
            .zip(&self.servers)
            .filter(|(_, s)| s.is_up());
        let local = self.local.as_deref().filter(|l| l.is_up());
        let local = self.local().zip(local.map(LocalTier::speed));
        up.map(|(id, s)| (id, s.speed())).chain(local)
    }

    /// When to call [`Servers::drive`] even if no socket is ready.
    pub fn next_timer(&self) -> Option<u64> {
        if !self.early.is_empty() || self.local.as_deref().is_some_and(LocalTier::has_work) {
            return Some(0);
        }
        self.servers
            .iter()
            .filter_map(|s| s.next_timer(&self.options))
            .chain(self.leave_by.filter(|by| *by > self.clock.now()))
            .min()
            .map(|at| self.clock.wake_ns(at))
    }

    /// Bytes of pages that reads and writes of `lane` under way move.
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        let local = self.local.as_deref().map_or(0, |l| l.bytes(lane));
        local
            + self
                .servers
                .iter()
                .map(|s| s.load(lane).bytes)
                .sum::<usize>()
    }

    /// Those of `server`.
    pub fn queued_at(&self, server: ServerId, lane: Lane) -> usize {
        if self.local() == Some(server) {
            return self.local.as_deref().map_or(0, |l| l.bytes(lane));
        }
        let server = self.servers.get(server.index());
        server.map_or(0, |s| s.load(lane).bytes)
    }

    /// Requests of `lane` under way.
    pub fn outstanding(&self, lane: Lane) -> usize {
        let local = self.local.as_deref().map_or(0, |l| l.requests(lane));
        local
            + self
                .servers
                .iter()
                .map(|s| s.load(lane).requests)
                .sum::<usize>()
    }

    /// Connections that broke and were made again.
    pub fn reconnects(&self) -> u64 {
        self.servers.iter().map(Server::reconnects).sum()
    }

    /// What travelled packed.
    pub fn packed(&self) -> Packed {
        let mut sum = Packed::default();
        self.servers.iter().for_each(|s| sum.add(s.packed()));
        sum
    }

    /// Tells all servers that the program is about to end: its sessions are to end with
    /// their connections, whenever the kernel closes these. Until then everything is as
    /// before.
    pub fn leave(&mut self, now_ns: u64) {
        let now = self.clock.look(now_ns);
        self.leave_by.get_or_insert(now.saturating_add(LEAVE_NS));
        self.servers.iter_mut().for_each(Server::leave);
    }

    /// Whether all servers know that the program is about to end, or had a tenth of a second
    /// to hear it.
    pub fn has_left(&mut self, now_ns: u64) -> bool {
        let now = self.clock.look(now_ns);
        self.leave_by.is_some_and(|by| by <= now) || self.servers.iter().all(Server::has_left)
    }

    /// Ends all sessions as far as that goes without waiting; nothing that is
    /// under way ends any more.
    pub fn bye(&mut self) {
        self.servers.iter_mut().for_each(Server::bye);
    }

    /// # Safety
    /// As [`Servers::read`] and [`Servers::write`] say.
    unsafe fn pages(&mut self, op: Op, lane: Lane, token: u64, at: At, frames: &[usize]) {
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let mut request = Request {
            lane,
            prompt: self.prompt && op == Op::Read && lane == Lane::Demand,
            token,
            slab: at.slab,
            page: at.page,
            count,
            payload: Payload::frames(frames),
            ..Request::new(op)
        };
        if count == 0 || count > MAX_RUN {
            let error = RequestError::Status(Status::BadRequest);
            self.early
                .extend(server::failure(at.server, &request, error));
            return;
        }
        let server = self.servers.get(at.server.index());
        if server.is_some_and(Server::packs) {
            // SAFETY: by the caller.
            unsafe { request.pack() };
        }
        self.push(at.server, request);
    }

    fn push(&mut self, server: ServerId, request: Request) {
        if let Some(local) = self.local_mut(server).filter(|local| local.is_up()) {
            local.push(request);
            return;
        }
        match self.servers.get_mut(server.index()) {
            Some(s) if s.is_up() => s.push(request),
            _ => self
                .early
                .extend(server::failure(server, &request, RequestError::Lost)),
        }
    }
}

/// The most slabs that one message lists.
const MAX_LIST: usize = MAX_CONTROL as usize / 4;

#[cfg(test)]
mod tests;
