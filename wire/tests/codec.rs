//! Every codec: what is encoded reads back, and any bytes are read or refused.

use proptest::prelude::*;
use tmem_wire::{
    DecodeError, HEADER_LEN, Header, Hello, HelloReply, MAX_CONTROL, MAX_RUN, Op, PAGE_SIZE,
    ServerStats, SessionId, SlabKey, Status, auth::Keys, decode_slab_list, encode_slab_list,
};

fn op() -> impl Strategy<Value = Op> {
    prop::sample::select(Op::ALL.to_vec())
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.to_vec())
}

fn carries_pages(op: Op, reply: bool, status: Status) -> bool {
    (op == Op::Write && !reply) || (op == Op::Read && reply && status == Status::Ok)
}

prop_compose! {
    /// A header that may be sent.
    fn header()(
        op in op(), reply: bool, prompt: bool, packed: bool, status in status(),
        len in 0..=MAX_CONTROL, id: u64, slab: u32, page: u32, any: u32, run in 1..=MAX_RUN,
        share in 0u32..=PAGE_SIZE as u32,
    ) -> Header {
        let status = if reply { status } else { Status::Ok };
        let pages = carries_pages(op, reply, status);
        let (len, count) = match (pages, packed) {
            (true, false) => (run * PAGE_SIZE as u32, run),
            (true, true) => (run * (2 + share), run),
            (false, _) => (len, any),
        };
        Header { op, reply, prompt, packed, status, len, id, slab, page, count }
    }
}

prop_compose! {
    fn hello()(
        min_version: u16, max_version: u16, features: u64, session: [u8; 16], nonce: [u8; 16],
    ) -> Hello {
        let session = SessionId(session);
        Hello { min_version, max_version, features, session, nonce }
    }
}

prop_compose! {
    fn hello_reply()(
        version: u16, features: u64, slab_pages: u32, session: [u8; 16], instance: [u8; 16],
        challenge: [u8; 16], capacity_pages: u64, free_pages: u64,
    ) -> HelloReply {
        let session = SessionId(session);
        HelloReply {
            version, features, slab_pages, session, instance, challenge, capacity_pages, free_pages,
        }
    }
}

prop_compose! {
    fn slab_key()(address: u64, key: u32, write: bool) -> SlabKey {
        SlabKey { address, key, write }
    }
}

