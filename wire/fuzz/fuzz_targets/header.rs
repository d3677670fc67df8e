//! Any 32 bytes are refused, or are the header that encodes to them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_wire::{HEADER_LEN, Header, MAX_CONTROL, MAX_RUN, PAGE_SIZE};

fuzz_target!(|bytes: [u8; HEADER_LEN]| {
    if let Ok(header) = Header::decode(&bytes) {
        assert_eq!(header.encode(), bytes);
        assert!(header.len <= MAX_CONTROL.max(MAX_RUN * PAGE_SIZE as u32));
    }
});
