//! One connection: how its messages come and go.

use crate::serve::inbox::Inbox;
use crate::serve::outbox::Outbox;
use crate::serve::shared::Shared;
use crate::serve::socket::Socket;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tmem_verbs::Domain;
use tmem_wire::{FEATURE_NOTICE, Features, HEADER_LEN, Header, NOTICE_DRAIN, Op, Status};

/// How long a connection that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// A connection.
pub(crate) struct Conn {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: u64,
    pub(crate) socket: Arc<Socket>,
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
    /// Ends the greeting: from here on the client may be told what it has not asked for.
    pub(crate) fn greeted(&mut self, features: Features) -> Result<(), End> {
        if features & FEATURE_NOTICE == 0 {
            return Ok(());
        }
        // It waits for the answer to its greeting before anything else.
        self.out.flush(&self.socket)?;
        self.socket.hears_notices();
        if self.shared.is_draining() {
            self.socket.notify(NOTICE_DRAIN);
        }
        Ok(())
    }

    /// Says a last thing.
    pub(crate) fn last(&mut self, header: &Header, status: Status, payload: &[u8]) {
        self.out.reply(header, status, payload);
        if self.out.flush(&self.socket).is_ok() {
            self.socket.linger(Instant::now() + LINGER);
        }
    }

    /// The next request; a malformed one ends the connection.
    pub(crate) fn request(&mut self) -> Result<Header, End> {
        let Some(head) = self.inbox.header(&self.socket, &mut self.out)? else {
            return Err(End::Closed);
        };
        match Header::decode(&head) {
            Ok(header) if !header.reply => {
                // Through a relay there is no use in being awake here only.
                self.inbox.prompt = header.prompt && !self.socket.is_relayed();
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
        unsafe { self.inbox.payload(&self.socket, &mut self.out, to, len)? };
        Ok(())
    }

    /// Throws the next bytes of a payload away.
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), End> {
        self.inbox.skip(&self.socket, len)?;
        Ok(())
    }

    /// Receives a payload, whose length the decoder has bounded.
    pub(crate) fn body(&mut self, header: &Header) -> Result<Vec<u8>, End> {
        let mut body = vec![0; header.len as usize];
        // SAFETY: the memory is `body`.
        unsafe { self.payload(body.as_mut_ptr(), body.len())? };
        Ok(body)
    }

    /// Notes that a limit was met.
    pub(crate) fn turned_away(&self, text: String) -> String {
        let client = self.socket.client();
        self.shared
            .warn(&format!("a client at {client} is refused: {text}"));
        text
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
