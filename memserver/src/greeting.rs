//! The greeting: version, secret, session.

use crate::attempts::Verdict;
use crate::conn::{Conn, End, refused};
use crate::places::Use;
use crate::session::Session;
use crate::sessions::{Left, Member};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_wire::auth::Keys;
use tmem_wire::{Header, Hello, HelloReply, Op, SessionId, Status, VERSION};

/// How long a join waits for the connection that it replaces.
const JOIN: Duration = Duration::from_secs(5);

/// How long a join waits for a place among the connections: the client gives up an attempt
/// after 3 seconds.
const PLACE: Duration = Duration::from_secs(2);

/// A request to open or join a session, once it is known that its client may.
struct Asked {
    /// Of the request whose reply ends the greeting.
    header: Header,
    session: SessionId,
    /// What its reply is proved with: the keys, and the AUTH that it answers.
    proof: Option<(Keys, Vec<u8>)>,
}

impl Asked {
    /// The payload of a reply that tells something of this server.
    fn told(&self, reply: &HelloReply) -> Vec<u8> {
        match &self.proof {
            Some((keys, auth)) => keys.reply(auth, reply).to_vec(),
            None => reply.encode().to_vec(),
        }
    }
}

/// Greets a client; the session that its connection belongs to from now on.
pub(crate) fn greet(conn: &mut Conn) -> Result<Arc<Session>, End> {
    let header = conn.request()?;
    if header.op != Op::Hello {
        return Err(refused(header, "the first request must be a HELLO"));
    }
    let body = conn.body(&header)?;
    let malformed = |e: tmem_wire::DecodeError| refused(header, &e.to_string());
    if !Hello::versions(&body)
        .map_err(malformed)?
        .contains(&VERSION)
    {
        let text = format!("this server speaks version {VERSION} only");
        return Err(End::Refused(header, Status::BadVersion, text));
    }
    let hello = Hello::decode(&body).map_err(malformed)?;
    let asked = prove(conn, header, &hello)?;
    let session = if asked.session == SessionId::NEW {
        open(conn, header.slab, &asked)
    } else {
        join(conn, header.slab, &asked)
    }?;
    let reply = HelloReply {
        session: session.id,
        free_pages: conn.shared.sessions.free_pages(),
        ..bare(conn)
    };
    conn.out
        .reply(&asked.header, Status::Ok, &asked.told(&reply));
    Ok(session)
}

fn open(conn: &Conn, lane: u32, asked: &Asked) -> Result<Arc<Session>, End> {
    let shared = &conn.shared;
    shared
        .places
        .take(conn.key, Use::Open, Instant::now())
        .map_err(|text| limited(conn, asked, text))?;
    let id = random().map_err(|_| Status::Internal);
    id.and_then(|id| {
        let client = conn.link.client();
        shared
            .sessions
            .open(SessionId(id), client, member(conn, lane))
    })
    .map_err(|status| match status {
        Status::Limit => limited(conn, asked, "there are too many sessions".to_owned()),
        status => End::Refused(asked.header, status, status.to_string()),
    })
}

fn join(conn: &Conn, lane: u32, asked: &Asked) -> Result<Arc<Session>, End> {
    let shared = &conn.shared;
    let member = member(conn, lane);
    let coming = shared.sessions.announce(asked.session, &member);
    let place = || match coming.is_further {
        // The client has to be served somehow, and comes again when it is not.
        false => (shared.places).take(conn.key, Use::First, Instant::now() + PLACE),
        true => shared.places.take(conn.key, Use::Further, Instant::now()),
    };
    if !coming.replaces {
        place().map_err(|text| limited(conn, asked, text))?;
    }
    let joined = shared
        .sessions
        .join(asked.session, &member, Instant::now() + JOIN);
    let session = joined.map_err(|status| match status {
        // The client is told whether this is the server that it was.
        Status::NoSession => End::Gone(asked.header, asked.told(&bare(conn))),
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
            .leave(asked.session, conn.key, Left::Broken, now);
        limited(conn, asked, text)
    })?;
    Ok(session)
}

fn member(conn: &Conn, lane: u32) -> Member {
    Member {
        key: conn.key,
        lane,
        link: conn.link.clone(),
    }
}

fn limited(conn: &Conn, asked: &Asked, text: String) -> End {
    End::Refused(asked.header, Status::Limit, conn.turned_away(text))
}

/// Has the client prove that it knows the secret, where there is one; what it asks for.
fn prove(conn: &mut Conn, header: Header, hello: &Hello) -> Result<Asked, End> {
    let Some(secret) = conn.shared.config.secret.clone() else {
        return Ok(Asked {
            header,
            session: hello.session,
            proof: None,
        });
    };
    let challenge = random()
        .map_err(|_| End::Refused(header, Status::Internal, "no random bytes".to_owned()))?;
    let reply = HelloReply {
        version: VERSION,
        features: 0,
        slab_pages: 0,
        session: SessionId::NEW,
        instance: [0; 16],
        challenge,
        capacity_pages: 0,
        free_pages: 0,
    };
    let reply = reply.encode();
    conn.out.reply(&header, Status::Auth, &reply);
    let keys = Keys::new(&secret, header.slab, &hello.encode(), &reply);
    let header = conn.request()?;
    if header.op != Op::Auth {
        return Err(refused(header, "this server wants an AUTH now"));
    }
    let auth = conn.body(&header)?;
    let session = keys.session(&auth);
    let (client, shared) = (conn.link.client(), &conn.shared);
    // Whoever names a session that there is knows more than could be guessed.
    let known = session.is_some_and(|id| shared.sessions.has(id));
    let now = Instant::now();
    match (
        shared.attempts.judge(client, session.is_some(), known, now),
        session,
    ) {
        (Verdict::Right, Some(session)) => Ok(Asked {
            header,
            session,
            proof: Some((keys, auth)),
        }),
        (Verdict::Later(wrong), _) => {
            shared.complain_of_secrets(client, wrong);
            let text = "too many wrong secrets came from this client; try again in a while";
            Err(End::Refused(header, Status::Limit, text.to_owned()))
        }
        (Verdict::Wrong(wrong), _) => {
            shared.complain_of_secrets(client, wrong);
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
