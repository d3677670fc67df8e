use std::ffi::{c_char, c_int};

unsafe extern "C" {
    fn tmem_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
    fn tmem_memset(at: *mut u8, value: c_int, len: usize) -> *mut u8;
    fn tmem_memcmp(one: *const u8, other: *const u8, len: usize) -> c_int;
    fn tmem_strlen(text: *const c_char) -> usize;
}

const ROOM: usize = 3 * super::STRING;

/// Every length at which the code takes another way, and those beside it.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).chain(super::STRING - 70..super::STRING + 70)
}

fn bytes() -> Vec<u8> {
    (0..ROOM).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn blocks_are_moved_whatever_they_overlap() {
    for len in lengths() {
        for (from, to) in [
            (0, ROOM - len),
            (ROOM - len, 0),
            (7, 7),
            (0, 1),
            (1, 0),
            (3, 20),
            (20, 3),
            (65, 0),
            (0, 65),
            (len / 2, 0),
            (0, len / 2),
        ] {
            let mut expected = bytes();
            expected.copy_within(from..from + len, to);
            let mut got = bytes();
            let at = got.as_mut_ptr();
            // SAFETY: both blocks lie within the vector.
            let end = unsafe { tmem_memmove(at.add(to), at.add(from), len) };
            // SAFETY: within the vector.
            assert_eq!(end, unsafe { at.add(to) });
            assert_eq!(got, expected, "{len} bytes from {from} to {to}");
        }
    }
}

#[test]
fn blocks_are_filled_and_nothing_beside_them() {
    for len in lengths() {
        for at in [0, 1, 15, ROOM - len] {
            let mut expected = bytes();
            expected[at..at + len].fill(0xa5);
            let mut got = bytes();
            // SAFETY: the block lies within the vector. Only the low byte counts.
            unsafe { tmem_memset(got.as_mut_ptr().add(at), 0x7a5, len) };
            assert_eq!(got, expected, "{len} bytes at {at}");
        }
    }
}

#[test]
fn blocks_are_compared_by_the_first_byte_that_differs() {
    for len in lengths() {
        let one = bytes();
        let same = bytes();
        // SAFETY: each block lies within its vector.
        let got = unsafe { tmem_memcmp(one.as_ptr(), same.as_ptr(), len) };
        assert_eq!(got, 0, "{len} bytes");
        for at in [0, len / 2, len.saturating_sub(1), len] {
            let mut other = bytes();
            other[at] = other[at].wrapping_add(0x81);
            other[at + 1] = other[at + 1].wrapping_sub(1);
            let expected = one[..len].cmp(&other[..len]) as c_int;
            // SAFETY: as above.
            let got = unsafe { tmem_memcmp(one.as_ptr(), other.as_ptr(), len) };
            assert_eq!(got.signum(), expected, "{len} bytes, {at} differs");
        }
    }
}

#[test]
fn texts_are_measured() {
    for len in 0..40 {
        let mut text = vec![b'x'; len];
        text.push(0);
        // SAFETY: it ends with a zero.
        assert_eq!(unsafe { tmem_strlen(text.as_ptr().cast()) }, len);
    }
}
