//! The digest of a page. It shows the engine whether a page was changed since a server got
//! it, and whether a server returns what it was given.
//!
//! A wrong answer would mean wrong data, so the digest is a universal hash with a random
//! key for each program. Any two different pages have the same digest with a probability of
//! 2^-64 over the choice of the key, even if somebody who does not know the key has chosen
//! them. It is a sum of products of pairs of words in the field of 2^64 elements, which
//! carry-less multiplication makes fast (Lemire and Kaser, "Faster 64-bit universal hashing
//! using carry-less multiplications", Journal of Cryptographic Engineering, 2016). CPUs
//! without carry-less multiplication use products of integers: see [`by_integers`].
//!
//! A forked child has its parent's key, so the digests of the fork manifest are valid for
//! it.

use crate::sys::mem::{self, LINE};
use crate::sys::now_ns;
use alloc::boxed::Box;
use core::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_set_epi64x,
    _mm_setzero_si128, _mm_xor_si128, _mm512_castsi512_si128, _mm512_clmulepi64_epi128,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_xor_si512,
};
use core::fmt;
use rustix::rand::{GetRandomFlags, getrandom};
use tmem_wire::PAGE_SIZE;

/// Words of a page.
const WORDS: usize = PAGE_SIZE / 8;
/// x^64 = x^4 + x^3 + x + 1 in the field.
const FOLD: i64 = 0x1b;
/// Sums that are computed in parallel.
const LANES: usize = 4;

/// Words that fit in one call of `getrandom`, which returns up to 256 bytes as a whole.
const AT_ONCE: usize = 32;

/// The key. Integer products use all of its words, carry-less products half of them.
type Key = [u64; 2 * WORDS];

/// A way to compute digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// By products of integers.
    Integers,
    /// By carry-less products, one at a time.
    Narrow,
    /// By carry-less products, four at a time.
    Wide,
}

/// Computes digests, with a key and the best way for this CPU. Only digests of the same
/// digester can be compared. The key is aligned to a cache line, so that no read of it
/// crosses two lines.
#[repr(align(64))]
pub(crate) struct Digester {
    key: Key,
    way: Way,
}

impl fmt::Debug for Digester {
    /// Leaves out the key, which is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester")
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl Digester {
    /// Creates a digester with a random key. It is never freed, and a forked child goes on
    /// using it.
    pub(crate) fn draw() -> &'static Digester {
        Box::leak(Box::new(Digester {
            key: drawn_key(),
            way: best_way(),
        }))
    }

    /// Returns the digest of a page. Meanwhile prefetches the page at address `next`, if
    /// given. The digest of a page that was not used for long mostly waits for memory.
    pub(crate) fn digest(&self, page: &[u8; PAGE_SIZE], next: Option<usize>) -> u64 {
        let key = &self.key;
        match (self.way, next) {
            // SAFETY: the CPU has these instructions, or `best_way` would not have chosen
            // this.
            (Way::Wide, None) => unsafe { wide::<false>(key, page, 0) },
            // SAFETY: the CPU has these instructions, or `best_way` would not have chosen
            // this.
            (Way::Wide, Some(next)) => unsafe { wide::<true>(key, page, next) },
            (way, next) => {
                next.into_iter().for_each(mem::prefetch);
                match way {
                    // SAFETY: the CPU has these instructions, or `best_way` would not have
                    // chosen this.
                    Way::Narrow => unsafe { narrow(key, page) },
                    _ => by_integers(key, page),
                }
            }
        }
    }
}

/// Draws a key from the kernel's random numbers.
fn drawn_key() -> Key {
    let mut key = [0; 2 * WORDS];
    // Without the kernel's random numbers the digest is as good as any other hash.
    let mut state = now_ns();
    for words in key.chunks_mut(AT_ONCE) {
        let mut bytes = [0u8; AT_ONCE * 8];
        let drawn = getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK);
        let whole = drawn.is_ok_and(|n| n == bytes.len());
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            let random = u64::from_le_bytes(*bytes);
            *word = if whole { random } else { mixed(&mut state) };
        }
    }
    key
}

