//! Pages there and back.

use crate::client::{Asks, Client, page, pages, receive, run, server};
use std::io::Write;
use tmem_wire::{FEATURE_LZ4, Header, MAX_RUN, Op, PAGE_SIZE, Packer, Status, unpack};

#[test]
fn pages_come_back_as_they_were_written() {
    let server = server(1024);
    let mut c = Client::new(server.addr());
    let slabs = c.grant(2);
    assert_eq!((c.hello.slab_pages, slabs.len()), (64, 2));
    c.write(slabs[0], 0, &pages(0..64));
    c.write(slabs[1], 63, &page(99));
    c.write(slabs[0], 7, &pages(107..110));
    let expected: Vec<u64> = (0..7).chain(107..110).chain(10..64).collect();
    assert!(c.read(slabs[0], 0, 64) == pages(expected));
    assert!(c.read(slabs[1], 63, 1) == page(99));
    let stats = c.stats();
    assert_eq!((stats.pages_written, stats.pages_read), (68, 65));
    assert_eq!((stats.stored_pages, stats.granted_pages), (65, 128));
    assert_eq!((stats.capacity_pages, stats.sessions), (1024, 1));
}

fn packed(op: Op, slab: u32, page: u32, count: u32) -> Header {
    Header {
        packed: true,
        ..run(op, slab, page, count)
    }
}

#[test]
fn pages_may_come_packed_and_be_asked_for_packed() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    assert_ne!(c.hello.features & FEATURE_LZ4, 0);
    let slab = c.grant(1)[0];
    let three = [[1; PAGE_SIZE], [2; PAGE_SIZE], [3; PAGE_SIZE]];
    let mut packer = Packer::new(3);
    assert!(three.iter().all(|page| packer.add(page)));
    let payload = packer.finish().unwrap();
    c.done(packed(Op::Write, slab, 10, 3), &payload);
    assert!(c.read(slab, 10, 3) == three.concat());

    c.send(packed(Op::Read, slab, 9, 5), &[]);
    let (reply, body) = c.receive();
    assert!(reply.packed && body.len() < PAGE_SIZE, "{reply:?}");
    let zeros = [[0; PAGE_SIZE]];
    let mut got = vec![];
    unpack(&body, 5, |_, page| got.push(*page)).unwrap();
    assert!(got == [&zeros[..], &three[..], &zeros[..]].concat());

    // What does not get smaller comes as it is.
    let random: Vec<u8> = (0..PAGE_SIZE as u64 / 8)
        .flat_map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    c.write(slab, 20, &random);
    c.send(packed(Op::Read, slab, 20, 1), &[]);
    let (reply, body) = c.receive();
    assert!(!reply.packed && body == random, "{reply:?}");
}

#[test]
fn packed_pages_that_cannot_be_unpacked_are_refused_and_nothing_of_them_is_stored() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    c.write(slab, 0, &pages(0..2));
    let mut packer = Packer::new(2);
    assert!(packer.add(&[1; PAGE_SIZE]) && packer.add(&[2; PAGE_SIZE]));
    let good = packer.finish().unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad.truncate(last);
    let (status, _) = c.ask(packed(Op::Write, slab, 0, 2), &bad);
    assert_eq!(status, Status::BadRequest);
    assert!(c.read(slab, 0, 2) == pages(0..2));
    // The slab is looked at first, and the connection goes on.
    let (status, _) = c.ask(packed(Op::Write, slab + 1, 0, 2), &good);
    assert_eq!(status, Status::NoSuchSlab);
    c.done(packed(Op::Write, slab, 0, 2), &good);
    assert!(c.read(slab, 0, 2) == [[1; PAGE_SIZE], [2; PAGE_SIZE]].concat());
}

#[test]
fn pages_never_written_are_zeros_also_among_others() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    assert!(c.read(slab, 0, 64).iter().all(|b| *b == 0));
    for at in (0..64).step_by(3) {
        c.write(slab, at, &page(at.into()));
    }
    let got = c.read(slab, 0, 64);
    for (at, bytes) in got.chunks_exact(PAGE_SIZE).enumerate() {
        let written = at % 3 == 0;
        assert!(
            bytes
                == if written {
                    page(at as u64)
                } else {
                    vec![0; PAGE_SIZE]
                }
        );
    }
    // Also when the memory held something for another session before.
    c.bye();
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    assert!(c.read(slab, 0, 64).iter().all(|b| *b == 0));
    c.write(slab, 5, &page(1));
    c.discard(slab, 4, 3);
    assert!(c.read(slab, 0, 64).iter().all(|b| *b == 0));
}

