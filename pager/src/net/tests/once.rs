//! One answer of a server that failed for a moment is not the last word.

use super::*;

/// A client of a server that fails once at `op`.
fn up(op: Op) -> (Fake, Client) {
    let fake = Fake::with(|o| o.fails = vec![op]);
    let client = Client::up(&fake);
    (fake, client)
}

#[test]
fn a_server_that_fails_to_open_a_session_is_asked_again() {
    let (fake, c) = up(Op::Hello);
    assert!(c.servers.is_up(ServerId::new(0)) && fake.orders().fails.is_empty());
}

#[test]
fn a_server_that_opens_no_session_is_given_up_in_time() {
    let fake = Fake::with(|o| o.fails = vec![Op::Hello; 1000]);
    let mut c = Client::new(&[&fake], Options::default());
    let reason = loop {
        c.skip(1000);
        c.wait();
        c.drive();
        if let Some(Completion::Refused { reason, .. }) = c.seen.pop() {
            break reason;
        }
    };
    assert_eq!(reason, Reason::Status(Status::Internal));
    assert!(c.now_ns < 20_000_000_000, "{}", c.now_ns);
}

#[test]
fn slabs_that_are_refused_once_are_granted_and_given_back() {
    let (fake, mut c) = up(Op::Grant);
    let slabs = c.grant(2);
    assert_eq!(slabs, [100, 101]);
    fake.orders().fails = vec![Op::Release];
    c.servers.release(ServerId::new(0), &slabs);
    while !fake.orders().slabs.is_empty() {
        c.skip(50);
        c.wait();
        c.drive();
    }
    assert!(c.seen.is_empty(), "{:?}", c.seen);
}

#[test]
fn a_child_is_made_though_the_server_failed_once() {
    let (_fake, mut c) = up(Op::Share);
    c.servers.share(ServerId::new(0));
    let shared = c.until(|x| matches!(x, Completion::Shared { .. }));
    let (server, result) = (ServerId::new(0), Ok(SessionId(fake::CHILD)));
    assert_eq!(shared, Completion::Shared { server, result });
}

#[test]
fn a_server_that_keeps_failing_is_not_asked_for_ever() {
    let fake = Fake::with(|o| o.fails = vec![Op::Share; 1000]);
    let mut c = Client::up(&fake);
    c.servers.share(ServerId::new(0));
    let result = loop {
        c.skip(100);
        c.wait();
        c.drive();
        if let Some(Completion::Shared { result, .. }) = c.seen.pop() {
            break result;
        }
    };
    assert_eq!(result, Err(RequestError::Status(Status::Internal)));
    assert!(c.servers.is_up(ServerId::new(0)));
}

#[test]
fn what_waits_for_another_attempt_ends_with_its_server() {
    let fake = Fake::with(|o| o.fails = vec![Op::Grant; 1000]);
    let mut c = Client::up(&fake);
    c.servers.grant(ServerId::new(0), 1);
    while c.servers.servers[0]
        .next_timer(&Options::default())
        .is_none()
        || fake.orders().log.len() < 2
    {
        c.wait();
        c.drive();
    }
    fake.orders().join = Status::NoSession;
    fake.cut();
    c.until(|x| {
        matches!(
            x,
            Completion::GrantRefused {
                error: RequestError::Lost,
                ..
            }
        )
    });
    c.until(|x| matches!(x, Completion::Lost { .. }));
}
