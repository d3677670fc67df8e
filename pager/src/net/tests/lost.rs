//! Servers that are lost: those that do not come back, or are others when they do.

use super::*;
use std::string::ToString;
use tmem_wire::HEADER_LEN;

#[test]
fn a_server_restarted_under_another_identity_is_lost() {
    let fake = Fake::with(|o| o.silent = true);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(3);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    c.read(Lane::Bulk, 2, at(0, 0), &mut f, &[1]);
    c.write(3, at(0, 0), &mut f, &[2]);
    c.servers.discard(at(0, 9), 1);
    c.drive();
    fake.orders().instance = [8; 16];
    fake.cut();
    assert_eq!(lost(&mut c), Reason::Restarted);
    let error = RequestError::Lost;
    assert_eq!(
        c.seen,
        [
            Completion::Read {
                token: 1,
                result: Err(error)
            },
            Completion::Read {
                token: 2,
                result: Err(error)
            },
            Completion::WriteFailed {
                token: 3,
                server: ServerId::new(0),
                error
            },
        ]
    );
    assert_eq!(c.servers.outstanding(Lane::Bulk), 0);
    // It can be had again, with nothing in it.
    c.servers.connect(0);
    assert!(matches!(
        c.until(|x| matches!(x, Completion::Up { .. })),
        Completion::Up { .. }
    ));
}

#[test]
fn a_session_that_ended_meanwhile_is_lost_and_told_from_a_server_started_anew() {
    for secret in [None, Some(b"a secret of tests".to_vec())] {
        for (instance, reason) in [([7; 16], Reason::SessionGone), ([8; 16], Reason::Restarted)] {
            let fake = Fake::with(|o| o.secret.clone_from(&secret));
            let options = Options {
                secret: secret.clone(),
                ..Options::default()
            };
            let mut c = Client::new(&[&fake], options);
            c.until(|x| matches!(x, Completion::Up { .. }));
            (fake.orders().session, fake.orders().instance) = ([1; 16], instance);
            fake.cut();
            assert_eq!(lost(&mut c), reason);
        }
    }
}

#[test]
fn a_server_that_stays_away_is_lost_when_the_time_is_over() {
    let mut fake = Fake::new();
    let mut c = Client::up(&fake);
    fake.stop();
    let mut f = Frames::new(1);
    for _ in 0..5 {
        c.wait();
        c.drive();
    }
    assert!(c.servers.is_up(ServerId::new(0)), "{:?}", c.seen);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    c.skip(5_001);
    assert_eq!(lost(&mut c).to_string(), "connection refused");
    assert_eq!(
        c.seen,
        [Completion::Read {
            token: 1,
            result: Err(RequestError::Lost)
        }]
    );
}

#[test]
fn a_server_that_breaks_each_connection_before_it_answers_is_lost() {
    let greeting = HEADER_LEN + tmem_wire::HelloReply::LEN;
    let fake = Fake::with(|o| o.cut_out = [greeting + 16; 100].into());
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    let failed = Completion::Read {
        token: 1,
        result: Err(RequestError::Lost),
    };
    let begin = Instant::now();
    while !c.seen.contains(&failed) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", c.seen);
        // Pauses pass sooner.
        c.skip(10);
        c.wait();
        c.drive();
    }
    assert_eq!(lost(&mut c), Reason::Closed);
    // Not at the first, nor for ever.
    assert!((10..50).contains(&fake.orders().connections));
}

#[test]
fn a_server_that_breaks_each_connection_at_one_request_is_lost_whatever_else_it_answers() {
    let fake = Fake::with(|o| o.breaks_at = Some(Op::Write));
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    f.set(0, 3);
    c.write(1, at(0, 0), &mut f, &[0]);
    let is_lost = |c: &Completion| matches!(c, Completion::Lost { .. });
    let mut connections = 0;
    while !c.seen.iter().any(is_lost) {
        let now = fake.orders().connections;
        assert!(now < 100, "{:?}", c.seen);
        if core::mem::replace(&mut connections, now) != now {
            c.servers.discard(at(0, 9), 1);
        }
        // Pauses pass sooner.
        c.skip(10);
        c.wait();
        c.drive();
    }
    let discards = fake
        .orders()
        .log
        .iter()
        .filter(|h| h.op == Op::Discard)
        .count();
    assert!(discards > 5, "{discards}");
}

#[test]
fn one_lane_that_cannot_be_had_again_leaves_the_other_to_carry_both() {
    let greeting = HEADER_LEN + tmem_wire::HelloReply::LEN;
    // The second connection, the bulk lane, is cut at its first answer.
    let fake = Fake::with(|o| o.cut_out = [usize::MAX, greeting + 16].into());
    let mut c = Client::with_second(&fake);
    fake.orders().join = Status::Limit;
    let mut f = Frames::new(2);
    f.set(0, 3);
    c.write(1, at(0, 0), &mut f, &[0]);
    for _ in 0..5 {
        c.wait();
        c.drive();
    }
    while fake.orders().connections < 3 {
        c.wait();
        c.drive();
    }
    c.skip(5_001);
    c.until(|x| *x == written(1));
    c.read(Lane::Demand, 2, at(0, 0), &mut f, &[1]);
    c.until(|x| {
        *x == Completion::Read {
            token: 2,
            result: Ok(()),
        }
    });
    assert_eq!(f.page(1), page(3));
}