#[test]
fn the_longest_run_is_one_request() {
    let server = crate::client::server_with(4096, |c| c.slab_size = 1 << 22);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    let run = pages(0..u64::from(MAX_RUN));
    c.write(slab, 100, &run);
    assert!(c.read(slab, 100, MAX_RUN) == run);
    // Every second page only: as many pieces as there can be.
    (0..MAX_RUN)
        .step_by(2)
        .for_each(|p| c.discard(slab, 100 + p, 1));
    let got = c.read(slab, 100, MAX_RUN);
    for (at, bytes) in got.chunks_exact(PAGE_SIZE).enumerate() {
        assert!(
            bytes
                == if at % 2 == 0 {
                    vec![0; PAGE_SIZE]
                } else {
                    page(at as u64)
                }
        );
    }
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    let mut stream = c.stream.try_clone().unwrap();
    let rounds = 2000u64;
    // All of them in one stream of bytes, as the kernel takes it.
    let sender = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for n in 0..rounds {
            let at = (n % 61) as u32;
            let mut add = |op, id, payload: &[u8]| {
                let header = Header {
                    id,
                    len: payload.len() as u32,
                    ..run(op, slab, at, 1)
                };
                bytes.extend_from_slice(&header.encode());
                bytes.extend_from_slice(payload);
            };
            add(Op::Write, 4 * n, &page(n));
            add(Op::Read, 4 * n + 1, &[]);
            add(Op::Discard, 4 * n + 2, &[]);
            add(Op::Read, 4 * n + 3, &[]);
        }
        stream.write_all(&bytes).unwrap();
    });
    for id in 0..4 * rounds {
        let (reply, body) = receive(&mut c.stream).unwrap();
        assert_eq!((reply.id, reply.status), (id, Status::Ok));
        match id % 4 {
            1 => assert!(body == page(id / 4), "what was written before, not after"),
            3 => assert!(body.iter().all(|b| *b == 0), "what was discarded before"),
            _ => assert!(body.is_empty()),
        }
    }
    sender.join().unwrap();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    let header = Header {
        id: 9,
        len: PAGE_SIZE as u32,
        ..run(Op::Write, slab, 3, 1)
    };
    let message = [&header.encode()[..], &page(8)].concat();
    for piece in message[..40].chunks(1).chain(message[40..].chunks(999)) {
        c.stream.write_all(piece).unwrap();
    }
    assert_eq!(c.receive().0, header.reply(Status::Ok, 0));
    assert!(c.read(slab, 3, 1) == page(8));
}

#[test]
fn what_lies_outside_is_refused_and_the_connection_goes_on() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    c.write(slab, 0, &pages(0..64));
    let one = page(77);
    for (request, payload, expected) in [
        (run(Op::Read, slab, 64, 1), &[][..], Status::OutOfRange),
        (run(Op::Read, slab, 63, 2), &[], Status::OutOfRange),
        (run(Op::Read, slab, u32::MAX, 1), &[], Status::OutOfRange),
        (run(Op::Read, slab, u32::MAX, 512), &[], Status::OutOfRange),
        (run(Op::Read, slab, 0, 0), &[], Status::BadRequest),
        (run(Op::Read, slab, 0, 513), &[], Status::TooLarge),
        (run(Op::Read, slab, 0, u32::MAX), &[], Status::TooLarge),
        (run(Op::Read, slab, 0, 1), &[1; 8], Status::BadRequest),
        (run(Op::Read, slab + 1, 0, 1), &[], Status::NoSuchSlab),
        (run(Op::Read, u32::MAX, 0, 1), &[], Status::NoSuchSlab),
        (run(Op::Write, slab, 64, 1), &one, Status::OutOfRange),
        (run(Op::Write, slab, u32::MAX, 1), &one, Status::OutOfRange),
        (run(Op::Write, slab + 1, 0, 1), &one, Status::NoSuchSlab),
        (run(Op::Discard, slab, 1, 64), &[], Status::OutOfRange),
        (run(Op::Discard, slab, 0, 0), &[], Status::BadRequest),
        (run(Op::Discard, slab, 0, 1), &[1], Status::BadRequest),
        (run(Op::Grant, 0, 0, 0), &[], Status::BadRequest),
        (run(Op::Release, 0, 0, 0), &[1, 2, 3], Status::BadRequest),
        (run(Op::Release, 0, 0, 0), &[7; 4], Status::NoSuchSlab),
        (run(Op::Hello, 0, 0, 0), &[], Status::BadRequest),
        (run(Op::Auth, 0, 0, 0), &[], Status::BadRequest),
        (run(Op::Stats, 0, 0, 0), &[0], Status::BadRequest),
        // Only over RDMA.
        (run(Op::Keys, slab, 0, 0), &[], Status::BadRequest),
        (run(Op::Keys, slab, 1, 0), &[], Status::BadRequest),
    ] {
        let (status, text) = c.ask(request, payload);
        assert_eq!(status, expected, "{request:?}");
        assert!(!text.is_empty());
    }
    assert!(c.read(slab, 0, 64) == pages(0..64));
}

#[test]
fn a_client_that_ends_its_half_gets_its_answers() {
    let server = server(64);
    let mut c = Client::new(server.addr());
    let slab = c.grant(1)[0];
    c.write(slab, 1, &page(5));
    c.send(run(Op::Write, slab, 2, 1), &page(6));
    c.send(run(Op::Read, slab, 1, 2), &[]);
    c.send(run(Op::Ping, 0, 0, 0), &[]);
    c.stream.shutdown(std::net::Shutdown::Write).unwrap();
    c.receive();
    assert!(c.receive().1 == pages([5, 6]));
    assert_eq!(c.receive().0.op, Op::Ping);
    assert!(c.is_ended());
}
