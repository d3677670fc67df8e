//! Both sides of the greeting against each other, and against bytes of anybody.

use proptest::prelude::*;
use tmem_wire::auth::Keys;
use tmem_wire::greeting::{Asked, Client, First, GreetingError, Host, Refused};
use tmem_wire::{
    BYE_ID, HEADER_LEN, Header, Hello, HelloReply, MAGIC, Op, SessionId, Status, VERSION,
};

const OLD: SessionId = SessionId([7; 16]);

/// What a server tells once a session is there.
fn told(session: SessionId) -> HelloReply {
    HelloReply {
        version: VERSION,
        features: 3,
        slab_pages: 64,
        session,
        instance: [1; 16],
        challenge: [0; 16],
        capacity_pages: 640,
        free_pages: 64,
    }
}

fn message(header: &Header, body: &[u8]) -> Vec<u8> {
    let header = Header {
        len: body.len() as u32,
        ..*header
    };
    [&header.encode()[..], body].concat()
}

fn reply(op: Op, status: Status, body: &[u8]) -> Vec<u8> {
    message(&Header::request(op, 0).reply(status, 0), body)
}

/// All that the client has to send, taken in pieces of `piece` bytes.
fn sent(client: &mut Client, piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !client.unsent().is_empty() {
        let count = client.unsent().len().min(piece);
        bytes.extend_from_slice(&client.unsent()[..count]);
        client.sent(count);
    }
    bytes
}

/// Gives the client bytes, in pieces of `piece`, until it has enough; what is left over.
fn give<'a>(
    client: &mut Client,
    mut bytes: &'a [u8],
    piece: usize,
    secret: Option<&[u8]>,
) -> (Result<Option<HelloReply>, GreetingError>, &'a [u8]) {
    while !bytes.is_empty() && client.unsent().is_empty() {
        let room = client.room();
        assert!(!room.is_empty(), "a client that waits has room");
        let count = room.len().min(bytes.len()).min(piece);
        room[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        match client.received(count, secret) {
            Ok(None) => {}
            done => return (done, bytes),
        }
    }
    (Ok(None), bytes)
}

fn split(bytes: &[u8]) -> (Header, Vec<u8>) {
    let (head, body) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .expect("a whole header");
    let header = Header::decode(head).expect("a header of this protocol");
    assert_eq!(header.len as usize, body.len());
    (header, body.to_vec())
}

/// A client's greeting with a server: what the client has in the end, and the session that
/// the server was asked for, if it came to that.
fn greeted(
    known: Option<HelloReply>,
    clients: Option<&[u8]>,
    servers: Option<&[u8]>,
    piece: usize,
    answer: impl Fn(&Asked) -> (Status, HelloReply),
) -> (Result<HelloReply, GreetingError>, Option<SessionId>) {
    let mut client = Client::new(known, 2, 1, clients, [5; 16], Vec::new());
    let host = Host::new(servers);
    let (header, body) = split(&sent(&mut client, piece));
    let (op, asked) = match host.hello(&header, &body, [6; 16]).expect("a good HELLO") {
        First::Asked(asked) => (Op::Hello, Some(asked)),
        First::Challenge(challenge, payload) => {
            let bytes = reply(Op::Hello, Status::Auth, &payload);
            match give(&mut client, &bytes, piece, clients).0 {
                Ok(None) => {}
                done => return (done.map(Option::unwrap), None),
            }
            let (header, body) = split(&sent(&mut client, piece));
            (
                Op::Auth,
                challenge.answered(&header, body).expect("an AUTH"),
            )
        }
    };
    let bytes = match &asked {
        Some(asked) => {
            let (status, told) = answer(asked);
            reply(op, status, &asked.reply(&told))
        }
        None => reply(op, Status::Auth, b"wrong"),
    };
    let with_more = [&bytes[..], b"what follows"].concat();
    let (done, rest) = give(&mut client, &with_more, piece, clients);
    // A greeting takes no byte of what follows it.
    assert_eq!(rest, b"what follows");
    (
        done.map(Option::unwrap),
        asked.as_ref().map(|asked| asked.session),
    )
}

fn secret() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 1..40))
}

