//! Which pages a program used, one after the other, as a file.
//!
//! The file begins with [`MAGIC`]. Then each entry is a number in groups of
//! seven bits, the lowest first, each but the last with its top bit set: bit 0
//! says whether the page was written, the others are the distance from the page
//! before (at first from page 0), zigzag-coded so that small distances either way
//! are small numbers.

use crate::Error;
use std::io::{BufRead, Write};

/// What a file of this format begins with.
pub const MAGIC: &[u8; 8] = b"tmemtrc1";

/// Writes entries.
pub struct Recorder<W: Write> {
    out: W,
    /// The page of the entry before.
    last: u64,
    /// What is used now, and whether it was written.
    now: Option<(u64, bool)>,
    entries: u64,
}

impl<W: Write> Recorder<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut out: W) -> Result<Recorder<W>, Error> {
        out.write_all(MAGIC).map_err(Error::io("write trace"))?;
        Ok(Recorder {
            out,
            last: 0,
            now: None,
            entries: 0,
        })
    }

    /// A page is used. Uses of one page in a row become one entry.
    ///
    /// # Errors
    /// As for [`Recorder::new`].
    pub fn used(&mut self, page: u64, write: bool) -> Result<(), Error> {
        match &mut self.now {
            Some((now, written)) if *now == page => *written |= write,
            _ => {
                self.flush()?;
                self.now = Some((page, write));
            }
        }
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries + u64::from(self.now.is_some())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As for [`Recorder::new`].
    pub fn finish(mut self) -> Result<W, Error> {
        self.flush()?;
        self.out.flush().map_err(Error::io("write trace"))?;
        Ok(self.out)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let Some((page, write)) = self.now.take() else {
            return Ok(());
        };
        let delta = page.wrapping_sub(self.last) as i64;
        let zigzag = (delta << 1 ^ delta >> 63) as u64;
        let mut code = zigzag << 1 | u64::from(write);
        self.last = page;
        self.entries += 1;
        let (mut bytes, mut len) = ([0; 10], 0);
        loop {
            bytes[len] = (code & 0x7f) as u8 | if code > 0x7f { 0x80 } else { 0 };
            len += 1;
            code >>= 7;
            if code == 0 {
                break;
            }
        }
        let bytes = &bytes[..len];
        self.out.write_all(bytes).map_err(Error::io("write trace"))
    }
}

/// A trace in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// What is used, in order. Neighbouring pages have neighbouring numbers, and
    /// wherever pages are missing one number is: all are below `limit`.
    pub pages: Vec<u32>,
    /// The largest number plus 1.
    pub limit: u32,
    /// How many different pages there are.
    pub distinct: usize,
    /// Entries that wrote.
    pub writes: u64,
}

impl Trace {
    /// From the numbers of pages, in order of their use.
    pub fn new(used: &[u64]) -> Trace {
        let mut known: Vec<u64> = used.to_vec();
        known.sort_unstable();
        known.dedup();
        let numbers = numbers(&known);
        let number = |page: &u64| known.binary_search(page).map_or(0, |at| numbers[at]);
        Trace {
            pages: used.iter().map(number).collect(),
            limit: numbers.last().map_or(0, |n| n + 1),
            distinct: known.len(),
            writes: 0,
        }
    }

