//! The greeting: version, secret, session.

use crate::conn::{Conn, End, refused};
use crate::sessions::{Member, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_wire::{Header, Hello, HelloReply, Op, SessionId, Status, VERSION, auth};

/// How long a join waits for the connection that it replaces.
const JOIN: Duration = Duration::from_secs(5);

/// Greets a client; the session that its connection belongs to from now on.
pub(crate) fn greet(conn: &mut Conn) -> Result<Arc<Session>, End> {
    let hello_header = conn.request()?;
    if hello_header.op != Op::Hello {
        return Err(refused(hello_header, "the first request must be a HELLO"));
    }
    let body = conn.body(&hello_header)?;
    let hello = Hello::decode(&body).map_err(|e| refused(hello_header, &e.to_string()))?;
    if hello.min_version > VERSION || hello.max_version < VERSION {
        let text = format!("this server speaks version {VERSION} only");
        return Err(End::Refused(hello_header, Status::BadVersion, text));
    }
    let header = prove(conn, hello_header, &hello)?;
    let member = Member {
        key: conn.key,
        lane: hello_header.slab,
        link: conn.link.clone(),
    };
    let sessions = &conn.shared.sessions;
    let session = if hello.session == SessionId::NEW {
        random()
            .map_err(|_| Status::Internal)
            .and_then(|id| sessions.open(SessionId(id), member))
    } else {
        sessions.join(hello.session, &member, Instant::now() + JOIN)
    };
    let session = session.map_err(|status| End::Refused(header, status, status.to_string()))?;
    let reply = HelloReply {
        session: session.id,
        free_pages: sessions.free_pages(),
        ..bare(conn)
    };
    conn.out.reply(&header, Status::Ok, &reply.encode());
    Ok(session)
}

/// Has the client prove that it knows the secret, where there is one; the
/// header of the request whose reply ends the greeting.
fn prove(conn: &mut Conn, header: Header, hello: &Hello) -> Result<Header, End> {
    let Some(secret) = conn.shared.config.secret.clone() else {
        return Ok(header);
    };
    let challenge = random()
        .map_err(|_| End::Refused(header, Status::Internal, "no random bytes".to_owned()))?;
    let reply = HelloReply {
        challenge,
        capacity_pages: 0,
        slab_pages: 0,
        instance: [0; 16],
        ..bare(conn)
    };
    conn.out.reply(&header, Status::Auth, &reply.encode());
    let header = conn.request()?;
    if header.op != Op::Auth {
        return Err(refused(header, "this server wants an AUTH now"));
    }
    let proof = conn.body(&header)?;
    if !auth::verify(&secret, &challenge, &hello.nonce, &proof) {
        let text = "the secret is not this server's".to_owned();
        return Err(End::Refused(header, Status::Auth, text));
    }
    Ok(header)
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