/// Returns the next number of SplitMix64 (Steele et al., OOPSLA 2014).
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Chooses the best way that this CPU has.
fn best_way() -> Way {
    // This part of the standard library only executes `cpuid`.
    extern crate std;
    let narrow = std::is_x86_feature_detected!("pclmulqdq");
    let wide =
        std::is_x86_feature_detected!("vpclmulqdq") && std::is_x86_feature_detected!("avx512f");
    match (narrow, wide) {
        (true, true) => Way::Wide,
        (true, false) => Way::Narrow,
        _ => Way::Integers,
    }
}

/// Multiplies four pairs of words at a time. With `AHEAD` prefetches the page at `next`.
#[target_feature(enable = "avx512f,pclmulqdq,vpclmulqdq")]
fn wide<const AHEAD: bool>(key: &Key, page: &[u8; PAGE_SIZE], next: usize) -> u64 {
    let mut line = next;
    let mut sums = [_mm512_setzero_si512(); LANES];
    let parts = page.as_chunks::<{ LANES * 64 }>().0.iter();
    for (part, key) in parts.zip(key.as_chunks::<{ LANES * 8 }>().0) {
        let both = part.as_chunks::<64>().0.iter().zip(key.as_chunks::<8>().0);
        for (sum, (words, key)) in sums.iter_mut().zip(both) {
            if AHEAD {
                mem::prefetch_line(line);
                line += LINE;
            }
            // SAFETY: 64 bytes each.
            let (words, key) = unsafe {
                let (words, key) = (words.as_ptr().cast(), key.as_ptr().cast());
                (_mm512_loadu_si512(words), _mm512_loadu_si512(key))
            };
            let both = _mm512_xor_si512(words, key);
            *sum = _mm512_xor_si512(*sum, _mm512_clmulepi64_epi128::<0x10>(both, both));
        }
    }
    let mut all = _mm512_setzero_si512();
    for sum in sums {
        all = _mm512_xor_si512(all, sum);
    }
    let mut sum = _mm512_castsi512_si128(all);
    for part in [
        _mm512_extracti32x4_epi32::<1>(all),
        _mm512_extracti32x4_epi32::<2>(all),
        _mm512_extracti32x4_epi32::<3>(all),
    ] {
        sum = _mm_xor_si128(sum, part);
    }
    reduced(sum)
}

/// Multiplies one pair of words at a time.
#[target_feature(enable = "pclmulqdq")]
fn narrow(key: &Key, page: &[u8; PAGE_SIZE]) -> u64 {
    let mut sums = [_mm_setzero_si128(); LANES];
    let parts = page.as_chunks::<{ LANES * 16 }>().0.iter();
    for (part, key) in parts.zip(key.as_chunks::<{ LANES * 2 }>().0) {
        let both = part.as_chunks::<16>().0.iter().zip(key.as_chunks::<2>().0);
        for (sum, (words, key)) in sums.iter_mut().zip(both) {
            // SAFETY: 16 bytes each.
            let (words, key) = unsafe {
                let (words, key) = (words.as_ptr().cast(), key.as_ptr().cast());
                (_mm_loadu_si128(words), _mm_loadu_si128(key))
            };
            let both = _mm_xor_si128(words, key);
            *sum = _mm_xor_si128(*sum, _mm_clmulepi64_si128::<0x10>(both, both));
        }
    }
    let mut all = _mm_setzero_si128();
    for sum in sums {
        all = _mm_xor_si128(all, sum);
    }
    reduced(all)
}

/// Reduces a polynomial to an element of the field.
#[target_feature(enable = "pclmulqdq")]
fn reduced(sum: __m128i) -> u64 {
    let fold = _mm_set_epi64x(0, FOLD);
    let once = _mm_clmulepi64_si128::<0x01>(sum, fold);
    // The part above 64 bits is now smaller than the reduction polynomial.
    let twice = _mm_clmulepi64_si128::<0x01>(once, fold);
    let all = _mm_xor_si128(sum, _mm_xor_si128(once, twice));
    _mm_cvtsi128_si64(all).cast_unsigned()
}