prop_compose! {
    fn stats()(n: [u64; 8]) -> ServerStats {
        ServerStats {
            capacity_pages: n[0],
            granted_pages: n[1],
            stored_pages: n[2],
            sessions: n[3],
            connections: n[4],
            pages_read: n[5],
            pages_written: n[6],
            uptime_ms: n[7],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_header_reads_back(header in header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_header_of_any_bytes_is_the_one_that_encodes_to_them(mut bytes: [u8; HEADER_LEN], likely: bool) {
        if likely {
            // Most random bytes fail at the first field.
            bytes[0] %= 16;
            bytes[1] %= 3;
            (bytes[2], bytes[3]) = (bytes[2] % 14, 0);
            (bytes[6], bytes[7]) = (bytes[6] % 2, 0);
            bytes[28..].fill(0);
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            let pages = carries_pages(header.op, header.reply, header.status);
            let most = if pages { MAX_RUN * (2 + PAGE_SIZE as u32) } else { MAX_CONTROL };
            prop_assert!(header.len <= most);
            if pages && header.packed {
                prop_assert!(header.len >= 2 * header.count);
            } else if pages {
                prop_assert_eq!(u64::from(header.len), u64::from(header.count) * PAGE_SIZE as u64);
            }
        }
    }

    #[test]
    fn a_reply_echoes_its_request(header in header(), status in status(), len: u32) {
        let request = Header {
            reply: false, prompt: false, packed: false, status: Status::Ok, ..header
        };
        let reply = request.reply(status, len);
        prop_assert!(reply.reply);
        prop_assert_eq!(Header { reply: false, status: Status::Ok, len: request.len, ..reply }, request);
        prop_assert_eq!((reply.status, reply.len), (status, len));
    }

    #[test]
    fn payloads_read_back(hello in hello(), reply in hello_reply(), stats in stats(),
        slabs in prop::collection::vec(any::<u32>(), 0..200), key in slab_key(),
    ) {
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        prop_assert_eq!(HelloReply::decode(&reply.encode()), Ok(reply));
        prop_assert_eq!(ServerStats::decode(&stats.encode()), Ok(stats));
        prop_assert_eq!(SlabKey::decode(&key.encode()), Ok(key));
        prop_assert_eq!(decode_slab_list(&encode_slab_list(&slabs)), Ok(slabs));
    }

    #[test]
    fn payloads_of_any_bytes_are_those_that_encode_to_them(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool, len in 0..5usize,
        access in 0..3u8,
    ) {
        // Most random bytes have the wrong length or magic.
        bytes.resize([bytes.len(), Hello::LEN, HelloReply::LEN, ServerStats::LEN, SlabKey::LEN][len], 0);
        if len == 4 {
            // Most random accesses are none.
            bytes[12..].copy_from_slice(&[access, 0, 0, 0]);
            prop_assert_eq!(SlabKey::decode(&bytes).is_ok(), access < 2);
        }
        if magic && bytes.len() >= 8 {
            bytes[..4].copy_from_slice(b"TMEM");
            bytes[6..8].fill(0);
        }
        if let Ok(hello) = Hello::decode(&bytes) {
            prop_assert_eq!(&hello.encode()[..], &bytes);
        }
        if let Ok(reply) = HelloReply::decode(&bytes) {
            prop_assert_eq!(&reply.encode()[..], &bytes);
        }
        if let Ok(key) = SlabKey::decode(&bytes) {
            prop_assert_eq!(&key.encode()[..], &bytes);
        }
        if let Ok(stats) = ServerStats::decode(&bytes) {
            prop_assert_eq!(&stats.encode()[..], &bytes[..ServerStats::LEN]);
        } else {
            prop_assert!(bytes.len() < ServerStats::LEN);
        }
        match decode_slab_list(&bytes) {
            Ok(list) => prop_assert_eq!(encode_slab_list(&list), bytes),
            Err(_) => prop_assert!(bytes.len() % 4 != 0),
        }
    }

    #[test]
    fn payloads_cut_or_continued_are_refused(
        hello in hello(), reply in hello_reply(), stats in stats(), key in slab_key(),
        cut in 0..100usize, more in 1..9usize,
    ) {
        fn check<T>(bytes: &[u8], cut: usize, more: usize, decode: fn(&[u8]) -> Result<T, DecodeError>, grows: bool) {
            assert!(decode(&bytes[..cut % bytes.len()]).is_err());
            let longer = [bytes, &vec![0; more]].concat();
            assert_eq!(decode(&longer).is_ok(), grows);
        }
        check(&hello.encode(), cut, more, Hello::decode, false);
        check(&reply.encode(), cut, more, HelloReply::decode, false);
        check(&key.encode(), cut, more, SlabKey::decode, false);
        check(&stats.encode(), cut, more, ServerStats::decode, true);
    }

    #[test]
    fn a_proof_is_good_for_what_it_was_made_for_only(
        secret in prop::collection::vec(any::<u8>(), 1..100), lane: u32, hello in hello(),
        challenge in hello_reply(), told in hello_reply(), at in any::<prop::sample::Index>(),
        bits in 1u8..,
    ) {
        let (hello, challenge) = (hello.encode(), challenge.encode());
        let keys = || Keys::new(&secret, lane, &hello, &challenge);
        let auth = keys().auth(told.session);
        prop_assert_eq!(keys().session(&auth), Some(told.session));
        let reply = keys().reply(&auth, &told);
        prop_assert_eq!(keys().told(&auth, &reply), Some(told));
        // Nothing of either can be changed, cut short or reflected.
        let changed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            bytes
        };
        prop_assert_eq!(keys().session(&changed(&auth)), None);
        prop_assert_eq!(keys().session(&auth[..at.index(auth.len())]), None);
        prop_assert_eq!(keys().told(&auth, &changed(&reply)), None);
        prop_assert_eq!(keys().told(&changed(&auth), &reply), None);
        prop_assert_eq!(keys().told(&auth, &reply[..at.index(reply.len())]), None);
        prop_assert_eq!(keys().session(&reply[HelloReply::LEN..]), None);
        prop_assert_eq!(keys().told(&auth, &auth), None);
        // Nor is it good with another secret, or on another connection.
        for other in [
            Keys::new(&changed(&secret), lane, &hello, &challenge),
            Keys::new(&secret, lane ^ 1, &hello, &challenge),
            Keys::new(&secret, lane, &changed(&hello), &challenge),
            Keys::new(&secret, lane, &hello, &changed(&challenge)),
        ] {
            prop_assert_eq!(other.session(&auth), None);
            prop_assert_eq!(other.told(&auth, &reply), None);
        }
    }
}

#[test]
fn lengths_at_their_limits() {
    let of = |op, reply, status, len, count| {
        let header = Header {
            reply,
            status,
            len,
            count,
            ..Header::request(op, 1)
        };
        Header::decode(&header.encode()).map(|_| ())
    };
    let page = PAGE_SIZE as u32;
    let too_long = Err(DecodeError::PayloadLength(MAX_CONTROL + 1));
    for op in Op::ALL {
        let write = op == Op::Write;
        if !write {
            assert_eq!(of(op, false, Status::Ok, MAX_CONTROL, 0), Ok(()));
            assert_eq!(of(op, false, Status::Ok, MAX_CONTROL + 1, 0), too_long);
        }
        assert_eq!(of(op, true, Status::Full, MAX_CONTROL, 0), Ok(()));
        assert_eq!(of(op, true, Status::Full, MAX_CONTROL + 1, 0), too_long);
    }
    for (op, reply) in [(Op::Write, false), (Op::Read, true)] {
        let of = |len, count| of(op, reply, Status::Ok, len, count);
        assert_eq!(of(MAX_RUN * page, MAX_RUN), Ok(()));
        assert_eq!(
            of((MAX_RUN + 1) * page, MAX_RUN + 1),
            Err(DecodeError::RunLength(513))
        );
        assert_eq!(of(0, 0), Err(DecodeError::RunLength(0)));
        assert_eq!(of(page + 1, 1), Err(DecodeError::PayloadLength(4097)));
        // No product overflows into a length that fits.
        assert_eq!(of(0, 1 << 20), Err(DecodeError::RunLength(1 << 20)));
    }
    for (op, reply) in [(Op::Write, false), (Op::Read, true)] {
        let of = |len, count| {
            let header = Header {
                reply,
                packed: true,
                len,
                count,
                ..Header::request(op, 1)
            };
            Header::decode(&header.encode()).map(|_| ())
        };
        let most = MAX_RUN * (page + 2);
        assert_eq!(of(most, MAX_RUN), Ok(()));
        assert_eq!(of(2 * MAX_RUN, MAX_RUN), Ok(()));
        for wrong in [most + 1, 2 * MAX_RUN - 1] {
            let error = Err(DecodeError::PayloadLength(wrong));
            assert_eq!(of(wrong, MAX_RUN), error);
        }
        assert_eq!(of(0, 0), Err(DecodeError::RunLength(0)));
    }
}

/// The layouts as PROTOCOL.md has them, byte by byte.
#[test]
fn the_bytes_are_as_written_down() {
    let header = Header {
        op: Op::Read,
        reply: true,
        prompt: false,
        packed: false,
        status: Status::NoSuchSlab,
        len: 0x0102,
        id: 0x0807_0605_0403_0201,
        slab: 0x0d0c_0b0a,
        page: 0x1413_1211,
        count: 0x0818_1716,
    };
    let bytes = [
        5, 1, 5, 0, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0x11, 0x12, 0x13, 0x14,
        0x16, 0x17, 0x18, 8, 0, 0, 0, 0,
    ];
    assert_eq!(header.encode(), bytes);
    let prompt = Header {
        prompt: true,
        ..Header::request(Op::Ping, 0)
    };
    assert_eq!(prompt.encode()[..4], [9, 2, 0, 0]);
    let packed = Header {
        packed: true,
        ..Header::request(Op::Read, 0)
    };
    assert_eq!(packed.encode()[..4], [5, 4, 0, 0]);
    let hello = Hello {
        min_version: 1,
        max_version: 2,
        features: 3,
        session: SessionId([4; 16]),
        nonce: [5; 16],
    };
    let mut bytes = b"TMEM\x01\0\x02\0\x03\0\0\0\0\0\0\0".to_vec();
    bytes.extend([[4; 16], [5; 16]].concat());
    assert_eq!(&hello.encode()[..], bytes);
    let reply = HelloReply {
        version: 1,
        features: 2,
        slab_pages: 3,
        session: SessionId([4; 16]),
        instance: [5; 16],
        challenge: [6; 16],
        capacity_pages: 7,
        free_pages: 8,
    };
    let mut bytes = b"TMEM\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0".to_vec();
    bytes.extend([[4; 16], [5; 16], [6; 16]].concat());
    bytes.extend(b"\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0");
    assert_eq!(&reply.encode()[..], bytes);
    let key = SlabKey {
        address: 0x0807_0605_0403_0201,
        key: 0x0d0c_0b0a,
        write: true,
    };
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 1, 0, 0, 0];
    assert_eq!(key.encode(), bytes);
    assert_eq!(Header::request(Op::Keys, 0).encode()[0], 12);
}

/// The proofs as PROTOCOL.md has them, as any other implementation computes them.
#[test]
fn the_proofs_are_as_written_down() {
    let keys = Keys::new(b"a secret of tests", 7, &[1; 48], &[2; 84]);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let auth = keys.auth(SessionId([3; 16]));
    assert_eq!(
        hex(&auth),
        "a12c2d300598fd7eb67bdebd5dc0ceecc27fb866c44b54371201f3be558b2e12c7b0cfc325bea11c7c9a20b906384ef3"
    );
    let told = HelloReply {
        version: 2,
        ..nothing()
    };
    assert_eq!(
        hex(&keys.reply(&auth, &told)[HelloReply::LEN..]),
        "d629dc550e15628c837f269806d9ae1bbdf404845a845a9801b41535c10934c9"
    );
}

fn nothing() -> HelloReply {
    HelloReply {
        version: 0,
        features: 0,
        slab_pages: 0,
        session: SessionId::NEW,
        instance: [0; 16],
        challenge: [0; 16],
        capacity_pages: 0,
        free_pages: 0,
    }
}

#[test]
fn a_request_has_no_status() {
    for op in Op::ALL {
        for status in Status::ALL.into_iter().filter(|s| *s != Status::Ok) {
            let request = Header {
                status,
                ..Header::request(op, 1)
            };
            let error = DecodeError::RequestStatus(status as u16);
            assert_eq!(Header::decode(&request.encode()), Err(error));
        }
    }
}