proptest! {
    /// Whatever both sides know and however bytes are cut: there is a session where both know
    /// the same secret or neither has one, and it is the one that was asked for.
    #[test]
    fn there_is_a_session_exactly_where_the_secrets_agree(
        clients in secret(),
        servers in secret(),
        is_same: bool,
        joins: bool,
        piece in 1usize..200,
    ) {
        let servers = if is_same { clients.clone() } else { servers };
        let known = joins.then(|| told(OLD));
        let wanted = if joins { OLD } else { SessionId::NEW };
        let given = if joins { OLD } else { SessionId([9; 16]) };
        let answer = |_: &Asked| (Status::Ok, told(given));
        let (done, asked) = greeted(known, clients.as_deref(), servers.as_deref(), piece, answer);
        match (&clients, &servers) {
            (a, b) if a == b => {
                prop_assert_eq!(done, Ok(told(given)));
                prop_assert_eq!(asked, Some(wanted));
            }
            (None, Some(_)) => prop_assert_eq!(done, Err(GreetingError::SecretWanted)),
            (Some(_), None) => {
                prop_assert_eq!(done, Err(GreetingError::NoProof));
                // A server that proves nothing is not told of a session.
                prop_assert_eq!(asked, Some(SessionId::NEW));
            }
            _ => {
                prop_assert_eq!(done, Err(GreetingError::SecretWrong));
                prop_assert_eq!(asked, None);
            }
        }
    }

    /// A client takes any bytes, and has no session from a server that does not know the
    /// secret.
    #[test]
    fn bytes_of_anybody_give_no_session(
        op in 0u8..16,
        status in 0u16..14,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
        piece in 1usize..100,
    ) {
        let mut client = Client::new(None, 2, 1, Some(b"secret"), [5; 16], Vec::new());
        sent(&mut client, 4096);
        let mut bytes = reply(Op::Hello, Status::Ok, &body);
        bytes[0] = op;
        bytes[2..4].copy_from_slice(&status.to_le_bytes());
        bytes.extend(tail);
        for _ in 0..3 {
            match give(&mut client, &bytes, piece, Some(b"secret")).0 {
                Ok(None) => drop(sent(&mut client, 4096)),
                Ok(Some(reply)) => prop_assert!(false, "{reply:?}"),
                Err(_) => break,
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut client = Client::new(None, 2, 1, None, [5; 16], Vec::new());
        sent(&mut client, 4096);
        let _ = give(&mut client, &bytes, 7, None);
    }

    /// A server takes any first requests.
    #[test]
    fn a_server_takes_or_refuses_any_body(
        is_hello: bool,
        has_magic: bool,
        body in proptest::collection::vec(any::<u8>(), 0..80),
        auth in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let op = if is_hello { Op::Hello } else { Op::Read };
        let body = if has_magic { [&MAGIC[..], &body].concat() } else { body };
        let judged = Host::new(Some(b"secret")).hello(&Header::request(op, 0), &body, [6; 16]);
        match judged {
            Ok(First::Challenge(challenge, _)) => {
                let answered = challenge.answered(&Header::request(Op::Auth, 0), auth);
                prop_assert!(answered.unwrap().is_none());
            }
            Ok(First::Asked(_)) => prop_assert!(false, "let in without a proof"),
            Err(Refused(status, text)) => {
                prop_assert!(matches!(status, Status::BadRequest | Status::BadVersion));
                prop_assert!(!text.is_empty());
            }
        }
    }
}

#[test]
fn another_version_is_refused_by_either_side() {
    let mut hello = Hello {
        min_version: VERSION + 1,
        max_version: VERSION + 5,
        features: 0,
        session: SessionId::NEW,
        nonce: [0; 16],
    };
    let header = Header::request(Op::Hello, 0);
    let judged = |hello: &Hello| Host::new(None).hello(&header, &hello.encode(), [0; 16]);
    assert!(matches!(
        judged(&hello),
        Err(Refused(Status::BadVersion, text)) if text.contains("version")
    ));
    hello.min_version = VERSION;
    assert!(matches!(judged(&hello), Ok(First::Asked(_))));
    // A later HELLO may be longer, and is refused for its version and not for that.
    hello.min_version = VERSION + 1;
    let longer = [&hello.encode()[..], b"more"].concat();
    let judged = Host::new(None).hello(&header, &longer, [0; 16]);
    assert!(matches!(judged, Err(Refused(Status::BadVersion, _))));

    let other = HelloReply {
        version: VERSION + 1,
        ..told(OLD)
    };
    let (done, _) = greeted(None, None, None, 99, |_| (Status::Ok, other.clone()));
    assert_eq!(done, Err(GreetingError::Version(VERSION + 1)));
}

#[test]
fn a_session_that_is_gone_is_told_from_a_server_that_was_restarted() {
    for secret in [None, Some(&b"secret"[..])] {
        let gone = |instance| HelloReply {
            instance,
            ..told(SessionId::NEW)
        };
        for (instance, error) in [
            ([1; 16], GreetingError::SessionGone),
            ([2; 16], GreetingError::Restarted),
        ] {
            let answer = |_: &Asked| (Status::NoSession, gone(instance));
            let (done, _) = greeted(Some(told(OLD)), secret, secret, 99, answer);
            assert_eq!(done, Err(error));
        }
    }
}

#[test]
fn a_proof_is_good_for_its_own_connection_only() {
    let hello = Header {
        slab: 2,
        ..Header::request(Op::Hello, 0)
    };
    let client = |nonce| {
        let mut client = Client::new(None, 2, 1, Some(b"secret"), nonce, Vec::new());
        let (_, body) = split(&sent(&mut client, 4096));
        (client, body)
    };
    let host = Host::new(Some(b"secret"));
    let challenged = |body: &[u8], random| match host.hello(&hello, body, random).unwrap() {
        First::Challenge(challenge, payload) => (challenge, payload),
        First::Asked(_) => panic!("no challenge"),
    };
    let (mut first, body) = client([5; 16]);
    let (challenge, payload) = challenged(&body, [6; 16]);
    let bytes = reply(Op::Hello, Status::Auth, &payload);
    assert!(give(&mut first, &bytes, 99, Some(b"secret")).0.is_ok());
    let (auth, proof) = split(&sent(&mut first, 4096));
    // Another connection has another challenge or another nonce.
    for (nonce, random) in [([5; 16], [8; 16]), ([4; 16], [6; 16])] {
        let (_, body) = client(nonce);
        let (other, _) = challenged(&body, random);
        assert!(other.answered(&auth, proof.clone()).unwrap().is_none());
    }
    assert!(challenge.answered(&auth, proof).unwrap().is_some());
}

#[test]
fn refusals_bring_the_servers_words_where_they_are_fit_to_be_printed() {
    for (op, id, body, words) in [
        (Op::Hello, 0, &b"too many"[..], Some("too many")),
        (Op::Bye, BYE_ID, b"soon", Some("soon")),
        (Op::Hello, 0, b"", None),
        (Op::Hello, 0, b"\x1b[31mred", None),
        (Op::Hello, 0, &[0xff], None),
        (Op::Hello, 0, &[b'a'; 201], None),
    ] {
        let mut client = Client::new(None, 2, 1, None, [5; 16], Vec::new());
        sent(&mut client, 4096);
        let bytes = message(&Header::request(op, id).reply(Status::Limit, 0), body);
        let error = GreetingError::Refused(Status::Limit, words.map(str::to_owned));
        assert_eq!(give(&mut client, &bytes, 99, None).0, Err(error));
    }
}

#[test]
fn what_is_no_answer_is_refused_whoever_sends_it() {
    let body = told(OLD).encode();
    for (bytes, error) in [
        (reply(Op::Ping, Status::Ok, &[]), "no answer"),
        (message(&Header::request(Op::Hello, 0), &body), "no answer"),
        (
            message(&Header::request(Op::Hello, 3).reply(Status::Ok, 0), &body),
            "no answer",
        ),
        (
            reply(Op::Hello, Status::Ok, &told(SessionId::NEW).encode()),
            "a session without a name",
        ),
        (vec![b'x'; HEADER_LEN], "does not speak tmem's protocol"),
        (
            reply(Op::Hello, Status::Ok, b"short"),
            "does not speak tmem's protocol",
        ),
    ] {
        let mut client = Client::new(None, 2, 1, None, [5; 16], Vec::new());
        sent(&mut client, 4096);
        let said = give(&mut client, &bytes, 99, None).0.unwrap_err();
        assert!(said.to_string().contains(error), "{said}");
    }
    // A reply to READ may be that long, one to HELLO not.
    let long = Header {
        len: 512 * 4096,
        count: 512,
        ..Header::request(Op::Read, 0).reply(Status::Ok, 0)
    };
    let mut client = Client::new(None, 2, 1, None, [5; 16], Vec::new());
    sent(&mut client, 4096);
    let error = give(&mut client, &long.encode(), 99, None).0.unwrap_err();
    assert_eq!(error, GreetingError::Unexpected("a greeting too long"));
}

/// What is done with a client after an error does no harm.
#[test]
fn a_greeting_that_has_failed_takes_no_more() {
    let mut client = Client::new(None, 2, 1, None, [5; 16], Vec::new());
    sent(&mut client, 4096);
    let bytes = reply(Op::Hello, Status::Full, b"full");
    assert!(give(&mut client, &bytes, 99, None).0.is_err());
    assert!(client.room().is_empty());
    assert!(client.received(5, None).is_err());
}

/// The session's name is not said before the server has proved itself, and is masked then.
#[test]
fn a_session_is_not_named_to_strangers() {
    let mut client = Client::new(
        Some(told(OLD)),
        2,
        1,
        Some(b"secret"),
        [5; 16],
        b"pre".to_vec(),
    );
    let first = sent(&mut client, 4096);
    assert!(first.starts_with(b"pre"));
    let challenge = told(SessionId::NEW).encode();
    let bytes = reply(Op::Hello, Status::Auth, &challenge);
    assert!(give(&mut client, &bytes, 99, Some(b"secret")).0.is_ok());
    let second = sent(&mut client, 4096);
    for said in [&first, &second] {
        assert!(!said.windows(16).any(|bytes| bytes == OLD.0), "{said:?}");
    }
    let (_, hello) = split(&first[3..]);
    let keys = Keys::new(b"secret", 2, &hello, &challenge);
    assert_eq!(keys.session(&split(&second).1), Some(OLD));
}
