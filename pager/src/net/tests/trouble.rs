//! Bad days: servers that are not there, not ours, or do not stay.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::format;
use std::string::ToString;
use tmem_wire::{BYE_ID, DecodeError, HEADER_LEN, Header};

fn refused(fake: &Fake, options: Options) -> Reason {
    let mut c = Client::new(&[fake], options);
    match c.until(|_| true) {
        Completion::Refused { server, reason } => {
            assert_eq!(server, ServerId::new(0));
            assert!(!c.servers.is_up(ServerId::new(0)));
            assert_eq!(c.servers.next_timer(), None);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_listening_is_refused_and_can_be_tried_again() {
    let mut gone = Fake::new();
    gone.stop();
    let mut c = Client::new(&[&gone], Options::default());
    for _ in 0..2 {
        let got = c.until(|_| true);
        let Completion::Refused { reason, .. } = got else {
            panic!("{got:?}")
        };
        assert_eq!(reason.to_string(), "connection refused");
        c.servers.connect(0);
    }
    let none = Endpoint {
        name: "none".into(),
        addrs: vec![],
        agent: None,
    };
    let got = Client::of(vec![none], Options::default()).until(|_| true);
    assert_eq!(
        got,
        Completion::Refused {
            server: ServerId::new(0),
            reason: Reason::NoAddress
        }
    );
}

#[test]
fn something_else_that_listens_there_is_named_as_such() {
    let http = b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n".to_vec();
    let fake = Fake::with(|o| o.greeting = Some(http));
    let reason = refused(&fake, Options::default());
    assert_eq!(reason, Reason::Protocol(DecodeError::UnknownOp(b'H')));
    assert!(
        reason
            .to_string()
            .starts_with("it does not speak tmem's protocol"),
        "{reason}"
    );
    let fake = Fake::with(|o| o.greeting = Some(b"short".to_vec()));
    assert_eq!(refused(&fake, Options::default()), Reason::Closed);
}

#[test]
fn another_version_is_refused_by_either_side() {
    let hello = Header::request(Op::Hello, 0);
    let bytes = hello.reply(Status::BadVersion, 0).encode().to_vec();
    let fake = Fake::with(|o| o.greeting = Some(bytes));
    assert_eq!(
        refused(&fake, Options::default()),
        Reason::Status(Status::BadVersion)
    );
    let reply = tmem_wire::HelloReply {
        version: 9,
        features: 0,
        slab_pages: 1,
        session: tmem_wire::SessionId([1; 16]),
        instance: [0; 16],
        challenge: [0; 16],
        capacity_pages: 0,
        free_pages: 0,
    };
    let mut bytes = hello
        .reply(Status::Ok, tmem_wire::HelloReply::LEN as u32)
        .encode()
        .to_vec();
    bytes.extend(reply.encode());
    let fake = Fake::with(|o| o.greeting = Some(bytes));
    assert_eq!(refused(&fake, Options::default()), Reason::Version(9));
}

#[test]
fn a_missing_and_a_wrong_secret_are_told_apart() {
    let fake = Fake::with(|o| o.secret = Some(b"right".to_vec()));
    assert_eq!(refused(&fake, Options::default()), Reason::SecretWanted);
    assert_eq!(refused(&fake, knowing(b"wrong")), Reason::SecretWrong);
}

fn knowing(secret: &[u8]) -> Options {
    Options {
        secret: Some(secret.to_vec()),
        ..Options::default()
    }
}

/// The reply to a HELLO or AUTH of a server that is not the one with the secret.
fn stranger(op: Op, status: Status, more: &[u8]) -> Vec<u8> {
    let told = tmem_wire::HelloReply {
        version: tmem_wire::VERSION,
        features: 0,
        slab_pages: 64,
        session: tmem_wire::SessionId([1; 16]),
        instance: [2; 16],
        challenge: [0; 16],
        capacity_pages: 64,
        free_pages: 64,
    };
    let body = [&told.encode()[..], more].concat();
    let header = Header::request(op, 0).reply(status, body.len() as u32);
    [&header.encode()[..], &body].concat()
}

#[test]
fn a_server_that_does_not_know_the_secret_is_refused() {
    // One that wants no secret.
    let fake = Fake::new();
    assert_eq!(refused(&fake, knowing(b"right")), Reason::NoProof);
    assert!(fake.orders().log.is_empty());
    // One that takes any proof for right, or says that the session is gone, and proves nothing.
    for status in [Status::Ok, Status::NoSession] {
        for end in [&[][..], &[0; 32]] {
            let answers = [
                stranger(Op::Hello, Status::Auth, &[]),
                stranger(Op::Auth, status, end),
            ];
            let fake = Fake::with(|o| o.greeting = Some(answers.concat()));
            assert_eq!(refused(&fake, knowing(b"right")), Reason::NoProof);
        }
    }
    let gone = stranger(Op::Hello, Status::NoSession, &[]);
    let fake = Fake::with(|o| o.greeting = Some(gone));
    assert_eq!(refused(&fake, knowing(b"right")), Reason::NoProof);
}

#[test]
fn a_greeting_that_is_not_answered_ends_by_the_clock() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Endpoint {
        name: "s".into(),
        addrs: vec![listener.local_addr().unwrap()],
        agent: None,
    };
    let mut c = Client::of(vec![silent], Options::default());
    for _ in 0..5 {
        c.wait();
        c.drive();
    }
    assert_eq!(c.seen, []);
    // It has taken the connection, so it may be busy: that is said once.
    c.skip(3_001);
    let silent = Completion::Silent {
        server: ServerId::new(0),
        ms: 3_000,
        until_ms: 30_000,
    };
    assert_eq!(c.until(|_| true), silent);
    assert!(c.servers.next_timer().is_some_and(|at| at > c.now_ns));
    c.skip(26_000);
    c.drive();
    assert_eq!(c.seen, []);
    c.skip(1_001);
    let reason = Reason::NoAnswer(30_000);
    assert_eq!(
        c.until(|_| true),
        Completion::Refused {
            server: ServerId::new(0),
            reason
        }
    );
}

/// A server that answers a greeting late, as a busy one does.
#[test]
fn a_late_answer_to_a_greeting_is_as_good_as_another() {
    let fake = Fake::new();
    let late = |c: &mut Client| {
        let orders = fake.orders();
        // As long as the orders are held nothing is answered.
        for _ in 0..5 {
            c.wait();
            c.drive();
        }
        c.skip(20_000);
        c.drive();
        assert!(c.servers.next_timer().is_none_or(|at| at > c.now_ns));
        drop(orders);
    };
    let mut c = Client::new(&[&fake], Options::default());
    late(&mut c);
    let silent = |c: &Completion| matches!(c, Completion::Silent { .. });
    assert!(silent(&c.seen.remove(0)));
    c.until(|c| matches!(c, Completion::Up { .. }));
    // The same where the connection has to be made again, and pages are at stake; it is
    // not said again.
    let mut f = Frames::new(1);
    c.write(1, at(0, 0), &mut f, &[0]);
    c.finish();
    c.seen.clear();
    fake.cut();
    late(&mut c);
    c.read(Lane::Demand, 2, at(0, 0), &mut f, &[0]);
    c.finish();
    let result = Ok(());
    assert_eq!(c.seen, [Completion::Read { token: 2, result }]);
}

#[test]
fn requests_to_a_server_that_is_not_up_fail_at_once() {
    let mut gone = Fake::new();
    gone.stop();
    let mut c = Client::new(&[&gone], Options::default());
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 4, at(0, 0), &mut f, &[0]);
    c.write(
        5,
        At {
            server: ServerId::new(77),
            slab: 0,
            page: 0,
        },
        &mut f,
        &[0],
    );
    c.servers.grant(ServerId::new(0), 1);
    assert_eq!(c.servers.next_timer(), Some(0));
    c.drive();
    let error = RequestError::Lost;
    assert_eq!(
        c.seen[..3],
        [
            Completion::Read {
                token: 4,
                result: Err(error)
            },
            Completion::WriteFailed {
                token: 5,
                server: ServerId::new(77),
                error
            },
            Completion::GrantRefused {
                server: ServerId::new(0),
                error
            },
        ]
    );
}

#[test]
fn errors_of_single_requests_leave_the_server_up() {
    let fake = Fake::with(|o| o.page_status = Status::Shared);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(2);
    c.write(1, at(0, 0), &mut f, &[0]);
    c.read(Lane::Demand, 2, at(0, 0), &mut f, &[1]);
    c.finish();
    let error = RequestError::Status(Status::Shared);
    assert!(c.seen.contains(&Completion::WriteFailed {
        token: 1,
        server: ServerId::new(0),
        error
    }));
    assert!(c.seen.contains(&Completion::Read {
        token: 2,
        result: Err(error)
    }));
    assert!(c.servers.is_up(ServerId::new(0)));
}

#[test]
fn too_long_and_empty_runs_are_refused_without_asking() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let mut f = Frames::new(513);
    c.read(
        Lane::Bulk,
        1,
        at(0, 0),
        &mut f,
        &(0..513).collect::<Vec<_>>(),
    );
    c.write(2, at(0, 0), &mut f, &[]);
    c.drive();
    assert_eq!(c.seen.len(), 2);
    assert!(fake.orders().log.is_empty());
}

