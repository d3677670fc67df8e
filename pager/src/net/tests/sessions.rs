//! Good days: sessions, lanes, pages there and back.

use super::*;
use tmem_wire::{FEATURE_LEAVE, Header, NOTICE_DRAIN, NOTICE_GIVE_BACK, NOTICE_ID, Op};

#[test]
fn pages_come_back_as_they_were_sent_over_either_lane() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let slab = c.grant(2)[1];
    let mut f = Frames::new(64);
    (0..32).for_each(|i| f.set(i, i as u64 + 1));
    for i in 0..32 {
        c.write(i, at(slab, i as u32), &mut f, &[i as usize]);
    }
    c.finish();
    let written: Vec<_> = (0..32).map(written).collect();
    assert_eq!(c.seen, written);
    c.seen.clear();
    c.read(
        Lane::Bulk,
        1,
        at(slab, 0),
        &mut f,
        &(32..63).rev().collect::<Vec<_>>(),
    );
    c.read(Lane::Demand, 2, at(slab, 31), &mut f, &[63]);
    assert_eq!(c.servers.queued_bytes(Lane::Bulk), 31 * PAGE_SIZE);
    assert_eq!(c.servers.outstanding(Lane::Demand), 1);
    c.finish();
    for i in 0..31 {
        assert_eq!(f.page(62 - i), page(i as u64 + 1));
    }
    assert_eq!(f.page(63), page(32));
    assert_eq!(c.servers.queued_bytes(Lane::Bulk), 0);
}

#[test]
fn answers_in_another_order_end_the_right_requests() {
    let fake = Fake::with(|o| o.reverse = true);
    let mut c = Client::up(&fake);
    let slab = c.grant(1)[0];
    let mut f = Frames::new(40);
    (0..20).for_each(|i| f.set(i, i as u64));
    c.write(0, at(slab, 0), &mut f, &(0..20).collect::<Vec<_>>());
    c.finish();
    c.seen.clear();
    for i in 0..20 {
        c.read(
            Lane::Demand,
            i,
            at(slab, i as u32),
            &mut f,
            &[20 + i as usize],
        );
    }
    c.finish();
    assert_eq!(c.seen.len(), 20);
    for i in 0..20 {
        assert!(c.seen.contains(&Completion::Read {
            token: i,
            result: Ok(())
        }));
        assert_eq!(f.page(20 + i as usize), page(i));
    }
}

#[test]
fn one_large_run_in_scattered_frames_goes_there_and_back() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let mut f = Frames::new(1024);
    (0..512).for_each(|i| f.set(i, i as u64));
    c.write(1, at(5, 0), &mut f, &(0..512).rev().collect::<Vec<_>>());
    c.until(|x| *x == written(1));
    c.read(
        Lane::Demand,
        2,
        at(5, 0),
        &mut f,
        &(512..1024).rev().collect::<Vec<_>>(),
    );
    c.until(|x| {
        *x == Completion::Read {
            token: 2,
            result: Ok(()),
        }
    });
    (0..512).for_each(|i| assert_eq!(f.page(512 + i), page(i as u64)));
}

#[test]
fn slabs_are_granted_until_there_are_none_and_given_back() {
    let fake = Fake::with(|o| o.left = 3);
    let mut c = Client::up(&fake);
    let slabs = c.grant(8);
    assert_eq!(slabs, [100, 101, 102]);
    c.servers.grant(ServerId::new(0), 1);
    let error = RequestError::Status(Status::Full);
    c.until(|x| {
        *x == Completion::GrantRefused {
            server: ServerId::new(0),
            error,
        }
    });
    c.servers.release(ServerId::new(0), &slabs);
    c.finish();
    assert!(fake.orders().slabs.is_empty());
}

#[test]
fn a_discard_takes_effect_between_the_writes_around_it() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let mut f = Frames::new(2);
    f.set(0, 1);
    f.set(1, 2);
    c.write(1, at(0, 0), &mut f, &[0]);
    c.write(2, at(0, 1), &mut f, &[0]);
    c.servers.discard(at(0, 0), 1300);
    c.write(3, at(0, 0), &mut f, &[1]);
    c.finish();
    let orders = fake.orders();
    assert_eq!(orders.pages.len(), 1);
    assert_eq!(orders.pages[&(0, 0)], page(2));
    let counts: Vec<_> = orders
        .log
        .iter()
        .filter(|h| h.op == Op::Discard)
        .map(|h| (h.page, h.count))
        .collect();
    assert_eq!(counts, [(0, 512), (512, 512), (1024, 276)]);
}

#[test]
fn the_right_secret_is_accepted_on_both_connections() {
    let fake = Fake::with(|o| o.secret = Some(b"open sesame".to_vec()));
    let options = Options {
        secret: Some(b"open sesame".to_vec()),
        ..Options::default()
    };
    let mut c = Client::new(&[&fake], options);
    let up = c.until(|_| true);
    let (capacity_pages, free_pages) = (64_000, 64_000);
    assert_eq!(
        up,
        Completion::Up {
            server: ServerId::new(0),
            slab_pages: 64,
            capacity_pages,
            free_pages
        }
    );
    let mut frames = Frames::new(1);
    c.write(1, at(0, 0), &mut frames, &[0]);
    c.until_second();
    assert_eq!(fake.orders().connections, 2);
}

#[test]
fn one_connection_serves_both_lanes_when_the_second_is_refused() {
    let fake = Fake::with(|o| o.join = Status::Limit);
    let mut c = Client::up(&fake);
    let mut f = Frames::new(2);
    f.set(0, 5);
    c.write(1, at(0, 0), &mut f, &[0]);
    c.finish();
    c.read(Lane::Demand, 2, at(0, 0), &mut f, &[1]);
    c.finish();
    assert_eq!(f.page(1), page(5));
}

