//! A large piece of memory with known contents.

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Words of a page.
pub(crate) const WORDS: usize = PAGE / 8;
/// Words of a page that are noise. The rest repeats a few of them, as the fields of records do,
/// so that compressors reduce a page to some 40 %: easier for compressed swap than noise, and
/// harder than zeros.
const NOISE: usize = WORDS * 3 / 8;

/// The memory.
pub struct Memory(Vec<u64>);

/// A hash: evenly distributed numbers, one for each number.
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

    /// Its addresses.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let words = self.0.as_ptr_range();
        words.start as usize..words.end as usize
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
}