#[test]
fn a_cut_within_a_payload_is_hidden_wherever_it_is() {
    let greeting = HEADER_LEN + tmem_wire::HelloReply::LEN;
    for cut in [
        1,
        31,
        32,
        33,
        4000,
        32 + 4096,
        32 + 4096 + 5,
        32 + 2 * 4096 - 1,
    ] {
        let fake = Fake::with(|o| o.cut_out = [greeting + cut].into());
        (0..8).for_each(|i| drop(fake.orders().pages.insert((0, i), page(i.into()))));
        let mut c = Client::up(&fake);
        let mut f = Frames::new(8);
        for i in 0..4 {
            c.read(
                Lane::Demand,
                i,
                at(0, i as u32 * 2),
                &mut f,
                &[i as usize * 2, i as usize * 2 + 1],
            );
        }
        c.finish();
        assert_eq!(c.seen.len(), 4, "cut at {cut}");
        (0..8).for_each(|i| assert_eq!(f.page(i), page(i as u64), "cut at {cut}"));
        assert_eq!(fake.orders().connections, 2);
    }
}

/// Answers that are none to the first READ, and what is wrong with them.
fn spoilt() -> [(Vec<u8>, &'static str); 3] {
    let read = Header {
        count: 1,
        ..Header::request(Op::Read, 1)
    };
    let unasked = Header { id: 99, ..read }.reply(Status::Full, 0);
    let oversized = Header { count: 2, ..read }.reply(Status::Ok, 2 * PAGE_SIZE as u32);
    [
        (vec![0xff; 64], "unknown operation 255"),
        (unasked.encode().to_vec(), "answer to no request"),
        (oversized.encode().to_vec(), "another number of pages"),
    ]
}

#[test]
fn an_answer_that_is_spoilt_on_its_way_costs_a_connection_and_no_page() {
    for (forged, words) in spoilt() {
        let fake = Fake::with(|o| o.forged = Some(forged));
        fake.orders().pages.insert((0, 3), page(5));
        let mut c = Client::up(&fake);
        let mut f = Frames::new(1);
        c.read(Lane::Demand, 1, at(0, 3), &mut f, &[0]);
        c.finish();
        let token = 1;
        let result = Ok(());
        assert_eq!(c.seen, [Completion::Read { token, result }], "{words}");
        assert_eq!(f.page(0), page(5), "{words}");
        assert_eq!(c.servers.reconnects(), 1, "{words}");
    }
}

#[test]
fn a_server_that_breaks_the_protocol_for_good_is_lost_with_what_was_wrong() {
    let (forged, words) = &spoilt()[0];
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    let is_lost = |c: &Completion| matches!(c, Completion::Lost { .. });
    while !c.seen.iter().any(is_lost) {
        fake.orders().forged = Some(forged.clone());
        assert!(fake.orders().connections < 100, "{:?}", c.seen);
        // Pauses pass sooner.
        c.skip(10);
        c.wait();
        c.drive();
    }
    let reason = lost(&mut c).to_string();
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn a_server_that_ends_the_session_is_lost_at_once() {
    let read = Header {
        count: 1,
        ..Header::request(Op::Read, 1)
    };
    // Unasked, and for no request.
    let bye = Header::request(Op::Bye, BYE_ID);
    for (request, status, words) in [
        (read, Status::NoSession, "ended the session"),
        (read, Status::ShuttingDown, "shutting down"),
        (bye, Status::ShuttingDown, "shutting down"),
    ] {
        let forged = request.reply(status, 0);
        let fake = Fake::with(|o| o.forged = Some(forged.encode().to_vec()));
        let mut c = Client::up(&fake);
        let mut f = Frames::new(1);
        c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
        let reason = lost(&mut c).to_string();
        assert!(reason.contains(words), "{reason}");
        assert_eq!(
            c.seen,
            [Completion::Read {
                token: 1,
                result: Err(RequestError::Lost)
            }]
        );
    }
}

#[test]
fn a_session_is_joined_again_when_the_server_has_failed_to_let_it_in() {
    let fake = Fake::with(|o| o.join = Status::Internal);
    let mut c = Client::up(&fake);
    fake.cut();
    let before = fake.orders().connections;
    while fake.orders().connections < before + 3 {
        c.skip(10);
        c.wait();
        c.drive();
    }
    fake.orders().join = Status::Ok;
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    c.finish();
    let token = 1;
    let result = Ok(());
    assert_eq!(c.seen, [Completion::Read { token, result }]);
}

#[test]
fn a_connection_made_anew_is_asked_again_what_was_not_answered() {
    let fake = Fake::with(|o| o.silent = true);
    fake.orders().pages.insert((0, 3), page(5));
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 3), &mut f, &[0]);
    while fake.orders().log.is_empty() {
        c.wait();
        c.drive();
    }
    fake.orders().silent = false;
    c.servers.renew(ServerId::new(0), Lane::Demand, c.now_ns);
    // Once is enough.
    c.servers.renew(ServerId::new(0), Lane::Demand, c.now_ns);
    c.finish();
    let token = 1;
    let result = Ok(());
    assert_eq!(c.seen, [Completion::Read { token, result }]);
    assert_eq!((f.page(0), c.servers.reconnects()), (&*page(5), 1));
}

