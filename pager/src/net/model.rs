//! Memory servers in the caller's thread, without sockets, threads or clocks, for tests.
//!
//! A request is complete when its last byte was sent, and is carried out when the test says
//! so: in any order, but requests of one connection that change the same pages keep theirs.
//! Until then the server has done nothing, so that a client that takes a request for done
//! before it was answered is found out.

use super::transport::{Iov, Network, Ready, Stream, Transport};
use super::{Endpoint, Options, Servers};
use crate::sys::fd::Fd;
use crate::sys::wait::Interest;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::SocketAddr;
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use tmem_wire::{
    HEADER_LEN, Header, Hello, HelloReply, Op, PAGE_SIZE, SessionId, Status, VERSION,
    decode_slab_list, encode_slab_list,
};

/// Pages of a slab.
pub(crate) const SLAB_PAGES: u32 = 16;
/// A read of the same pages is failed at most this often in a row: the client may ask more
/// often before it takes them for lost.
const FAILED_READS: u32 = 2;

type Session = [u8; 16];
type Bytes = Rc<[u8]>;

/// What a session has: pages by slab and number.
type Slabs = BTreeMap<u32, BTreeMap<u32, Bytes>>;

#[derive(Debug, Default)]
struct Server {
    instance: u8,
    sessions: BTreeMap<Session, Slabs>,
    made: u32,
    granted: u32,
    /// Slabs that it can still grant.
    left: u32,
    failed: BTreeMap<(u32, u32), u32>,
}

#[derive(Debug)]
struct Connection {
    server: usize,
    inbox: Vec<u8>,
    session: Option<Session>,
    waiting: Vec<(Header, Vec<u8>)>,
    outbox: VecDeque<u8>,
    is_cut: bool,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<Server>,
    connections: BTreeMap<usize, Connection>,
    made: usize,
    /// Requests are carried out as they come.
    is_prompt: bool,
    /// Something that no client may do.
    wrong: Option<&'static str>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is carried out.
    Done,
    /// It is refused, for a reason that may pass.
    Refused,
    /// A READ is answered with other bytes.
    Spoilt,
}

/// All servers.
#[derive(Clone, Debug)]
pub(crate) struct ModelServers(Rc<RefCell<State>>);

impl ModelServers {
    /// Servers that can grant so many slabs each.
    pub(crate) fn new(slabs: &[u32]) -> ModelServers {
        let server = |(i, left): (usize, &u32)| Server {
            instance: i as u8 + 1,
            left: *left,
            ..Server::default()
        };
        ModelServers(Rc::new(RefCell::new(State {
            servers: slabs.iter().enumerate().map(server).collect(),
            ..State::default()
        })))
    }