/// A program that is stopped for a minute, or gets no processor for so long.
#[test]
fn time_in_which_the_client_does_not_run_is_not_the_servers_silence() {
    let fake = Fake::with(|o| o.silent = true);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    c.drive();
    for _ in 0..5 {
        assert!(c.servers.next_timer().is_some_and(|at| at > c.now_ns));
        c.is_absent(60_000);
        c.drive();
        assert_eq!(c.seen, []);
    }
    c.skip(15_000);
    assert_eq!(c.seen, []);
    c.skip(6_000);
    assert_eq!(lost(&mut c), Reason::Stalled(30_000));
}

/// A client that joins the session of another, as that of a forked child does.
fn joins(fake: &Fake, parent: &Client) -> Client {
    let mut c = Client::new(&[fake], Options::default());
    let session = parent.servers.session(ServerId::new(0)).cloned().unwrap();
    c.servers = Servers::new(
        vec![c.servers.servers[0].endpoint.clone()],
        Options::default(),
    );
    c.servers.resume(ServerId::new(0), session, 0);
    c
}

#[test]
fn a_child_waits_for_a_place_longer_than_for_a_server_that_is_away() {
    let fake = Fake::new();
    let parent = Client::up(&fake);
    fake.orders().join = Status::Limit;
    let mut child = joins(&fake, &parent);
    for _ in 0..20 {
        child.skip(1000);
        child.until_answered();
    }
    assert!(child.servers.is_resuming(), "{:?}", child.seen);
    fake.orders().join = Status::Ok;
    while child.servers.is_resuming() {
        child.skip(500);
        child.until_answered();
    }
    assert!(child.servers.is_up(ServerId::new(0)), "{:?}", child.seen);
}

#[test]
fn a_child_that_gets_no_place_is_told_why() {
    let fake = Fake::new();
    let parent = Client::up(&fake);
    fake.orders().join = Status::Limit;
    let mut child = joins(&fake, &parent);
    while child.servers.is_resuming() {
        child.skip(1000);
        child.until_answered();
    }
    let reason = lost(&mut child);
    assert!(matches!(reason, Reason::NoPlace(_)), "{reason}");
    assert!(reason.to_string().contains("--max-connections"));
}

#[test]
fn a_child_that_waits_for_a_place_is_not_lost_by_one_attempt_that_fails_otherwise() {
    let fake = Fake::new();
    let parent = Client::up(&fake);
    fake.orders().join = Status::Limit;
    let mut child = joins(&fake, &parent);
    let until = |child: &mut Client, wanted: &dyn Fn(&Fake) -> bool| {
        while !wanted(&fake) {
            assert!(child.servers.is_up(ServerId::new(0)), "{:?}", child.seen);
            child.skip(100);
            child.until_answered();
        }
    };
    until(&mut child, &|_| fake.orders().connections > 40);
    let before = child.now_ns;
    assert!(before > Options::default().reconnect_ms * 1_000_000);
    fake.orders().cut_in = vec![10; 2].into();
    until(&mut child, &|_| fake.orders().cut_in.is_empty());
    fake.orders().join = Status::Ok;
    while child.servers.is_resuming() {
        child.skip(100);
        child.until_answered();
    }
    assert!(child.servers.is_up(ServerId::new(0)), "{:?}", child.seen);
}

#[test]
fn a_child_that_gets_one_connection_makes_do_with_it() {
    let fake = Fake::new();
    let parent = Client::up(&fake);
    let mut child = joins(&fake, &parent);
    // The first joins, the second has no place.
    fake.orders().join_once = true;
    while !child.servers.is_settled() {
        child.wait();
        child.drive();
    }
    let mut f = Frames::new(2);
    f.set(0, 5);
    child.write(1, at(0, 0), &mut f, &[0]);
    child.until(|x| *x == written(1));
    child.read(Lane::Demand, 2, at(0, 0), &mut f, &[1]);
    child.until(|x| matches!(x, Completion::Read { token: 2, .. }));
    assert_eq!(f.page(1), page(5));
    assert!(child.seen.is_empty(), "{:?}", child.seen);
}

#[test]
fn a_server_that_answers_nothing_is_lost_by_the_clock() {
    let fake = Fake::with(|o| o.silent = true);
    let mut c = Client::up(&fake);
    // Without anything asked of it, silence is all right.
    c.skip(100_000);
    c.drive();
    assert_eq!(c.seen, []);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(0, 0), &mut f, &[0]);
    c.drive();
    assert!(c.servers.next_timer().is_some());
    c.skip(29_000);
    c.drive();
    assert_eq!(c.seen, []);
    c.skip(1_001);
    assert_eq!(lost(&mut c), Reason::Stalled(30_000));
    assert_eq!(
        c.seen,
        [Completion::Read {
            token: 1,
            result: Err(RequestError::Lost)
        }]
    );
}
