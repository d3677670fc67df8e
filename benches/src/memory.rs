//! A large piece of memory, and what it costs to read it.

use std::time::Instant;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Words of a page.
pub(crate) const WORDS: usize = PAGE / 8;
/// Words of a page that are noise. The rest repeats a few of them, as the
/// fields of records do, so that compressors get a page to some 40 %: kinder to
/// compressed swap than noise would be, and not as kind as zeros.
const NOISE: usize = WORDS * 3 / 8;

/// What one measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Bytes read per second, in units of 10^9.
    pub gb_per_s: f64,
    /// Nanoseconds per access: of a page in order, of a word at random.
    pub ns_per_access: f64,
}

/// The memory.
pub struct Memory(Vec<u64>);

/// Noise: another evenly spread number for each number.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What [`Memory::filled`] writes to a word of a page.
pub(crate) fn word(page: usize, at: usize) -> u64 {
    let at = if at < NOISE { at } else { at % 8 };
    mix((page * WORDS + at) as u64)
}

impl Memory {
    /// `bytes` of memory, filled.
    pub fn filled(bytes: usize) -> Memory {
        let pages = bytes / PAGE;
        let mut words = Vec::with_capacity(pages * WORDS);
        for page in 0..pages {
            words.extend((0..WORDS).map(|at| word(page, at)));
        }
        Memory(words)
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.0.len() / WORDS
    }

    /// The words of a page.
    pub(crate) fn page(&self, page: usize) -> &[u64] {
        &self.0[page * WORDS..][..WORDS]
    }

    /// The words of a page.
    pub(crate) fn page_mut(&mut self, page: usize) -> &mut [u64] {
        &mut self.0[page * WORDS..][..WORDS]
    }

    /// Reads all of it in order, `passes` times.
    ///
    /// # Errors
    /// A message when a page is not what was written.
    pub fn read_in_order(&self, passes: usize) -> Result<Measured, String> {
        let start = Instant::now();
        for _ in 0..passes {
            for (page, words) in self.0.chunks_exact(WORDS).enumerate() {
                let sum = words.iter().fold(0u64, |sum, w| sum.wrapping_add(*w));
                // Looking at the sum keeps the reads; the words prove the page.
                if words[1] != word(page, 1) || sum == 0 {
                    return Err(format!("page {page} is not what was written"));
                }
            }
        }
        let pages = passes * self.0.len() / WORDS;
        Ok(Measured::of(pages * PAGE, pages, start))
    }

    /// Reads `accesses` words at random places; `seed` chooses them.
    ///
    /// # Errors
    /// A message when a word is not what was written.
    pub fn read_at_random(&self, accesses: usize, seed: u64) -> Result<Measured, String> {
        let start = Instant::now();
        for n in 0..accesses {
            let at = mix(seed.wrapping_add(n as u64)) as usize % self.0.len();
            if self.0[at] != word(at / WORDS, at % WORDS) {
                return Err(format!("word {at} is not what was written"));
            }
        }
        Ok(Measured::of(accesses * 8, accesses, start))
    }
}

impl Measured {
    fn of(bytes: usize, accesses: usize, start: Instant) -> Measured {
        let ns = start.elapsed().as_nanos() as f64;
        Measured {
            gb_per_s: bytes as f64 / ns,
            ns_per_access: ns / accesses as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_is_read() {
        let memory = Memory::filled(64 * PAGE);
        assert!(memory.read_in_order(2).is_ok());
        assert!(memory.read_at_random(1000, 1).is_ok());
    }

    #[test]
    fn a_changed_word_is_found() {
        let mut memory = Memory::filled(4 * PAGE);
        memory.0[WORDS + 1] ^= 1;
        assert!(memory.read_in_order(1).is_err());
        assert!(memory.read_at_random(100_000, 1).is_err());
    }
}