    /// What the client is told of where they are.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let n = self.0.borrow().servers.len() as u16;
        (1..=n)
            .map(|port| Endpoint {
                name: std::format!("model-{port}"),
                addrs: std::vec![SocketAddr::from(([127, 0, 0, 1], port))],
                agent: None,
            })
            .collect()
    }

    /// A client of these servers.
    pub(crate) fn client(&self, options: Options) -> Servers {
        let network: Rc<dyn Network> = Rc::new(self.clone());
        Servers::over(&network, self.endpoints(), options)
    }

    /// Whether requests are carried out as they come.
    pub(crate) fn set_prompt(&self, is: bool) {
        self.0.borrow_mut().is_prompt = is;
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.0.borrow();
        state.connections.values().map(|c| c.waiting.len()).sum()
    }

    /// Ends the `nth` request that waits, unless one before it has to be carried out first.
    pub(crate) fn answer(&self, nth: usize, fate: Fate) {
        let mut state = self.0.borrow_mut();
        let mut nth = nth
            % state
                .connections
                .values()
                .map(|c| c.waiting.len())
                .sum::<usize>()
                .max(1);
        let ids: Vec<usize> = state.connections.keys().copied().collect();
        for id in ids {
            let n = state.connections[&id].waiting.len();
            if nth < n {
                state.answer(id, nth, fate);
                return;
            }
            nth -= n;
        }
    }

    /// Carries out all requests that wait.
    pub(crate) fn answer_all(&self) {
        while self.waiting() > 0 {
            self.answer(0, Fate::Done);
        }
    }

    /// Breaks all connections to a server.
    pub(crate) fn cut(&self, server: usize) {
        let mut state = self.0.borrow_mut();
        let of_it = state
            .connections
            .values_mut()
            .filter(|c| c.server == server);
        of_it.for_each(|c| {
            c.is_cut = true;
            c.waiting.clear();
            c.outbox.clear();
        });
    }

    /// A server starts anew: what it held is gone.
    pub(crate) fn restart(&self, server: usize) {
        {
            let mut state = self.0.borrow_mut();
            let server = &mut state.servers[server];
            server.instance = server.instance.wrapping_add(16);
            server.left += server
                .sessions
                .values()
                .map(|s| s.len() as u32)
                .sum::<u32>();
            server.sessions.clear();
            server.failed.clear();
        }
        self.cut(server);
    }

    /// A server can grant so many slabs more.
    pub(crate) fn set_left(&self, server: usize, left: u32) {
        self.0.borrow_mut().servers[server].left = left;
    }

    /// What a session of a server has in a page.
    pub(crate) fn page(
        &self,
        server: usize,
        session: Session,
        slab: u32,
        page: u32,
    ) -> Option<Bytes> {
        let state = self.0.borrow();
        let slabs = state.servers.get(server)?.sessions.get(&session)?;
        slabs.get(&slab)?.get(&page).cloned()
    }

    /// Spoils the `nth` page that a server has, if there is one: its session, slab, number.
    pub(crate) fn corrupt(&self, server: usize, nth: usize) -> Option<(Session, u32, u32)> {
        let mut state = self.0.borrow_mut();
        let sessions = state.servers.get_mut(server)?.sessions.iter_mut();
        let pages = sessions.flat_map(|(session, slabs)| {
            slabs.iter_mut().flat_map(move |(slab, pages)| {
                pages
                    .iter_mut()
                    .map(move |(page, bytes)| (*session, *slab, *page, bytes))
            })
        });
        let mut pages: Vec<_> = pages.collect();
        let count = pages.len().max(1);
        let (session, slab, page, bytes) = pages.get_mut(nth % count)?;
        **bytes = Rc::from([0x77; PAGE_SIZE]);
        Some((*session, *slab, *page))
    }

    /// Whether a server has a session.
    pub(crate) fn has_session(&self, server: usize, session: Session) -> bool {
        let state = self.0.borrow();
        let server = state.servers.get(server);
        server.is_some_and(|s| s.sessions.contains_key(&session))
    }

    /// A session ends, as that of a child that has exited.
    pub(crate) fn end_session(&self, server: usize, session: Session) {
        self.0.borrow_mut().servers[server]
            .sessions
            .remove(&session);
    }

    /// What a client has done that it must not do.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        self.0.borrow().wrong
    }
}

