//! Who may use which memory.

use crate::common::*;
use std::thread;
use tmem_verbs::{Access, Error, Op, Status, Work};

fn read(remote: u64, key: u32) -> Op {
    Op::Read { remote, key }
}

fn write(remote: u64, key: u32) -> Op {
    Op::Write { remote, key }
}

/// What the client gets when it uses a region of the server so.
fn outcome(access: Access, op: fn(u64, u32) -> Op, beyond: u64) -> Result<(), Status> {
    let (mut client, server) = ends();
    let there = Memory::new(&server.domain(), &[9; 4096], access);
    let here = Memory::new(&client.domain(), &[1; 4096], ALL);
    let at = there.region().addr() + beyond;
    let op = op(at, there.region().remote_key());
    let status = run(&mut client, op, here.whole());
    if status.is_err() {
        assert_eq!(there.bytes(), [9; 4096]);
        assert_eq!(here.bytes(), [1; 4096]);
    }
    status
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_region_is_used_only_as_it_lets() {
    let reads = Access {
        remote_read: true,
        ..Access::default()
    };
    let writes = Access {
        remote_write: true,
        ..Access::default()
    };
    assert_eq!(outcome(reads, read, 0), Ok(()));
    assert_eq!(outcome(writes, write, 0), Ok(()));
    assert_eq!(outcome(reads, write, 0), Err(Status::RemoteAccess));
    assert_eq!(outcome(writes, read, 0), Err(Status::RemoteAccess));
    assert_eq!(outcome(ALL, read, 1), Err(Status::RemoteAccess));
    assert_eq!(outcome(ALL, write, 1), Err(Status::RemoteAccess));
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_key_of_another_connection_is_worth_nothing() {
    for op in [read, write] {
        let (mut client, _server) = ends();
        let (_other_client, other_server) = ends();
        let here = Memory::new(&client.domain(), &[1; 4096], ALL);
        let there = Memory::new(&other_server.domain(), &[9; 4096], ALL);
        let op = op(there.region().addr(), there.region().remote_key());
        let status = run(&mut client, op, here.whole());
        assert_eq!(status, Err(Status::RemoteAccess));
        assert_eq!(there.bytes(), [9; 4096]);
        assert_eq!(here.bytes(), [1; 4096]);
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_key_of_a_region_that_is_gone_is_worth_nothing() {
    for op in [read, write] {
        let (mut client, server) = ends();
        let here = Memory::new(&client.domain(), &[1; 4096], ALL);
        let mut there = Memory::new(&server.domain(), &[9; 4096], ALL);
        let op = op(there.region().addr(), there.region().remote_key());
        there.give_up();
        let status = run(&mut client, op, here.whole());
        assert_eq!(status, Err(Status::RemoteAccess));
        assert_eq!(there.bytes(), [9; 4096]);
        assert_eq!(here.bytes(), [1; 4096]);
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_piece_of_a_region_that_is_gone_is_worth_nothing() {
    let (mut client, server) = ends();
    let there = Memory::new(&server.domain(), &[9; 4096], ALL);
    let mut here = Memory::new(&client.domain(), &[1; 4096], ALL);
    let work = Work {
        id: 1,
        op: read(there.region().addr(), there.region().remote_key()),
        pieces: here.whole(),
        signaled: true,
        fence: false,
    };
    here.give_up();
    // A driver may see it at once, or the device when it does the work.
    if client.post(&[work]).is_ok() {
        let status = completions(&mut client, 1)[0].status;
        assert_eq!(status, Err(Status::LocalProtection));
    }
    assert_eq!(here.bytes(), [1; 4096]);
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_piece_lies_inside_its_region() {
    let (client, _server) = ends();
    let memory = Memory::new(&client.domain(), &[1; 4096], ALL);
    assert_eq!(memory.region().len(), 4096);
    assert_eq!(memory.region().piece(4000, 96).unwrap().len(), 96);
    assert!(memory.region().piece(4096, 0).unwrap().is_empty());
    for (offset, len) in [(4000, 97), (4097, 0), (usize::MAX, 1), (1, usize::MAX)] {
        let error = memory.region().piece(offset, len).unwrap_err();
        assert!(matches!(error, Error::Bounds { .. }), "{error}");
    }
}

#[test]
#[ignore = "needs an RDMA device: scripts/rdma-vm"]
fn a_process_that_may_not_lock_memory_is_told_what_to_do() {
    let (client, _server) = ends();
    let domain = client.domain();
    let error = thread::spawn(move || {
        forbid_locking();
        let mut memory = vec![0u8; 1 << 20];
        // SAFETY: it stays until the region, if there is one, is dropped.
        let region = unsafe { domain.register(memory.as_mut_ptr(), memory.len(), ALL) };
        region.unwrap_err()
    });
    let error = error.join().unwrap();
    println!("{error}");
    let limited = matches!(
        error,
        Error::Pin {
            limit: Some(65536),
            ..
        }
    );
    assert!(limited, "{error}");
    assert!(error.to_string().contains("ulimit -l unlimited"), "{error}");
}

/// Lets this thread lock 64 KiB only, like a plain user's. The limit is the
/// process's, but root's other threads may go over it.
fn forbid_locking() {
    let limit = libc::rlimit {
        rlim_cur: 65536,
        rlim_max: 65536,
    };
    // Version 3 of the call; no capability is kept.
    let head = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    // SAFETY: the struct is read.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    // SAFETY: both arrays have the sizes that version 3 has.
    let dropped = unsafe { libc::syscall(libc::SYS_capset, head.as_ptr(), none.as_ptr()) };
    assert_eq!((limited, dropped), (0, 0));
}
