//! The greeting: version, secret, session.

use crate::serve::attempts::Verdict;
use crate::serve::connection::{Conn, End, refused};
use crate::serve::connection_limits::Use;
use crate::store::name::SessionName;
use crate::store::session::Session;
use crate::store::sessions::{CloseReason, Member};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_wire::greeting::{self, Challenge, First, Host, Refused};
use tmem_wire::{Features, Header, HelloReply, Op, SessionId, Status, VERSION};

/// How long a join waits for the connection that it replaces.
const JOIN: Duration = Duration::from_secs(5);

/// How long a join waits for a place among the connections: the client gives up an attempt
/// after 3 seconds.
const PLACE: Duration = Duration::from_secs(2);

/// A request to open or join a session, once it is known that its client may.
struct Asked {
    /// Of the request whose reply ends the greeting.
    header: Header,
    by: greeting::Asked,
}

/// Greets a client; the session that its connection belongs to from now on, and what the client
/// supports.
pub(crate) fn greet(conn: &mut Conn) -> Result<(Arc<Session>, Features), End> {
    let header = conn.request()?;
    // What is no HELLO has a payload that is not read.
    let body = match header.op {
        Op::Hello => conn.body(&header)?,
        _ => Vec::new(),
    };
    let challenge = random()
        .map_err(|_| End::Refused(header, Status::Internal, "no random bytes".to_owned()))?;
    let secret = conn.shared.config.secret.clone();
    let first = Host::new(secret.as_deref())
        .hello(&header, &body, challenge)
        .map_err(|Refused(status, text)| End::Refused(header, status, text))?;
    let asked = match first {
        First::Asked(by) => Asked { header, by },
        First::Challenge(challenge, payload) => {
            conn.out.reply(&header, Status::Auth, &payload);
            prove(conn, challenge)?
        }
    };
    let (id, session) = if asked.by.session == SessionId::NEW {
        open(conn, asked.by.lane, &asked)?
    } else {
        (asked.by.session, join(conn, asked.by.lane, &asked)?)
    };
    let reply = HelloReply {
        session: id,
        free_pages: match conn.shared.is_draining() {
            true => 0,
            false => conn.shared.sessions.free_pages(),
        },
        ..bare(conn)
    };
    conn.out
        .reply(&asked.header, Status::Ok, &asked.by.reply(&reply));
    Ok((session, asked.by.features))
}

fn open(conn: &Conn, lane: u32, asked: &Asked) -> Result<(SessionId, Arc<Session>), End> {
    let shared = &conn.shared;
    shared
        .connections
        .take(conn.key, Use::Open, Instant::now())
        .map_err(|text| limited(conn, asked, text))?;
    let id = random().map(SessionId).map_err(|_| Status::Internal);
    id.and_then(|id| {
        let (client, name) = (conn.socket.client(), SessionName::of(id));
        let session = shared.sessions.open(name, client, member(conn, lane))?;
        Ok((id, session))
    })
    .map_err(|status| match status {
        Status::Limit => {
            let text = "there are too many sessions (--client-sessions)".to_owned();
            limited(conn, asked, text)
        }
        status => End::Refused(asked.header, status, status.to_string()),
    })
}

fn join(conn: &Conn, lane: u32, asked: &Asked) -> Result<Arc<Session>, End> {
    let shared = &conn.shared;
    let (member, name) = (member(conn, lane), SessionName::of(asked.by.session));
    let coming = shared.sessions.announce(name, &member);
    let place = || match coming.is_further {
        // The client has to be served somehow, and comes again when it is not.
        false => (shared.connections).take(conn.key, Use::First, Instant::now() + PLACE),
        true => shared
            .connections
            .take(conn.key, Use::Further, Instant::now()),
    };
    if !coming.replaces {
        place().map_err(|text| match coming.is_further {
            // The client does with the one that it has.
            true => End::Refused(asked.header, Status::Limit, text),
            false => limited(conn, asked, text),
        })?;
    }
    let joined = shared.sessions.join(name, &member, Instant::now() + JOIN);
    let session = joined.map_err(|status| match status {
        // The client is told whether this is the server that it was.
        Status::NoSession => End::Gone(asked.header, asked.by.reply(&bare(conn))),
        Status::Limit => {
            let text = "its session has too many connections";
            limited(conn, asked, text.to_owned())
        }
        status => End::Refused(asked.header, status, status.to_string()),
    })?;
    if !coming.replaces {
        return Ok(session);
    }
    // Only now: the connection that it replaces may have had the last place.
    place().map_err(|text| {
        let now = Instant::now();
        shared
            .sessions
            .leave(name, conn.key, CloseReason::Broken, now);
        limited(conn, asked, text)
    })?;
    Ok(session)
}

fn member(conn: &Conn, lane: u32) -> Member {
    Member {
        key: conn.key,
        lane,
        socket: conn.socket.clone(),
        leaving: conn.leaving.clone(),
    }
}

fn limited(conn: &Conn, asked: &Asked, text: String) -> End {
    End::Refused(asked.header, Status::Limit, conn.turned_away(text))
}

/// Has the client prove that it knows the secret; what it asks for.
fn prove(conn: &mut Conn, challenge: Challenge) -> Result<Asked, End> {
    let header = conn.request()?;
    let auth = match header.op {
        Op::Auth => conn.body(&header)?,
        _ => Vec::new(),
    };
    let asked = challenge
        .answered(&header, auth)
        .map_err(|Refused(status, text)| End::Refused(header, status, text))?;
    let (client, shared) = (conn.socket.client(), &conn.shared);
    // Whoever names a session that there is knows more than could be guessed.
    let known = asked
        .as_ref()
        .is_some_and(|asked| shared.sessions.has(SessionName::of(asked.session)));
    let now = Instant::now();
    match (
        shared.attempts.judge(client, asked.is_some(), known, now),
        asked,
    ) {
        (Verdict::Right, Some(by)) => Ok(Asked { header, by }),
        (Verdict::Later(wrong), _) => {
            shared.warn_of_secrets(client, wrong);
            let text = "too many wrong secrets came from this client; try again in a while";
            Err(End::Refused(header, Status::Limit, text.to_owned()))
        }
        (Verdict::Wrong(wrong), _) => {
            shared.warn_of_secrets(client, wrong);
            let text = "the secret is not this server's".to_owned();
            Err(End::Refused(header, Status::Auth, text))
        }
        (Verdict::Right, None) => Err(refused(header, "no proof")),
    }
}

/// A reply without a session.
fn bare(conn: &Conn) -> HelloReply {
    let pool = conn.shared.sessions.pool();
    HelloReply {
        version: VERSION,
        features: conn.shared.features,
        slab_pages: pool.slab_pages(),
        session: SessionId::NEW,
        instance: conn.shared.instance,
        challenge: [0; 16],
        capacity_pages: pool.capacity_pages(),
        free_pages: 0,
    }
}