impl State {
    fn answer(&mut self, id: usize, nth: usize, fate: Fate) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let (header, _) = &connection.waiting[nth];
        let mut before = connection.waiting.iter().take(nth);
        let first = before.position(|(h, _)| conflict(h, header));
        let (header, body) = connection.waiting.remove(first.unwrap_or(nth));
        let (server, session) = (connection.server, connection.session.unwrap_or_default());
        let reply = self.carry_out(server, session, &header, &body, fate);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.outbox.extend(reply);
        }
    }

    fn carry_out(
        &mut self,
        server: usize,
        session: Session,
        header: &Header,
        body: &[u8],
        fate: Fate,
    ) -> Vec<u8> {
        let server = &mut self.servers[server];
        let run = header.page..header.page + header.count;
        if fate != Fate::Done {
            let failed = server.failed.entry((header.slab, header.page)).or_default();
            *failed += 1;
            // Pages that are asked for too often in vain are given up, which is right.
            let may = header.op != Op::Read || *failed <= FAILED_READS;
            if may && fate == Fate::Refused && matches!(header.op, Op::Read | Op::Write | Op::Grant)
            {
                return reply(header, Status::Internal, b"");
            }
            if may && fate == Fate::Spoilt && header.op == Op::Read {
                return reply(
                    header,
                    Status::Ok,
                    &std::vec![0x5a; header.count as usize * PAGE_SIZE],
                );
            }
        }
        let owners = |sessions: &BTreeMap<Session, Slabs>, slab: &u32| {
            sessions.values().filter(|s| s.contains_key(slab)).count()
        };
        let shared = owners(&server.sessions, &header.slab) > 1;
        let Some(slabs) = server.sessions.get_mut(&session) else {
            return reply(header, Status::NoSession, b"");
        };
        match header.op {
            Op::Read | Op::Write | Op::Discard if !slabs.contains_key(&header.slab) => {
                reply(header, Status::NoSuchSlab, b"")
            }
            Op::Read => {
                let slab = &slabs[&header.slab];
                server.failed.remove(&(header.slab, header.page));
                let zeros: Bytes = Rc::from([0; PAGE_SIZE]);
                let pages: Vec<u8> = run
                    .flat_map(|page| slab.get(&page).unwrap_or(&zeros).to_vec())
                    .collect();
                reply(header, Status::Ok, &pages)
            }
            Op::Write if shared => {
                let probe = header.count == 1
                    && !slabs[&header.slab].contains_key(&header.page)
                    && body.iter().all(|b| *b == 0);
                if !probe {
                    self.wrong = Some("a page was written to a slab that another session has");
                }
                reply(header, Status::Shared, b"")
            }
            Op::Write => {
                let slab = slabs.entry(header.slab).or_default();
                for (page, bytes) in run.zip(body.chunks(PAGE_SIZE)) {
                    slab.insert(page, Rc::from(bytes));
                }
                reply(header, Status::Ok, b"")
            }
            Op::Discard => {
                let slab = slabs.entry(header.slab).or_default();
                run.for_each(|page| drop(slab.remove(&page)));
                reply(header, Status::Ok, b"")
            }
            Op::Grant if server.left == 0 => reply(header, Status::Full, b""),
            Op::Grant => {
                let n = header.count.min(server.left);
                server.left -= n;
                let first = server.granted + 100;
                server.granted += n;
                let list: Vec<u32> = (first..first + n).collect();
                list.iter()
                    .for_each(|slab| drop(slabs.insert(*slab, BTreeMap::new())));
                reply(header, Status::Ok, &encode_slab_list(&list))
            }
            Op::Release => {
                let list = decode_slab_list(body).unwrap_or_default();
                list.iter().for_each(|slab| drop(slabs.remove(slab)));
                let unused = |slab: &&u32| owners(&server.sessions, slab) == 0;
                server.left += list.iter().filter(unused).count() as u32;
                reply(header, Status::Ok, b"")
            }
            Op::Share => {
                let copy = slabs.clone();
                let child = server.new_session();
                server.sessions.insert(child, copy);
                reply(header, Status::Ok, &child)
            }
            _ => reply(header, Status::BadRequest, b""),
        }
    }

    fn received(&mut self, id: usize) {
        while let Some(connection) = self.connections.get_mut(&id) {
            let Some(bytes) = connection.inbox.first_chunk::<HEADER_LEN>() else {
                return;
            };
            let header = Header::decode(bytes).expect("a client sends headers");
            let len = HEADER_LEN + header.len as usize;
            if connection.inbox.len() < len {
                return;
            }
            let body: Vec<u8> = connection.inbox.drain(..len).skip(HEADER_LEN).collect();
            if header.op == Op::Hello {
                self.greet(id, &header, &body);
            } else {
                connection.waiting.push((header, body));
                if self.is_prompt {
                    self.answer(id, 0, Fate::Done);
                }
            }
        }
    }

    fn greet(&mut self, id: usize, header: &Header, body: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let server = &mut self.servers[connection.server];
        let hello = Hello::decode(body).expect("a client says HELLO");
        let mut answer = HelloReply {
            version: VERSION,
            features: 0,
            slab_pages: SLAB_PAGES,
            session: hello.session,
            instance: [server.instance; 16],
            challenge: [3; 16],
            capacity_pages: u64::from(SLAB_PAGES) * 1000,
            free_pages: u64::from(SLAB_PAGES) * u64::from(server.left),
        };
        let mut status = Status::Ok;
        if hello.session == SessionId::NEW {
            answer.session = SessionId(server.new_session());
            server.sessions.insert(answer.session.0, Slabs::new());
        } else if !server.sessions.contains_key(&hello.session.0) {
            status = Status::NoSession;
        }
        connection.session = Some(answer.session.0);
        connection
            .outbox
            .extend(reply(header, status, &answer.encode()));
        connection.is_cut |= status != Status::Ok;
    }
}

