//! Messages, reads and writes.

use crate::common::*;
use std::thread;
use std::time::{Duration, Instant};
use tmem_verbs::{Error, Kind, Op, Piece, Pieces, Work};

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn messages_come_in_order_and_events_tell_of_them() {
    let (mut client, mut server) = ends();
    let room = Memory::new(&server.domain(), &[0; 4096], ALL);
    let slot = |at: usize| room.region().piece(at * 1024, 1024).unwrap();
    server.post_receive(10, &slot(0)).unwrap();
    let more: Vec<(u64, Piece)> = (1..4).map(|at| (10 + at as u64, slot(at))).collect();
    server.post_receives(&more).unwrap();
    server.arm().unwrap();
    assert_eq!(server.poll(&mut Vec::new()).unwrap(), 0);

    // The first is inline, the second is not, the third is empty.
    for (seed, len) in [(1, 50), (2, 1000), (3, 0)] {
        let message = Memory::new(&client.domain(), &pattern(len.max(1), seed), ALL);
        let piece = message.region().piece(0, len).unwrap();
        run(&mut client, Op::Send, piece.into()).unwrap();
    }
    wait(server.completion_fd());
    server.clear_completion_events().unwrap();
    let done = completions(&mut server, 3);
    for (at, (done, len)) in done.iter().zip([50, 1000, 0]).enumerate() {
        assert_eq!((done.id, done.kind), (10 + at as u64, Kind::Receive(len)));
        assert_eq!(done.status, Ok(()));
    }
    let bytes = room.bytes();
    assert_eq!(bytes[..50], pattern(50, 1));
    assert_eq!(bytes[1024..2024], pattern(1000, 2));
}

/// How long a message takes that comes 50 ms before its receive; whose message
/// is said, as each end makes its own queue pair.
fn early_message(from_client: bool) -> Duration {
    let (client, server) = ends();
    let (mut from, mut to) = if from_client {
        (client, server)
    } else {
        (server, client)
    };
    let message = Memory::new(&from.domain(), b"hello", ALL);
    let room = Memory::new(&to.domain(), &[0; 64], ALL);
    let begin = Instant::now();
    let posting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        let piece = room.region().piece(0, 64).unwrap();
        to.post_receive(4, &piece).unwrap();
        (to, room)
    });
    run(&mut from, Op::Send, message.whole()).unwrap();
    let took = begin.elapsed();
    println!("sent and acknowledged in {took:?}");
    let (mut to, room) = posting.join().unwrap();
    assert_eq!(completions(&mut to, 1)[0].kind, Kind::Receive(5));
    assert!(room.bytes().starts_with(b"hello"));
    took
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_message_that_comes_before_its_receive_waits_for_it_and_not_much_longer() {
    for from_client in [true, false] {
        // Nothing is ever that fast by chance; a busy machine may be slow.
        let soon = |_| early_message(from_client) < Duration::from_millis(500);
        assert!((0..10).any(soon));
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn one_end_reads_and_writes_the_others_memory() {
    let (mut client, server) = ends();
    let size = 300_000;
    let there = Memory::new(&server.domain(), &pattern(size, 1), ALL);
    let here = Memory::new(&client.domain(), &vec![0; size], ALL);
    let (remote, key) = (there.region().addr(), there.region().remote_key());
    run(&mut client, Op::Read { remote, key }, here.whole()).unwrap();
    assert!(here.bytes() == pattern(size, 1));

    // Gathered from pieces in another order.
    let piece = |offset, len| here.region().piece(offset, len).unwrap();
    let pieces = Pieces::new(&[piece(8192, 4096), piece(0, 4096), piece(100, 5)]).unwrap();
    let remote = remote + 4096;
    run(&mut client, Op::Write { remote, key }, pieces).unwrap();
    let before = pattern(size, 1);
    let mut expected = before.clone();
    expected[4096..8192].copy_from_slice(&before[8192..12288]);
    expected[8192..12288].copy_from_slice(&before[..4096]);
    expected[12288..12293].copy_from_slice(&before[100..105]);
    assert!(there.bytes() == expected);

    // Inline.
    run(&mut client, Op::Write { remote, key }, piece(0, 8).into()).unwrap();
    expected[4096..4104].copy_from_slice(&before[..8]);
    assert!(there.bytes() == expected);

    // Scattered to pieces.
    let pieces = Pieces::new(&[piece(20_000, 3), piece(10_000, 4093)]).unwrap();
    run(&mut client, Op::Read { remote, key }, pieces).unwrap();
    assert_eq!(here.bytes()[20_000..20_003], expected[4096..4099]);
    assert_eq!(here.bytes()[10_000..14_093], expected[4099..8192]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_batch_has_the_completions_that_it_asks_for() {
    let (mut client, mut server) = ends();
    let there = Memory::new(&server.domain(), &pattern(16 << 12, 3), ALL);
    let here = Memory::new(&client.domain(), &[0; 16 << 12], ALL);
    let key = there.region().remote_key();
    let note = Memory::new(&server.domain(), &[0; 128], ALL);
    let room = note.region().piece(0, 128).unwrap();
    server.post_receive(1, &room).unwrap();

    let piece = |at, len| here.region().piece(at, len).unwrap().into();
    let mut batch: Vec<Work> = (0..16)
        .map(|page| Work {
            id: page,
            op: Op::Read {
                remote: there.region().addr() + (page << 12),
                key,
            },
            pieces: piece((page as usize) << 12, 4096),
            signaled: false,
            fence: false,
        })
        .collect();
    batch.push(Work {
        id: 16,
        op: Op::Send,
        // Too long to be inline.
        pieces: piece(4096, 128),
        signaled: true,
        fence: true,
    });
    client.post(&batch).unwrap();
    let done = completions(&mut client, 1)[0];
    assert_eq!((done.id, done.status), (16, Ok(())));
    assert!(here.bytes() == pattern(16 << 12, 3));
    assert_eq!(completions(&mut server, 1)[0].kind, Kind::Receive(128));
    // The fence: what is sent was read before.
    assert_eq!(note.bytes(), pattern(16 << 12, 3)[4096..4224]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_full_queue_says_what_it_took() {
    let (mut client, server) = ends();
    let there = Memory::new(&server.domain(), &[9; 8], ALL);
    let here = Memory::new(&client.domain(), &[1; 8], ALL);
    let work = Work {
        id: 5,
        op: Op::Read {
            remote: there.region().addr(),
            key: there.region().remote_key(),
        },
        pieces: here.whole(),
        signaled: false,
        fence: false,
    };
    match client.post(&vec![work; 1 << 15]) {
        Err(Error::Post { posted, error }) => {
            println!("{posted} posted, then {error}");
            assert!(posted >= 64, "{posted}");
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn other_threads_register_while_work_is_under_way() {
    let (mut client, server) = ends();
    let there = Memory::new(&server.domain(), &pattern(4096, 5), ALL);
    let (remote, key) = (there.region().addr(), there.region().remote_key());
    let domain = client.domain();
    let registering = thread::spawn(move || {
        for _ in 0..200 {
            drop(Memory::new(&domain, &[0; 4096], ALL));
        }
        // Outlives its connection.
        Memory::new(&domain, &[0; 4096], ALL)
    });
    let here = Memory::new(&client.domain(), &[0; 4096], ALL);
    for _ in 0..200 {
        run(&mut client, Op::Read { remote, key }, here.whole()).unwrap();
    }
    drop(client);
    let left = registering.join().unwrap();
    assert_eq!(here.bytes(), pattern(4096, 5));
    assert_eq!(left.bytes(), [0; 4096]);
}
