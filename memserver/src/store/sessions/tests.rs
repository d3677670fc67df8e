//! Who gets memory and places, and when sessions end.

use super::*;
use crate::store::session::Session;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tmem_wire::Status;

struct Nobody;

impl Disconnect for Nobody {
    fn cut(&self) {}
    fn is_dead(&self) -> bool {
        true
    }
}

fn member(key: u64) -> Member {
    Member {
        key,
        lane: 0,
        socket: Arc::new(Nobody),
        leaving: Arc::default(),
    }
}

fn client(n: u8) -> Client {
    Client::at(Some(([10, 0, 0, n], 1).into()))
}

/// Four slabs, and so many sessions.
fn sessions(sessions: usize, per_client: usize) -> Sessions {
    let limits = Limits {
        sessions,
        per_client,
        tables: 1 << 20,
        tables_per_client: 1 << 20,
        grace: Duration::from_secs(3600),
    };
    Sessions::new(Pool::new(4, 64, None).unwrap(), limits)
}

fn open(all: &Sessions, n: u8, of: u8) -> Result<Arc<Session>, Status> {
    all.open(SessionName([n; 16]), client(of), member(n.into()))
}

fn leave(all: &Sessions, n: u8, how: CloseReason) {
    all.leave(SessionName([n; 16]), n.into(), how, Instant::now());
}

#[test]
fn memory_is_taken_from_closed_sessions_only() {
    let all = sessions(8, 8);
    for (n, how) in [(1, CloseReason::Broken), (2, CloseReason::Closed)] {
        open(&all, n, 1).unwrap().grant(1, u64::MAX).unwrap();
        leave(&all, n, how);
    }
    let mut there = open(&all, 3, 2).unwrap();
    there.grant(2, u64::MAX).unwrap();
    assert_eq!(there.grant(1, u64::MAX), Err(Status::Full));
    assert_eq!(all.free_pages(), 64);
    assert!(all.make_room());
    there.grant(1, u64::MAX).unwrap();
    // A client whose connection broke is waited for, and one that is there lives.
    assert!(!all.make_room());
    assert!(all.has(SessionName([1; 16])) && !all.has(SessionName([2; 16])));
    // One that is back is not closed any more.
    leave(&all, 3, CloseReason::Closed);
    there = all.join(there.name, &member(4), Instant::now()).unwrap();
    assert!(!all.make_room());
    assert_eq!((there.len(), all.free_pages()), (3, 0));
}

/// Joins the session `n` by a second connection.
fn join_again(all: &Sessions, n: u8, key: u64) -> Member {
    let member = Member {
        lane: 2,
        ..member(key)
    };
    all.join(SessionName([n; 16]), &member, Instant::now())
        .unwrap();
    member
}

#[test]
fn a_session_whose_client_said_that_it_leaves_ends_with_its_last_connection() {
    let all = sessions(8, 8);
    let (id, now) = (SessionName([1; 16]), Instant::now());
    open(&all, 1, 1).unwrap().grant(4, u64::MAX).unwrap();
    join_again(&all, 1, 2)
        .leaving
        .store(true, Ordering::Relaxed);
    all.leave(id, 1, CloseReason::Left, now);
    assert!(all.has(id));
    all.leave(id, 2, CloseReason::Left, now);
    assert!(!all.has(id));
    assert_eq!((all.free_pages(), all.pool().granted_pages()), (256, 0));
}

#[test]
fn a_client_that_closes_a_connection_without_leaving_lives() {
    let all = sessions(8, 8);
    let (id, now) = (SessionName([1; 16]), Instant::now());
    open(&all, 1, 1).unwrap();
    join_again(&all, 1, 2)
        .leaving
        .store(true, Ordering::Relaxed);
    all.leave(id, 1, CloseReason::Closed, now);
    all.leave(id, 2, CloseReason::Left, now);
    assert!(all.has(id));
    // Once it is back, what it says counts again.
    join_again(&all, 1, 3);
    all.leave(id, 3, CloseReason::Left, now);
    assert!(!all.has(id));
}

#[test]
fn memory_that_is_being_freed_counts_as_free_and_is_waited_for() {
    let all = sessions(8, 8);
    let session = open(&all, 1, 1).unwrap();
    session.grant(4, u64::MAX).unwrap();
    // Another thread is at it.
    let mut inner = all.lock();
    inner.end(session.name, Instant::now());
    (inner.freeing, inner.freeing_slabs) = (1, 4);
    drop(inner);
    assert_eq!(all.free_pages(), 256);
    assert!(all.make_room());
}

#[test]
fn one_client_does_not_get_all_sessions_and_children_have_some_left() {
    let all = sessions(16, 8);
    let ids = 1..=8;
    for n in ids.clone() {
        open(&all, n, 1).unwrap();
    }
    assert_eq!(open(&all, 9, 1).unwrap_err(), Status::Limit);
    for n in 11..=14 {
        open(&all, n, 2).unwrap();
    }
    assert_eq!(open(&all, 15, 3).unwrap_err(), Status::Limit);
    let parent = all.lock().slots[&SessionName([1; 16])].session.clone();
    for n in 21..=24 {
        all.share(&parent, SessionName([n; 16]), || true).unwrap();
    }
    let refused = all.share(&parent, SessionName([25; 16]), || true);
    assert_eq!(refused, Err(Status::Limit));
    // Those that were closed and have nothing make room at once.
    leave(&all, 2, CloseReason::Closed);
    leave(&all, 3, CloseReason::Closed);
    leave(&all, 4, CloseReason::Closed);
    leave(&all, 5, CloseReason::Closed);
    leave(&all, 6, CloseReason::Closed);
    open(&all, 9, 1).unwrap();
    assert!(!all.has(SessionName([2; 16])));
}