impl Server {
    fn new_session(&mut self) -> Session {
        self.made += 1;
        let mut name = [self.instance; 16];
        name[..4].copy_from_slice(&self.made.to_le_bytes());
        name
    }
}

/// Whether the first request has to be carried out before the second.
fn conflict(first: &Header, second: &Header) -> bool {
    let changes = |h: &Header| matches!(h.op, Op::Write | Op::Discard);
    let slabs = |h: &Header| matches!(h.op, Op::Release | Op::Share);
    let end = |h: &Header| h.page + h.count;
    let meet = first.slab == second.slab && first.page < end(second) && second.page < end(first);
    slabs(first) || slabs(second) || (changes(first) || changes(second)) && meet
}

fn reply(header: &Header, status: Status, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.reply(status, body.len() as u32).encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

impl Network for ModelServers {
    fn connect(&self, to: &SocketAddr, _: u32) -> Result<Box<dyn Stream>, Errno> {
        let mut state = self.0.borrow_mut();
        state.made += 1;
        let id = state.made;
        let connection = Connection {
            server: usize::from(to.port()) - 1,
            inbox: Vec::new(),
            session: None,
            waiting: Vec::new(),
            outbox: VecDeque::new(),
            is_cut: false,
        };
        state.connections.insert(id, connection);
        let servers = self.clone();
        Ok(Box::new(ModelStream { servers, id }))
    }

    fn agent(&self, _: &[u8]) -> Result<Box<dyn Stream>, Errno> {
        Err(Errno::CONNREFUSED)
    }
}

/// The client's end of a connection.
#[derive(Debug)]
struct ModelStream {
    servers: ModelServers,
    id: usize,
}

impl Drop for ModelStream {
    fn drop(&mut self) {
        self.servers.0.borrow_mut().connections.remove(&self.id);
    }
}

impl Stream for ModelStream {
    fn connected(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn interest(&self, write: bool) -> Interest {
        // No descriptor has this number.
        let fd = i32::MAX - self.id as i32;
        Interest {
            fd,
            serial: self.id as u64,
            write,
        }
    }

    fn ready(&self) -> Option<Ready> {
        let state = self.servers.0.borrow();
        let connection = &state.connections[&self.id];
        Some(Ready {
            read: connection.is_cut || !connection.outbox.is_empty(),
            write: true,
        })
    }

    fn into_fd(self: Box<Self>) -> Option<Fd> {
        None
    }
}

impl Transport for ModelStream {
    unsafe fn send(&mut self, iov: &[Iov]) -> Result<usize, Errno> {
        let mut state = self.servers.0.borrow_mut();
        let connection = state.connections.get_mut(&self.id).ok_or(Errno::PIPE)?;
        if connection.is_cut {
            return Err(Errno::PIPE);
        }
        let mut sent = 0;
        for piece in iov {
            // SAFETY: as the trait demands of the caller.
            let bytes = unsafe { core::slice::from_raw_parts(piece.base as *const u8, piece.len) };
            connection.inbox.extend_from_slice(bytes);
            sent += piece.len;
        }
        state.received(self.id);
        Ok(sent)
    }

    unsafe fn recv(&mut self, iov: &mut [Iov]) -> Result<usize, Errno> {
        let mut state = self.servers.0.borrow_mut();
        let connection = state.connections.get_mut(&self.id).ok_or(Errno::PIPE)?;
        let mut got = 0;
        for piece in iov {
            let n = piece.len.min(connection.outbox.len());
            let bytes: Vec<u8> = connection.outbox.drain(..n).collect();
            // SAFETY: as the trait demands of the caller.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.base as *mut u8, n) };
            got += n;
        }
        match got {
            0 if connection.is_cut => Ok(0),
            0 => Err(Errno::AGAIN),
            got => Ok(got),
        }
    }
}