#[test]
fn several_servers_are_used_each_for_its_own_pages() {
    let fakes = [Fake::new(), Fake::new(), Fake::new()];
    let mut c = Client::new(&fakes.each_ref(), Options::default());
    for server in 0..3 {
        c.until(|x| matches!(x, Completion::Up { server: s, .. } if s.index() == server));
    }
    let mut f = Frames::new(6);
    for server in 0..3 {
        f.set(server, server as u64 + 70);
        c.write(
            server as u64,
            At {
                server: ServerId::new(server as u16),
                slab: 0,
                page: 0,
            },
            &mut f,
            &[server],
        );
    }
    c.finish();
    for server in 0..3 {
        let place = At {
            server: ServerId::new(server as u16),
            slab: 0,
            page: 0,
        };
        c.read(Lane::Demand, server as u64, place, &mut f, &[3 + server]);
    }
    c.finish();
    for (server, fake) in fakes.iter().enumerate() {
        assert_eq!(f.page(3 + server), page(server as u64 + 70));
        assert_eq!(fake.orders().pages[&(0, 0)], page(server as u64 + 70));
    }
}

#[test]
fn the_second_address_of_a_server_is_used_when_the_first_refuses() {
    let fake = Fake::new();
    let mut gone = Fake::new();
    gone.stop();
    let endpoint = Endpoint {
        name: "two".into(),
        addrs: vec![gone.addr(), fake.addr()],
        agent: None,
    };
    let mut c = Client::of(vec![endpoint], Options::default());
    assert!(matches!(c.until(|_| true), Completion::Up { .. }));
    let mut frames = Frames::new(1);
    c.write(1, at(0, 0), &mut frames, &[0]);
    c.until_second();
    assert_eq!(fake.orders().connections, 2);
}

#[test]
fn bye_tells_the_server_on_every_connection() {
    let mut fake = Fake::new();
    let mut c = Client::with_second(&fake);
    c.servers.bye();
    assert!(!c.servers.any_up());
    let mut fds = Vec::new();
    c.servers.interests(&mut fds);
    assert!(fds.is_empty());
    // Joins the connections' threads, so that all they received was handled.
    fake.stop();
    assert_eq!(fake.orders().byes, 2);
}

/// Operations that the server has heard of, but for greetings.
fn heard(fake: &Fake) -> Vec<Op> {
    fake.orders().log.iter().map(|header| header.op).collect()
}

#[test]
fn a_program_that_is_about_to_end_says_so_and_again_after_all_that_it_asks() {
    let fake = Fake::with(|o| o.features = FEATURE_LEAVE);
    let mut c = Client::with_second(&fake);
    fake.orders().log.clear();
    let slab = c.grant(1)[0];
    assert!(!c.servers.has_left(c.now_ns));
    c.servers.leave(c.now_ns);
    c.finish();
    assert!(c.servers.has_left(c.now_ns));
    assert_eq!(heard(&fake), [Op::Grant, Op::Leave, Op::Leave]);
    let mut f = Frames::new(1);
    c.read(Lane::Demand, 1, at(slab, 0), &mut f, &[0]);
    assert!(!c.servers.has_left(c.now_ns));
    while !c.servers.has_left(c.now_ns) {
        c.wait();
        c.drive();
    }
    assert_eq!(heard(&fake)[3..], [Op::Read, Op::Leave, Op::Leave]);
}

#[test]
fn a_server_that_does_not_know_leave_is_not_told() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    c.servers.leave(c.now_ns);
    assert!(c.servers.has_left(c.now_ns));
    c.finish();
    assert!(heard(&fake).is_empty());
}

#[test]
fn the_end_of_a_program_does_not_wait_long_for_a_server() {
    let fake = Fake::with(|o| (o.features, o.silent) = (FEATURE_LEAVE, true));
    let mut c = Client::up(&fake);
    c.servers.leave(c.now_ns);
    assert!(!c.servers.has_left(c.now_ns));
    assert!(c.servers.next_timer() <= Some(c.now_ns + LEAVE_NS));
    assert!(c.servers.has_left(c.now_ns + LEAVE_NS));
}

/// A message of a server's that nobody has asked for.
fn notice(page: u32) -> Vec<u8> {
    let header = Header {
        page,
        ..Header::request(Op::Notice, NOTICE_ID)
    };
    header.reply(Status::Ok, 0).encode().to_vec()
}

#[test]
fn what_a_server_asks_unasked_is_heard_and_later_kinds_are_not_minded() {
    let fake = Fake::new();
    let mut c = Client::up(&fake);
    let slab = c.grant(1)[0];
    let mut f = Frames::new(1);
    let mut forged = notice(NOTICE_DRAIN);
    forged.extend(notice(77));
    forged.extend(notice(NOTICE_GIVE_BACK));
    // The first request of this connection.
    let request = Header {
        slab,
        count: 1,
        ..Header::request(Op::Read, 1)
    };
    forged.extend(request.reply(Status::Ok, PAGE_SIZE as u32).encode());
    forged.extend([0; PAGE_SIZE]);
    fake.orders().forged = Some(forged);
    c.read(Lane::Demand, 5, at(slab, 0), &mut f, &[0]);
    c.finish();
    let done = &c.seen;
    let drains = Completion::Drains {
        server: ServerId::new(0),
    };
    let wants_back = Completion::WantsBack {
        server: ServerId::new(0),
    };
    assert!(
        done.contains(&drains) && done.contains(&wants_back),
        "{done:?}"
    );
    let read = Completion::Read {
        token: 5,
        result: Ok(()),
    };
    assert!(done.contains(&read), "{done:?}");
}
