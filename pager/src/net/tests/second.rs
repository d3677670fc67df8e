//! The second connection: when there is one, and that nothing depends on it.

use super::*;
use tmem_wire::Op;

#[test]
fn a_second_connection_is_opened_for_pages_in_bulk_only() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let slab = c.grant(1)[0];
    let mut f = Frames::new(2);
    for _ in 0..20 {
        c.read(Lane::Demand, 1, at(slab, 0), &mut f, &[0]);
        c.servers.discard(at(slab, 9), 1);
        c.finish();
    }
    c.skip(60_000);
    assert_eq!(fake.orders().connections, 1);
    c.write(2, at(slab, 0), &mut f, &[0]);
    c.until_second();
    assert_eq!(fake.orders().connections, 2);
}

#[test]
fn a_second_connection_that_has_nothing_to_do_is_given_up_and_opened_again() {
    let fake = Fake::new();
    let mut c = Client::with_second(&fake);
    let mut f = Frames::new(2);
    f.set(0, 7);
    let open = |c: &Client| {
        let mut fds = Vec::new();
        c.servers.interests(&mut fds);
        fds.len()
    };
    for _ in 0..5 {
        c.skip(8_000);
        c.write(1, at(0, 3), &mut f, &[0]);
        c.finish();
        assert_eq!(open(&c), 2);
    }
    c.seen.clear();
    c.skip(9_000);
    assert_eq!(open(&c), 2);
    c.skip(3_000);
    assert_eq!(open(&c), 1);
    assert_eq!((c.servers.next_timer(), c.seen.len()), (None, 0));
    c.read(Lane::Demand, 2, at(0, 3), &mut f, &[1]);
    c.finish();
    assert_eq!((f.page(1), fake.orders().connections), (&*page(7), 2));
    c.write(3, at(0, 3), &mut f, &[0]);
    c.until_second();
    assert_eq!(fake.orders().connections, 3);
    assert_eq!(c.servers.reconnects(), 0);
}

#[test]
fn what_was_asked_over_the_first_connection_is_done_before_the_second_begins() {
    let fake = Fake::with(|o| o.silent = true);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(2);
    f.set(0, 1);
    f.set(1, 2);
    c.write(1, at(0, 0), &mut f, &[0]);
    while fake.orders().connections < 2 {
        c.wait();
        c.drive();
    }
    c.write(2, at(0, 0), &mut f, &[1]);
    for _ in 0..20 {
        c.wait();
        c.drive();
    }
    let writes = |fake: &Fake| {
        let orders = fake.orders();
        orders.log.iter().filter(|h| h.op == Op::Write).count()
    };
    // The second may go over the first connection, before the other was there.
    let first = writes(&fake);
    c.write(3, at(0, 0), &mut f, &[1]);
    for _ in 0..20 {
        c.wait();
        c.drive();
    }
    assert_eq!(writes(&fake), first);
    fake.orders().silent = false;
    fake.cut();
    c.finish();
    assert_eq!(c.seen.len(), 3, "{:?}", c.seen);
    assert_eq!(fake.orders().pages[&(0, 0)], page(2));
}

#[test]
fn a_second_connection_that_is_refused_is_not_tried_again_at_once() {
    let fake = Fake::with(|o| o.join = Status::Limit);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1);
    let write = |c: &mut Client, f: &mut Frames| {
        c.write(1, at(0, 0), f, &[0]);
        for _ in 0..5 {
            c.wait();
            c.drive();
        }
        c.finish();
    };
    while fake.orders().connections < 2 {
        write(&mut c, &mut f);
    }
    (0..20).for_each(|_| write(&mut c, &mut f));
    assert_eq!(fake.orders().connections, 2);
    fake.orders().join = Status::Ok;
    c.skip(10_000);
    c.write(1, at(0, 0), &mut f, &[0]);
    c.until_second();
    assert_eq!(fake.orders().connections, 3);
    assert!(c.servers.is_up(ServerId::new(0)));
}

#[test]
fn a_second_connection_that_the_server_takes_away_leaves_the_first_to_carry_both_lanes() {
    let fake = Fake::new();
    let mut c = Client::with_second(&fake);
    fake.orders().join = Status::Limit;
    fake.cut_last();
    let mut f = Frames::new(2);
    f.set(0, 9);
    c.seen.clear();
    c.write(1, at(0, 0), &mut f, &[0]);
    c.until(|x| *x == written(1));
    c.read(Lane::Demand, 2, at(0, 0), &mut f, &[1]);
    c.finish();
    assert_eq!(f.page(1), page(9));
    assert_eq!(fake.orders().connections, 3);
}

#[test]
fn no_second_connection_is_opened_where_that_is_not_allowed() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    c.servers.allow_second(false);
    let mut f = Frames::new(1);
    for i in 0..10 {
        c.write(i, at(0, 0), &mut f, &[0]);
        c.finish();
        c.wait();
        c.drive();
    }
    assert_eq!(fake.orders().connections, 1);
}

#[test]
fn a_process_that_waits_for_a_place_says_so_once_with_the_limit() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    fake.orders().join = Status::Limit;
    fake.cut();
    for _ in 0..40 {
        c.skip(100);
        c.wait();
        c.drive();
    }
    let seen = core::mem::take(&mut c.seen);
    let [
        Completion::NoPlace {
            reason, until_ms, ..
        },
    ] = seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(until_ms, 60_000);
    assert_eq!(
        std::format!("{reason}"),
        "it has no more connections to give: --max-connections"
    );
}
