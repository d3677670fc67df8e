//! A memory server for tests, which does as it is told.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use std::vec;
use std::vec::Vec;
use tmem_wire::{
    Features, HEADER_LEN, Header, Hello, HelloReply, Op, PAGE_SIZE, SessionId, Status, VERSION,
    auth::Keys, decode_slab_list, encode_slab_list,
};

/// The session that a SHARE makes.
pub(super) const CHILD: [u8; 16] = [5; 16];

/// What the server holds, and how it behaves.
pub(super) struct Orders {
    pub(super) pages: HashMap<(u32, u32), Vec<u8>>,
    pub(super) slabs: Vec<u32>,
    pub(super) next_slab: u32,
    /// Slabs that can be granted still.
    pub(super) left: u32,
    pub(super) log: Vec<Header>,
    pub(super) instance: [u8; 16],
    pub(super) session: [u8; 16],
    pub(super) secret: Option<Vec<u8>>,
    /// For each connection to come: cut it after so many bytes received.
    pub(super) cut_in: VecDeque<usize>,
    /// For each connection to come: cut it after so many bytes sent.
    pub(super) cut_out: VecDeque<usize>,
    /// Sent instead of the reply to a HELLO; then the connection is closed.
    pub(super) greeting: Option<Vec<u8>>,
    /// Status of HELLOs that join a session.
    pub(super) join: Status,
    /// One more HELLO joins, then none.
    pub(super) join_once: bool,
    /// Each of these is answered once with `Internal`: HELLO too.
    pub(super) fails: Vec<Op>,
    pub(super) features: Features,
    /// Requests are taken and not answered.
    pub(super) silent: bool,
    /// Such a request ends its connection, once what came behind it is answered.
    pub(super) breaks_at: Option<Op>,
    /// Answers go out in the opposite order, a few at a time.
    pub(super) reverse: bool,
    /// Sent in the place of the next answer.
    pub(super) forged: Option<Vec<u8>>,
    /// Status of the next answers to READ and WRITE.
    pub(super) page_status: Status,
    pub(super) connections: u32,
    pub(super) byes: u32,
}