    /// Reads a file, at most `most` entries of it.
    ///
    /// # Errors
    /// It cannot be read, or is no trace.
    pub fn read(mut input: impl BufRead, most: usize) -> Result<Trace, Error> {
        let mut magic = [0; MAGIC.len()];
        let read = input.read_exact(&mut magic);
        read.map_err(Error::io("read trace"))?;
        if magic != *MAGIC {
            return Err(Error::Trace("does not begin like a trace"));
        }
        // Numbered by order of appearance first; the place of each page among the
        // others shows at the end.
        let mut seen = std::collections::HashMap::new();
        let mut known: Vec<u64> = Vec::new();
        let mut trace = Trace::default();
        let mut last = 0u64;
        while trace.pages.len() < most {
            let Some(code) = code(&mut input)? else { break };
            trace.writes += code & 1;
            let zigzag = code >> 1;
            last = last.wrapping_add(zigzag >> 1 ^ (zigzag & 1).wrapping_neg());
            let number = *seen.entry(last).or_insert_with(|| {
                known.push(last);
                known.len() as u32 - 1
            });
            trace.pages.push(number);
        }
        let mut order: Vec<usize> = (0..known.len()).collect();
        order.sort_unstable_by_key(|at| known[*at]);
        let sorted: Vec<u64> = order.iter().map(|at| known[*at]).collect();
        let mut final_number = vec![0; known.len()];
        for (number, at) in numbers(&sorted).into_iter().zip(&order) {
            final_number[*at] = number;
            trace.limit = number + 1;
        }
        for page in &mut trace.pages {
            *page = final_number[*page as usize];
        }
        trace.distinct = known.len();
        Ok(trace)
    }
}

/// The numbers that pages get, which are given in order.
fn numbers(sorted: &[u64]) -> Vec<u32> {
    let mut next = 0;
    let mut before = None;
    let number = |page: &u64| {
        let gap = before.is_some_and(|before| before + 1 != *page);
        before = Some(*page);
        next += 1 + u32::from(gap);
        next - 1
    };
    sorted.iter().map(number).collect()
}

/// The next number of a file; none at its end.
fn code(input: &mut impl BufRead) -> Result<Option<u64>, Error> {
    let (mut code, mut shift) = (0u64, 0);
    loop {
        let buffer = input.fill_buf().map_err(Error::io("read trace"))?;
        let Some(&byte) = buffer.first() else {
            return match shift {
                0 => Ok(None),
                _ => Err(Error::Trace("ends within an entry")),
            };
        };
        input.consume(1);
        if shift > 63 {
            return Err(Error::Trace("has an entry that is too long"));
        }
        code |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Ok(Some(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded(used: &[(u64, bool)]) -> Vec<u8> {
        let mut recorder = Recorder::new(Vec::new()).unwrap();
        for &(page, write) in used {
            recorder.used(page, write).unwrap();
        }
        recorder.finish().unwrap()
    }

    #[test]
    fn uses_in_a_row_are_one_entry_that_wrote_if_any_did() {
        let file = recorded(&[(7, false), (7, true), (9, false), (8, false), (7, false)]);
        let trace = Trace::read(&file[..], usize::MAX).unwrap();
        assert_eq!(trace.pages, [0, 2, 1, 0]);
        assert_eq!((trace.writes, trace.distinct, trace.limit), (1, 3, 3));
    }

    #[test]
    fn neighbours_stay_neighbours_and_gaps_stay_gaps() {
        let trace = Trace::new(&[5000, 10, 11, 4999, 700]);
        assert_eq!(trace.pages, [6, 0, 1, 5, 3]);
    }

    #[test]
    fn a_file_that_is_cut_or_something_else_is_refused() {
        let file = recorded(&[(1 << 30, false)]);
        assert!(Trace::read(&file[..file.len() - 1], 9).is_err());
        assert!(Trace::read(&b"something"[..], 9).is_err());
        assert_eq!(Trace::read(&file[..8], 9).unwrap(), Trace::default());
    }

    proptest! {
        #[test]
        fn what_was_recorded_is_read(used in prop::collection::vec((0u64..1 << 52, any::<bool>()), 0..50)) {
            let mut used = used;
            used.dedup_by_key(|u| u.0);
            let pages: Vec<u64> = used.iter().map(|u| u.0).collect();
            let writes = used.iter().filter(|u| u.1).count() as u64;
            let read = Trace::read(&recorded(&used)[..], usize::MAX).unwrap();
            prop_assert_eq!(read, Trace { writes, ..Trace::new(&pages) });
        }
    }
}