#[test]
fn more_slabs_than_asked_for_are_not_believed() {
    let mut forged = Header {
        count: 1,
        ..Header::request(Op::Grant, 1)
    }
    .reply(Status::Ok, 8);
    for len in [8, 7] {
        forged.len = len;
        let mut bytes = forged.encode().to_vec();
        bytes.extend(vec![1; len as usize]);
        let fake = Fake::with(|o| o.forged = Some(bytes));
        let mut c = Client::up(&fake);
        c.servers.grant(ServerId::new(0), 1);
        c.until(|x| matches!(x, Completion::GrantRefused { .. }));
        assert_eq!(c.grant(1), [101]);
        assert_eq!(c.servers.reconnects(), 1);
    }
}

#[test]
fn a_share_without_a_session_in_its_answer_is_refused_and_answered_next_time() {
    let forged = Header::request(Op::Share, 1).reply(Status::Ok, 3);
    let bytes = [&forged.encode()[..], &[1, 2, 3]].concat();
    let fake = Fake::with(|o| o.forged = Some(bytes));
    let mut c = Client::up(&fake);
    c.servers.share(ServerId::new(0));
    let got = c.until(|x| matches!(x, Completion::Shared { .. }));
    let error = RequestError::Status(Status::Internal);
    let (server, result) = (ServerId::new(0), Err(error));
    assert_eq!(got, Completion::Shared { server, result });
    c.finish();
    assert!(c.servers.is_up(ServerId::new(0)));
}

