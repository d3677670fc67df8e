//! Any bytes are refused, or are the payload that encodes to them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_wire::{
    Hello, HelloReply, ServerStats, SlabKey, auth, decode_slab_list, encode_slab_list, unpack,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(&hello.encode()[..], bytes);
    }
    if let Ok(reply) = HelloReply::decode(bytes) {
        assert_eq!(&reply.encode()[..], bytes);
    }
    if let Ok(key) = SlabKey::decode(bytes) {
        assert_eq!(&key.encode()[..], bytes);
    }
    if let Ok(stats) = ServerStats::decode(bytes) {
        assert_eq!(&stats.encode()[..], &bytes[..ServerStats::LEN]);
    }
    if let Ok(list) = decode_slab_list(bytes) {
        assert_eq!(encode_slab_list(&list), bytes);
    }
    for count in 0..4 {
        let mut pages = 0;
        if unpack(bytes, count, |_, _| pages += 1).is_ok() {
            assert_eq!(pages, count);
        }
    }
    let keys = auth::Keys::new(b"secret", 0, &[0; 48], &[0; 84]);
    assert_eq!(keys.session(bytes), None);
    assert_eq!(keys.told(&[], bytes), None);
});
