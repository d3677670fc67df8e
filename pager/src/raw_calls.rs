//! Finds out which system calls machine code makes by its own instructions, without the C
//! library.
//!
//! Each `syscall` instruction contains the bytes 0F 05, so a search for them misses none.
//! At most places where these bytes are found they are part of another instruction. To
//! tell, the function is decoded from its start, which the unwind tables that compilers
//! write for each function give (`.eh_frame_hdr`). Then the number of the call is looked
//! for: a constant that is moved into `rax`, perhaps through other registers.
//!
//! Where anything is uncertain the code counts as making any call ([`Calls::ANY`]). Data
//! between two functions is not code, unless there is so much of it that a compiler without
//! unwind tables, such as Go's, may have put code there.

mod flow;
#[cfg(test)]
mod tests;

use alloc::vec;
use core::ops::Range;
use flow::{function_makes, is_code};

/// `syscall`, and `sysenter` and `int 0x80`, which make the calls of 32-bit programs.
const PATTERNS: [[u8; 2]; 3] = [[0x0f, 0x05], [0x0f, 0x34], [0xcd, 0x80]];
/// The longest function that is decoded, in bytes.
const LONGEST: u64 = 1 << 18;
/// Data of this many bytes, decoded as code, contains an instruction that no program can
/// execute.
const SAMPLE: u64 = 256;

/// The system calls that matter, and whether code may make them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Calls that lend pages, or set up what can lend pages.
    pub(crate) lend: bool,
    /// Calls that give advice on memory, and so change what forked children have of it.
    pub(crate) advise: bool,
}

impl Calls {
    /// Any call: nothing is known.
    pub(crate) const ANY: Calls = Calls {
        lend: true,
        advise: true,
    };
    /// None of these calls.
    pub(crate) const NONE: Calls = Calls {
        lend: false,
        advise: false,
    };
    /// `setsockopt`, `vmsplice`, `io_uring_setup`.
    const LENDING: [u32; 3] = [54, 278, 425];
    /// `madvise`, `process_madvise`.
    const ADVISING: [u32; 2] = [28, 440];

    /// Returns the kind of a system call, by its number.
    fn of(number: u32) -> Calls {
        Calls {
            lend: Self::LENDING.contains(&number),
            advise: Self::ADVISING.contains(&number),
        }
    }

    /// Returns the calls that either of two pieces of code may make.
    pub(crate) fn and(self, other: Calls) -> Calls {
        Calls {
            lend: self.lend || other.lend,
            advise: self.advise || other.advise,
        }
    }
}

/// Memory that holds code.
pub(crate) trait Memory {
    /// Fills `out` with the bytes at `at`. Returns false if not all of them can be read.
    fn read(&self, at: u64, out: &mut [u8]) -> bool;
}

fn array<const N: usize>(memory: &impl Memory, at: u64) -> Option<[u8; N]> {
    let mut out = [0; N];
    memory.read(at, &mut out).then_some(out)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Decodes an address that is stored at `at` of `bytes` as a signed distance from `from`.
fn relative(bytes: &[u8], at: usize, from: u64) -> Option<u64> {
    let distance = u32_at(bytes, at)?.cast_signed();
    Some(from.wrapping_add_signed(i64::from(distance)))
}

/// The table of an object's functions: its `.eh_frame_hdr`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    header: u64,
    count: u64,
}

/// What is at an address.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Function(Range<u64>),
    /// Bytes between two functions, before the first, or after the last.
    Between(Range<u64>),
}

impl Functions {
    /// Finds the table of the object whose ELF header is at `base`. Returns `None` if it
    /// has no table of the usual form.
    pub(crate) fn of(memory: &impl Memory, base: u64) -> Option<Functions> {
        const LOAD: u32 = 1;
        const EH_FRAME: u32 = 0x6474_e550;
        const HEADER: usize = 56;
        let elf: [u8; 64] = array(memory, base)?;
        let size = usize::from(u16::from_le_bytes([elf[54], elf[55]]));
        let count = usize::from(u16::from_le_bytes([elf[56], elf[57]]));
        if elf[..4] != *b"\x7fELF" || size != HEADER {
            return None;
        }
        let mut headers = vec![0; HEADER * count];
        if !memory.read(base.wrapping_add(u64_at(&elf, 32)?), &mut headers) {
            return None;
        }
        let of_kind = |kind| {
            let mut all = headers.chunks_exact(HEADER);
            all.find(|h| u32_at(h, 0) == Some(kind))
        };
        let bias = base.wrapping_sub(u64_at(of_kind(LOAD)?, 16)? & !0xfff);
        let header = bias.wrapping_add(u64_at(of_kind(EH_FRAME)?, 16)?);
        let table: [u8; 12] = array(memory, header)?;
        // Version 1, and the usual encodings of pointers: four bytes, relative to
        // themselves, absolute, and relative to the table.
        let usual = table[..4] == [1, 0x1b, 0x03, 0x3b];
        let count = u64::from(u32_at(&table, 8)?);
        (usual && count > 0).then_some(Functions { header, count })
    }

    /// Returns the start of the function `index`, and its entry in `.eh_frame`.
    fn entry(&self, memory: &impl Memory, index: u64) -> Option<(u64, u64)> {
        let entry: [u8; 8] = array(memory, self.header + 12 + index * 8)?;
        let start = relative(&entry, 0, self.header)?;
        Some((start, relative(&entry, 4, self.header)?))
    }

    fn place(&self, memory: &impl Memory, at: u64) -> Option<Place> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(memory, middle)?.0 <= at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let next = if low < self.count {
            self.entry(memory, low)?.0
        } else {
            u64::MAX
        };
        if low == 0 {
            return Some(Place::Between(0..next));
        }
        let (start, entry) = self.entry(memory, low - 1)?;
        let description: [u8; 16] = array(memory, entry)?;
        if relative(&description, 8, entry + 8)? != start {
            return None;
        }
        let end = start + u64::from(u32_at(&description, 12)?);
        Some(if at < end {
            Place::Function(start..end)
        } else {
            Place::Between(end..next)
        })
    }
}

/// Finds the addresses in `code`, which begins at `start`, where a system call instruction
/// may be.
pub(crate) fn candidates(code: &[u8], start: u64) -> impl Iterator<Item = u64> + '_ {
    let is_call = |pair: &[u8]| PATTERNS.iter().any(|pattern| pattern == pair);
    let pairs = code.windows(2).enumerate();
    pairs.filter_map(move |(at, pair)| is_call(pair).then_some(start + at as u64))
}

/// Returns the calls that the instruction at `at` may make. `at` is one of the
/// [`candidates`] of `mapping`.
pub(crate) fn calls(
    memory: &impl Memory,
    functions: Option<&Functions>,
    mapping: &Range<u64>,
    at: u64,
) -> Calls {
    let certain = match functions.and_then(|functions| functions.place(memory, at)) {
        Some(Place::Function(range)) if range.end - range.start <= LONGEST => {
            let mut code = vec![0; (range.end - range.start) as usize];
            let is_read = memory.read(range.start, &mut code);
            is_read.then(|| function_makes(&code, range.start, at))
        }
        Some(Place::Between(gap)) => {
            let end = gap.end.min(mapping.end).min(at + SAMPLE);
            let mut code = vec![0; (end - at) as usize];
            let is_data = memory.read(at, &mut code) && !is_code(&code);
            is_data.then_some(Calls::NONE)
        }
        _ => None,
    };
    certain.unwrap_or(Calls::ANY)
}