pub(super) struct Fake {
    addr: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(super) fn new() -> Fake {
        Fake::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Orders)) -> Fake {
        let mut orders = Orders {
            pages: HashMap::new(),
            slabs: vec![],
            next_slab: 100,
            left: 1000,
            log: vec![],
            instance: [7; 16],
            session: [9; 16],
            secret: None,
            cut_in: VecDeque::new(),
            cut_out: VecDeque::new(),
            greeting: None,
            join: Status::Ok,
            join_once: false,
            fails: vec![],
            features: 0,
            silent: false,
            breaks_at: None,
            reverse: false,
            forged: None,
            page_status: Status::Ok,
            connections: 0,
            byes: 0,
        };
        change(&mut orders);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let orders = Arc::new(Mutex::new(orders));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (o, s, halt) = (orders.clone(), streams.clone(), stop.clone());
        let thread = std::thread::spawn(move || accept(&listener, &o, &s, &halt));
        Fake {
            addr,
            orders,
            streams,
            stop,
            thread: Some(thread),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap()
    }

    /// Cuts all connections that there are.
    pub(super) fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the connection that was made last.
    pub(super) fn cut_last(&self) {
        if let Some(stream) = self.streams.lock().unwrap().pop() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends: nothing listens there any more.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(
    listener: &TcpListener,
    orders: &Arc<Mutex<Orders>>,
    streams: &Arc<Mutex<Vec<TcpStream>>>,
    stop: &AtomicBool,
) {
    let mut threads = Vec::new();
    loop {
        let (stream, _) = listener.accept().unwrap();
        if stop.load(Ordering::SeqCst) {
            break;
        }
        streams.lock().unwrap().push(stream.try_clone().unwrap());
        let orders = orders.clone();
        threads.push(std::thread::spawn(move || {
            let (cut_in, cut_out) = {
                let mut o = orders.lock().unwrap();
                o.connections += 1;
                (o.cut_in.pop_front(), o.cut_out.pop_front())
            };
            let mut wire = Wire {
                stream,
                left_in: cut_in.unwrap_or(usize::MAX),
                left_out: cut_out.unwrap_or(usize::MAX),
            };
            serve(&mut wire, &orders);
            let _ = wire.stream.shutdown(Shutdown::Both);
        }));
    }
    for stream in streams.lock().unwrap().drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A connection that ends after so many bytes.
struct Wire {
    stream: TcpStream,
    left_in: usize,
    left_out: usize,
}

impl Wire {
    /// `None` at the end, or where the connection is to be cut.
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; n.min(self.left_in)];
        self.stream.read_exact(&mut bytes).ok()?;
        self.left_in -= bytes.len();
        (bytes.len() == n).then_some(bytes)
    }

    fn give(&mut self, bytes: &[u8]) -> Option<()> {
        let n = bytes.len().min(self.left_out);
        self.stream.write_all(&bytes[..n]).ok()?;
        self.left_out -= n;
        (n == bytes.len()).then_some(())
    }

    fn request(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = self.take(HEADER_LEN)?;
        let header = Header::decode(header.first_chunk().unwrap()).unwrap();
        let body = self.take(header.len as usize)?;
        Some((header, body))
    }

    /// Whether another request comes within a moment.
    fn more(&self) -> bool {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let got = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(None).unwrap();
        !matches!(got, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

fn reply(header: &Header, status: Status, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.reply(status, body.len() as u32).encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn serve(wire: &mut Wire, orders: &Mutex<Orders>) -> Option<()> {
    greet(wire, orders)?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut broken = false;
    loop {
        let (header, body) = wire.request()?;
        let mut o = orders.lock().unwrap();
        o.log.push(header);
        broken |= o.breaks_at == Some(header.op);
        if broken {
            if o.breaks_at != Some(header.op) {
                let answer = o.answer(&header, &body);
                wire.give(&answer)?;
            }
            drop(o);
            if !wire.more() {
                return None;
            }
            continue;
        }
        let mut answer = o.answer(&header, &body);
        if let Some(forged) = o.forged.take() {
            answer = forged;
        }
        let (silent, reverse) = (o.silent, o.reverse);
        drop(o);
        if silent {
            continue;
        }
        held.push(answer);
        if !reverse || held.len() == 7 || !wire.more() {
            for answer in held.drain(..).rev() {
                wire.give(&answer)?;
            }
        }
        if header.op == Op::Bye {
            return None;
        }
    }
}

fn greet(wire: &mut Wire, orders: &Mutex<Orders>) -> Option<()> {
    let (mut header, body) = wire.request()?;
    let hello = Hello::decode(&body).unwrap();
    let o = orders.lock().unwrap();
    if let Some(greeting) = &o.greeting {
        let _ = wire.give(greeting);
        return None;
    }
    let mut answer = HelloReply {
        version: VERSION,
        features: o.features,
        slab_pages: 64,
        session: SessionId::NEW,
        instance: o.instance,
        challenge: [3; 16],
        capacity_pages: 64 * 1000,
        free_pages: 64 * u64::from(o.left),
    };
    let (mut session, mut proof) = (hello.session, None);
    let secret = o.secret.clone();
    drop(o);
    if let Some(secret) = secret {
        assert_eq!(session, SessionId::NEW, "said before the server is known");
        let challenge = answer.encode();
        wire.give(&reply(&header, Status::Auth, &challenge))?;
        let keys = Keys::new(&secret, header.slab, &body, &challenge);
        let (auth, payload) = wire.request()?;
        assert_eq!(auth.op, Op::Auth);
        header = auth;
        let Some(asked) = keys.session(&payload) else {
            let _ = wire.give(&reply(&header, Status::Auth, b""));
            return None;
        };
        session = asked;
        proof = Some((keys, payload));
    }
    let mut o = orders.lock().unwrap();
    if o.fails_now(Op::Hello) {
        let _ = wire.give(&reply(&header, Status::Internal, b"sorry"));
        return None;
    }
    let status = if session == SessionId::NEW {
        Status::Ok
    } else if session.0 != o.session {
        Status::NoSession
    } else {
        let status = o.join;
        if core::mem::take(&mut o.join_once) {
            o.join = Status::Limit;
        }
        status
    };
    answer.session = SessionId(o.session);
    drop(o);
    let told = match proof {
        Some((keys, auth)) => keys.reply(&auth, &answer).to_vec(),
        None => answer.encode().to_vec(),
    };
    match status {
        Status::Ok => wire.give(&reply(&header, Status::Ok, &told)),
        Status::NoSession => {
            let _ = wire.give(&reply(&header, status, &told));
            None
        }
        status => {
            let _ = wire.give(&reply(&header, status, b"no"));
            None
        }
    }
}

impl Orders {
    /// Whether this one is to fail.
    fn fails_now(&mut self, op: Op) -> bool {
        let at = self.fails.iter().position(|fails| *fails == op);
        at.map(|at| self.fails.remove(at)).is_some()
    }

    fn answer(&mut self, header: &Header, body: &[u8]) -> Vec<u8> {
        let run = (header.page..header.page + header.count).map(|p| (header.slab, p));
        let status = self.page_status;
        if self.fails_now(header.op) {
            return reply(header, Status::Internal, b"sorry");
        }
        match header.op {
            Op::Read | Op::Write if status != Status::Ok => reply(header, status, b"sorry"),
            Op::Read => {
                let zero = vec![0; PAGE_SIZE];
                let pages: Vec<u8> = run
                    .flat_map(|p| self.pages.get(&p).unwrap_or(&zero).clone())
                    .collect();
                reply(header, Status::Ok, &pages)
            }
            Op::Write => {
                for (p, bytes) in run.zip(body.chunks(PAGE_SIZE)) {
                    self.pages.insert(p, bytes.to_vec());
                }
                reply(header, Status::Ok, b"")
            }
            Op::Discard => {
                run.for_each(|p| drop(self.pages.remove(&p)));
                reply(header, Status::Ok, b"")
            }
            Op::Grant if self.left == 0 => reply(header, Status::Full, b"full"),
            Op::Grant => {
                let n = header.count.min(self.left);
                self.left -= n;
                let list: Vec<u32> = (self.next_slab..self.next_slab + n).collect();
                self.next_slab += n;
                self.slabs.extend(&list);
                reply(header, Status::Ok, &encode_slab_list(&list))
            }
            Op::Release => {
                let list = decode_slab_list(body).unwrap();
                let had = self.slabs.len();
                self.slabs.retain(|s| !list.contains(s));
                let all = had - self.slabs.len() == list.len();
                reply(
                    header,
                    if all { Status::Ok } else { Status::NoSuchSlab },
                    b"",
                )
            }
            Op::Share => reply(header, Status::Ok, &CHILD),
            Op::Leave => reply(header, Status::Ok, b""),
            Op::Bye => {
                self.byes += 1;
                reply(header, Status::Ok, b"")
            }
            _ => reply(header, Status::BadRequest, b""),
        }
    }
}
