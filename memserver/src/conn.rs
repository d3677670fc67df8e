//! One connection: its requests, in order.

use crate::greeting::greet;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::one_sided;
use crate::outbox::Outbox;
use crate::packed;
use crate::server::Shared;
use crate::session::Session;
use crate::sessions::{CloseReason, Cut, bytes};
use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_verbs::Domain;
use tmem_wire::{BYE_ID, HEADER_LEN, Header, MAX_RUN, Op, SessionId, Status, decode_slab_list};

/// How long a connection that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// How long a GRANT waits for the memory of clients that are gone.
const ROOM: Duration = Duration::from_secs(2);

/// A connection.
pub(crate) struct Conn {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: u64,
    pub(crate) link: Arc<Link>,
    pub(crate) inbox: Inbox,
    pub(crate) out: Outbox,
    /// The last request was a LEAVE.
    pub(crate) leaving: Arc<AtomicBool>,
    /// Where memory is registered for the client, if it came over RDMA.
    pub(crate) domain: Option<Arc<Domain>>,
}

/// Why a connection ends.
pub(crate) enum End {
    /// The client's system ended it: the client has ended, or comes back at
    /// once.
    Closed,
    /// It broke, or another thread ended it.
    Broken,
    /// A BYE.
    Bye(Header),
    /// The client does not keep to the protocol, or is not welcome.
    Refused(Header, Status, String),
    /// The session that it asks for is not there (any more): what it is told.
    Gone(Header, Vec<u8>),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => End::Closed,
            _ => End::Broken,
        }
    }
}

impl Conn {
    /// Serves the client until one of both has enough.
    pub(crate) fn run(mut self) {
        let (session, end) = match greet(&mut self) {
            Ok(session) => {
                self.inbox.deadline = None;
                let end = self.serve(&session);
                (Some(session), end)
            }
            Err(end) => (None, Err(end)),
        };
        let left = match &end {
            Err(End::Bye(_)) => CloseReason::Bye,
            // What another thread cuts looks as if the client had closed it.
            Err(End::Closed | End::Refused(..)) if self.link.is_cut() => CloseReason::Broken,
            Err(End::Closed) if self.leaving.load(Ordering::Relaxed) => CloseReason::Left,
            Err(End::Closed | End::Refused(..)) => CloseReason::Closed,
            _ => CloseReason::Broken,
        };
        if let Some(session) = session {
            let id = session.id;
            if self.domain.is_some() {
                // Before another connection may take this one's place.
                session.end_keys_of(self.key);
            }
            // So that the memory is gone when the session is.
            drop(session);
            let now = Instant::now();
            self.shared.sessions.leave(id, self.key, left, now);
        }
        match end {
            Err(End::Bye(header)) => self.last(&header, Status::Ok, &[]),
            Err(End::Refused(header, status, text)) => {
                self.last(&header, status, text.as_bytes());
            }
            Err(End::Gone(header, told)) => self.last(&header, Status::NoSession, &told),
            _ if self.link.is_ending() => {
                let bye = Header::request(Op::Bye, BYE_ID);
                let status = Status::ShuttingDown;
                self.last(&bye, status, status.to_string().as_bytes());
            }
            _ => {}
        }
    }

    /// Says a last thing.
    fn last(&mut self, header: &Header, status: Status, payload: &[u8]) {
        self.out.reply(header, status, payload);
        if self.out.flush(&self.link).is_ok() {
            self.link.linger(Instant::now() + LINGER);
        }
    }

    /// The next request; a malformed one ends the connection.
    pub(crate) fn request(&mut self) -> Result<Header, End> {
        let Some(head) = self.inbox.header(&self.link, &mut self.out)? else {
            return Err(End::Closed);
        };
        match Header::decode(&head) {
            Ok(header) if !header.reply => {
                // Through a pump there is no use in being awake here only.
                self.inbox.prompt = header.prompt && !self.link.is_pumped();
                Ok(header)
            }
            Ok(header) => Err(refused(header, "a reply where a request was expected")),
            Err(error) => {
                // The request cannot be named by what was not understood.
                let mut id = [0; 8];
                id.copy_from_slice(&head[8..16]);
                let header = Header::request(known_op(&head), u64::from_le_bytes(id));
                Err(refused(header, &error.to_string()))
            }
        }
    }

    /// Receives the next bytes of a payload into memory.
    ///
    /// # Safety
    /// `len` bytes from `to` must be memory that may be written.
    pub(crate) unsafe fn payload(&mut self, to: *mut u8, len: usize) -> Result<(), End> {
        // SAFETY: by the caller.
        unsafe { self.inbox.payload(&self.link, &mut self.out, to, len)? };
        Ok(())
    }