#[test]
fn every_reason_reads_as_a_sentence_part() {
    for errno in [111, 104, 32, 110, 113, 101, 13, 24, 5] {
        let text = format!("{}", Code(rustix::io::Errno::from_raw_os_error(errno)));
        assert!(!text.is_empty() && !text.ends_with('.'));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Connections that are cut again and again, wherever, in either
    /// direction, with answers out of order: what the server holds in the end
    /// is what the requests in their order say.
    #[test]
    fn what_is_held_in_the_end_is_right_whatever_is_cut(
        steps in prop::collection::vec((0..3u8, 0..6u32, 1..4u32, any::<u64>()), 1..60),
        cut_in in prop::collection::vec(prop_oneof![100..20_000usize, Just(usize::MAX)], 0..6),
        cut_out in prop::collection::vec(prop_oneof![148..400usize, Just(usize::MAX)], 0..6),
        reverse: bool,
    ) {
        let fake = Fake::with(|o| {
            // The first two have to get as far as greeting.
            o.cut_in.extend([usize::MAX].into_iter().chain(cut_in));
            o.cut_out.extend([usize::MAX].into_iter().chain(cut_out));
            o.reverse = reverse;
        });
        let mut c = Client::up(&fake);
        let mut f = Frames::new(steps.len() * 4);
        let mut model: HashMap<(u32, u32), Vec<u8>> = HashMap::new();
        let mut tokens = Vec::new();
        for (i, (kind, first, n, seed)) in steps.into_iter().enumerate() {
            let run = first..first + n;
            if kind == 0 {
                c.servers.discard(at(0, first), n);
                run.for_each(|p| drop(model.remove(&(0, p))));
            } else {
                let frames: Vec<usize> = (0..n as usize).map(|k| i * 4 + k).collect();
                for (p, k) in run.zip(&frames) {
                    f.set(*k, seed.wrapping_add(p.into()));
                    model.insert((0, p), page(seed.wrapping_add(p.into())));
                }
                c.write(i as u64, at(0, first), &mut f, &frames);
                tokens.push(i as u64);
            }
            if kind == 2 {
                c.drive();
            }
        }
        c.finish();
        prop_assert!(c.servers.is_up(ServerId::new(0)), "{:?}", c.seen);
        let mut written: Vec<u64> = c.seen.iter().map(|x| match x {
            Completion::Written { token, .. } => *token,
            other => panic!("{other:?}"),
        }).collect();
        written.sort_unstable();
        prop_assert_eq!(written, tokens);
        prop_assert_eq!(&fake.orders().pages, &model);
    }
}
