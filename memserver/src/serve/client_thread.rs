//! The life of one connection, from its greeting to its last word.

use crate::serve::connection::{Conn, End};
use crate::serve::greeting::greet;
use crate::serve::inbox::Inbox;
use crate::serve::outbox::Outbox;
use crate::serve::shared::Shared;
use crate::serve::socket::Socket;
use crate::store::sessions::CloseReason;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use tmem_verbs::Domain;
use tmem_wire::{BYE_ID, Header, Op, Status};

/// How long a stranger may take to greet.
const GREETING: Duration = Duration::from_secs(10);

/// Stack of a connection's thread; its buffers are on the heap.
const STACK: usize = 256 * 1024;

/// Has a thread serve a connection, by `run`.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    socket: Socket,
    domain: Option<Arc<Domain>>,
    run: impl FnOnce(Conn) + Send + 'static,
) -> Result<(), String> {
    let key = shared.taken.fetch_add(1, Ordering::Relaxed) + 1;
    let socket = Arc::new(socket);
    shared.connections.add(key, socket.clone())?;
    let conn = Conn {
        shared: shared.clone(),
        key,
        socket,
        inbox: Inbox::new(Instant::now() + GREETING),
        out: Outbox::default(),
        leaving: Arc::default(),
        domain,
    };
    let guard = Leaving(shared.clone(), key);
    thread::Builder::new()
        .name(format!("client {key}"))
        .stack_size(STACK)
        .spawn(move || {
            let _guard = guard;
            run(conn);
        })
        .map(drop)
        .map_err(|e| format!("cannot serve a connection: {e}"))
}

/// Takes a connection off the list when its thread ends, however it ends.
struct Leaving(Arc<Shared>, u64);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.connections.remove(self.1);
    }
}

/// Serves the client until one of both has enough.
pub(crate) fn run(mut conn: Conn) {
    let (session, end) = match greet(&mut conn) {
        Ok((session, features)) => {
            conn.inbox.deadline = None;
            let greeted = conn.greeted(features);
            let end = greeted.and_then(|()| conn.serve(&session));
            (Some(session), end)
        }
        Err(end) => (None, Err(end)),
    };
    let left = match &end {
        Err(End::Bye(_)) => CloseReason::Bye,
        // What another thread cuts looks as if the client had closed it.
        Err(End::Closed | End::Refused(..)) if conn.socket.is_cut() => CloseReason::Broken,
        Err(End::Closed) if conn.leaving.load(Ordering::Relaxed) => CloseReason::Left,
        Err(End::Closed | End::Refused(..)) => CloseReason::Closed,
        _ => CloseReason::Broken,
    };
    if let Some(session) = session {
        let id = session.name;
        if conn.domain.is_some() {
            // Before another connection may take this one's place.
            session.end_keys_of(conn.key);
        }
        // So that the memory is gone when the session is.
        drop(session);
        let now = Instant::now();
        conn.shared.sessions.leave(id, conn.key, left, now);
    }
    match end {
        Err(End::Bye(header)) => conn.last(&header, Status::Ok, &[]),
        Err(End::Refused(header, status, text)) => {
            conn.last(&header, status, text.as_bytes());
        }
        Err(End::Gone(header, told)) => conn.last(&header, Status::NoSession, &told),
        _ if conn.socket.is_ending() => {
            let bye = Header::request(Op::Bye, BYE_ID);
            let status = Status::ShuttingDown;
            conn.last(&bye, status, status.to_string().as_bytes());
        }
        _ => {}
    }
}