    /// Throws the next bytes of a payload away.
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), End> {
        self.inbox.skip(&self.link, len)?;
        Ok(())
    }

    /// Receives a payload, whose length the decoder has bounded.
    pub(crate) fn body(&mut self, header: &Header) -> Result<Vec<u8>, End> {
        let mut body = vec![0; header.len as usize];
        // SAFETY: the memory is `body`.
        unsafe { self.payload(body.as_mut_ptr(), body.len())? };
        Ok(body)
    }

    fn serve(&mut self, session: &Arc<Session>) -> Result<(), End> {
        loop {
            if self.out.is_full() {
                self.out.flush(&self.link)?;
            }
            let header = self.request()?;
            if self.link.is_cut() || self.link.is_ending() {
                return Err(End::Broken);
            }
            if header.op != Op::Read && self.out.has_pages() {
                // They are sent as they were when they were asked for.
                self.out.flush(&self.link)?;
            }
            let leaves = header.op == Op::Leave;
            if self.leaving.load(Ordering::Relaxed) != leaves {
                self.leaving.store(leaves, Ordering::Relaxed);
            }
            match header.op {
                Op::Read => self.read(&header, session)?,
                Op::Write => self.write(&header, session)?,
                _ => self.other(&header, session)?,
            }
        }
    }

    fn read(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        self.skip(header.len as usize)?;
        let slab = match header.len {
            0 => self.slab(header, session),
            _ => Err(Status::BadRequest),
        };
        match slab {
            Ok(slab) => {
                let read = &self.shared.pages_read;
                read.fetch_add(u64::from(header.count), Ordering::Relaxed);
                let rations = &self.shared.rations;
                if !header.packed || !self.out.packed(header, &slab, rations) {
                    self.out.pages(header, slab);
                }
            }
            Err(status) => self.out.refusal(header, status),
        }
        Ok(())
    }

    fn write(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        let writing = session.writing.read();
        let _writing = writing.unwrap_or_else(PoisonError::into_inner);
        let slab = self.slab(header, session).and_then(|slab| {
            if slab.is_shared() {
                return Err(Status::Shared);
            }
            Ok(slab)
        });
        match slab {
            Ok(slab) => {
                let to = slab.page(header.page);
                let len = bytes(header.count);
                if header.packed {
                    // SAFETY: the run lies within the slab, which is held.
                    if !unsafe { packed::receive(self, header, to)? } {
                        self.out.refusal(header, Status::BadRequest);
                        return Ok(());
                    }
                } else {
                    // SAFETY: the run lies within the slab, which is held.
                    unsafe { self.payload(to, len)? };
                }
                slab.written(header.page, header.page + header.count);
                let written = &self.shared.pages_written;
                written.fetch_add(u64::from(header.count), Ordering::Relaxed);
                self.out.reply(header, Status::Ok, &[]);
            }
            Err(status) => {
                self.skip(header.len as usize)?;
                self.out.refusal(header, status);
            }
        }
        Ok(())
    }

    fn other(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        let body = self.body(header)?;
        let answer = match header.op {
            Op::Ping => Ok(Vec::new()),
            Op::Release => decode_slab_list(&body)
                .map_err(|_| Status::BadRequest)
                .and_then(|list| session.release(&list))
                .map(|()| Vec::new()),
            _ if !body.is_empty() => Err(Status::BadRequest),
            Op::Grant => self
                .grant(header, session)
                .map(|list| tmem_wire::encode_slab_list(&list)),
            Op::Discard => self.slab(header, session).map(|slab| {
                slab.discard(header.page, header.page + header.count);
                Vec::new()
            }),
            Op::Share => self.share(session),
            Op::Keys => one_sided::key(self, header, session),
            Op::Stats => Ok(self.shared.stats().encode().to_vec()),
            Op::Leave => Ok(Vec::new()),
            Op::Bye => return Err(End::Bye(*header)),
            _ => Err(Status::BadRequest),
        };
        match answer {
            Ok(payload) => self.out.reply(header, Status::Ok, &payload),
            Err(status) => self.out.refusal(header, status),
        }
        Ok(())
    }

    /// Slabs, also of clients that are gone, where there are no others.
    fn grant(&self, header: &Header, session: &Session) -> Result<Vec<u32>, Status> {
        let patience = Instant::now() + ROOM;
        loop {
            let granted = session.grant(header.count);
            let again = matches!(granted, Err(Status::Full)) && Instant::now() < patience;
            if !again || !self.shared.sessions.make_room() {
                return granted;
            }
        }
    }

    fn share(&self, session: &Session) -> Result<Vec<u8>, Status> {
        let id = SessionId(random().map_err(|_| Status::Internal)?);
        let is_gone = || self.link.is_ending() || self.link.is_dead();
        let shared = self.shared.sessions.share(session, id, is_gone);
        if shared == Err(Status::Limit) {
            self.turned_away("a child: there are too many sessions that wait".to_owned());
        }
        shared.map(|()| id.0.to_vec())
    }

    /// Notes that a limit was met.
    pub(crate) fn turned_away(&self, text: String) -> String {
        let client = self.link.client();
        self.shared
            .complain(&format!("a client at {client} is refused: {text}"));
        text
    }

    /// The slab that a request addresses, if the whole run lies in it.
    fn slab(&self, header: &Header, session: &Session) -> Result<Arc<crate::memory::Slab>, Status> {
        let slab = session.slab(header.slab).ok_or(Status::NoSuchSlab)?;
        match header.count {
            0 => return Err(Status::BadRequest),
            1..=MAX_RUN => {}
            _ => return Err(Status::TooLarge),
        }
        let end = u64::from(header.page) + u64::from(header.count);
        if end > u64::from(self.shared.sessions.pool().slab_pages()) {
            return Err(Status::OutOfRange);
        }
        Ok(slab)
    }
}

/// Ends a connection that does not keep to the protocol.
pub(crate) fn refused(header: Header, text: &str) -> End {
    End::Refused(header, Status::BadRequest, text.to_owned())
}

fn known_op(head: &[u8; HEADER_LEN]) -> Op {
    let known = Op::ALL.into_iter().find(|op| *op as u8 == head[0]);
    // A READ or WRITE would promise pages.
    known.unwrap_or(Op::Ping)
}