/// Sums up the words, each multiplied by a 128-bit number, and drops the lower half. As
/// good as carry-less products, but slower ("Multilinear" in Lemire and Kaser, "Strongly
/// universal string hashing is fast", The Computer Journal, 2014).
fn by_integers(key: &Key, page: &[u8; PAGE_SIZE]) -> u64 {
    let words = page.as_chunks::<8>().0.iter();
    let sum = words
        .zip(key.as_chunks::<2>().0)
        .fold(0u128, |sum, (word, key)| {
            let factor = u128::from(key[0]) | u128::from(key[1]) << 64;
            sum.wrapping_add(factor.wrapping_mul(u64::from_le_bytes(*word).into()))
        });
    (sum >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Computes a product in the field bit by bit.
    fn product(mut a: u64, b: u64) -> u64 {
        let mut sum = 0;
        for bit in 0..64 {
            if b >> bit & 1 != 0 {
                sum ^= a;
            }
            let carry = a >> 63;
            a = (a << 1) ^ (carry * FOLD.cast_unsigned());
        }
        sum
    }

    fn by_definition(key: &Key, page: &[u8; PAGE_SIZE]) -> u64 {
        let words: Vec<u64> = page
            .as_chunks::<8>()
            .0
            .iter()
            .zip(key)
            .map(|(word, key)| u64::from_le_bytes(*word) ^ key)
            .collect();
        let pairs = words.as_chunks::<2>().0;
        pairs.iter().fold(0, |sum, [a, b]| sum ^ product(*a, *b))
    }

    fn numbers(mut seed: u64) -> Box<Key> {
        Box::new(core::array::from_fn(|_| mixed(&mut seed)))
    }

    /// Returns the digests of all ways that this CPU has.
    fn ways(key: &Key, page: &[u8; PAGE_SIZE]) -> Vec<u64> {
        let mut all = std::vec![by_integers(key, page)];
        if best_way() >= Way::Narrow {
            // SAFETY: the CPU has these instructions.
            all.push(unsafe { narrow(key, page) });
        }
        if best_way() >= Way::Wide {
            // SAFETY: the CPU has these instructions.
            all.push(unsafe { wide::<false>(key, page, 0) });
            // SAFETY: the CPU has these instructions.
            all.push(unsafe { wide::<true>(key, page, 0) });
        }
        all
    }

    proptest! {
        #[test]
        fn it_is_a_sum_of_products_in_the_field(key: u64, page: u64) {
            let (key, numbers) = (numbers(key), numbers(page));
            let mut page = [0; PAGE_SIZE];
            for (bytes, number) in page.as_chunks_mut().0.iter_mut().zip(*numbers) {
                *bytes = number.to_le_bytes();
            }
            let all = ways(&key, &page);
            prop_assert!(all[1..].iter().all(|d| *d == by_definition(&key, &page)));
        }

        #[test]
        fn whatever_changes_a_page_changes_its_digest(
            key: u64, byte: u8, at in 0..PAGE_SIZE, bits in 1..=255u8, other in 0..WORDS,
        ) {
            let key = numbers(key);
            let page = [byte; PAGE_SIZE];
            let mut changed = page;
            changed[at] ^= bits;
            let (one, two) = (ways(&key, &page), ways(&key, &changed));
            prop_assert!(one.iter().zip(&two).all(|(a, b)| a != b));
            // The same change at another place gives another digest.
            if other != at / 8 {
                let mut moved = page;
                moved[other * 8 + at % 8] ^= bits;
                let three = ways(&key, &moved);
                prop_assert!(two.iter().zip(&three).all(|(a, b)| a != b));
            }
        }
    }

    #[test]
    fn each_key_gives_other_digests() {
        let page = [7; PAGE_SIZE];
        let one = Digester::draw();
        let digest = one.digest(&page, None);
        assert_eq!(digest, one.digest(&page, Some(0)));
        assert_ne!(digest, Digester::draw().digest(&page, None));
    }
}
