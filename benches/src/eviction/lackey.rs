//! Makes a trace of what valgrind's `lackey` prints of a program.
//!
//! Only memory that tmem would page counts: the break, and private anonymous
//! mappings of 64 KiB or more that were not put into a certain place, as those
//! of shared objects and of stacks are. Lines about system calls say where that
//! is. Left out as well, for want of such lines: the executable's `.bss`.

use super::trace::Recorder;
use crate::Error;
use std::io::{BufRead, Write};
use tmem_wire::PAGE_SIZE;

/// Pages of the address space that valgrind gives to programs.
const PAGES: usize = 1 << 25;

/// The smallest mapping that the engine adopts, in bytes.
const SMALLEST: u64 = 64 << 10;

const MAP_PRIVATE: u64 = 0x02;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;

/// Reads `input` to its end and records up to `most` entries.
///
/// # Errors
/// `input` cannot be read or `out` not written.
pub fn record<W: Write>(
    mut input: impl BufRead,
    most: u64,
    out: &mut Recorder<W>,
) -> Result<(), Error> {
    let mut memory = Memory::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        if read.map_err(Error::io("read valgrind's lines"))? == 0 {
            return Ok(());
        }
        match line[..] {
            // Instructions.
            [b'I', ..] => {}
            [b' ', kind @ (b'L' | b'S' | b'M'), b' ', ref rest @ ..] => {
                let page = hex(rest) / PAGE_SIZE as u64;
                // What comes beyond is read all the same: the program is to end
                // by itself.
                if memory.counts(page) && out.entries() < most {
                    out.used(page, kind != b'L')?;
                }
            }
            [b'S', ..] => memory.follow(&String::from_utf8_lossy(&line)),
            _ => {}
        }
    }
}

/// The number that text begins with.
fn hex(text: &[u8]) -> u64 {
    let digits = text.iter().map_while(|c| (*c as char).to_digit(16));
    digits.fold(0, |n, digit| n << 4 | u64::from(digit))
}

/// What of the address space counts.
struct Memory {
    /// A bit for each page.
    counts: Vec<u64>,
    /// Where the break began, and where it ends.
    brk: Option<(u64, u64)>,
}

impl Memory {
    fn new() -> Memory {
        Memory {
            counts: vec![0; PAGES / 64],
            brk: None,
        }
    }

    fn counts(&self, page: u64) -> bool {
        let word = self.counts.get((page / 64) as usize);
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    fn set(&mut self, start: u64, len: u64, on: bool) {
        let page = PAGE_SIZE as u64;
        for page in start / page..(start.saturating_add(len).div_ceil(page)).min(PAGES as u64) {
            let bit = 1 << (page % 64);
            let word = &mut self.counts[(page / 64) as usize];
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    /// Follows a line such as
    /// `SYSCALL[1,1](9) sys_mmap ( 0x0, 8192, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x4835000)`.
    fn follow(&mut self, line: &str) {
        let Some((call, result)) = line.split_once("--> ") else {
            return;
        };
        let Some((_, result)) = result.split_once("Success(0x") else {
            return;
        };
        let result = hex(result.as_bytes());
        let Some((name, args)) = call.split_once('(').and_then(|(_, c)| c.split_once(" ( ")) else {
            return;
        };
        let number = |text: &str| match text.trim().strip_prefix("0x") {
            Some(digits) => hex(digits.as_bytes()),
            None => text.trim().parse().unwrap_or(0),
        };
        let args = args.trim_end().trim_end_matches(')').split(',');
        let args: Vec<u64> = args.map(number).collect();
        let name = name.rsplit(' ').next();
        match (name, &args[..]) {
            (Some("sys_brk"), _) => {
                let (start, end) = *self.brk.get_or_insert((result, result));
                self.set(start, end - start, false);
                self.brk = Some((start, result.max(start)));
                self.set(start, result.saturating_sub(start), true);
            }
            (Some("sys_mmap"), &[_, len, _, flags, ..]) => {
                let kind = flags & (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
                let on = kind == MAP_PRIVATE | MAP_ANONYMOUS && len >= SMALLEST;
                self.set(result, len, on);
            }
            (Some("sys_munmap"), &[start, len, ..]) => self.set(start, len, false),
            (Some("sys_mremap"), &[start, old, new, ..]) => {
                let on = self.counts(start / PAGE_SIZE as u64);
                self.set(start, old, false);
                self.set(result, new, on);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::Trace;
    use super::*;

    fn traced(lines: &str, most: u64) -> Vec<u8> {
        let mut recorder = Recorder::new(Vec::new()).unwrap();
        record(lines.as_bytes(), most, &mut recorder).unwrap();
        recorder.finish().unwrap()
    }

    const LINES: &str = "\
==1== Lackey, an example Valgrind tool
SYSCALL[1,1](12) sys_brk ( 0x0 ) --> [pre-success] Success(0x4035000)
 S 04035008,8
SYSCALL[1,1](12) sys_brk ( 0x4056000 ) --> [pre-success] Success(0x4056000)
SYSCALL[1,1](9) sys_mmap ( 0x0, 2097152, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x5000000)
SYSCALL[1,1](9) sys_mmap ( 0x0, 2097152, 3, 2, 3, 0 ) --> [pre-success] Success(0x6000000)
SYSCALL[1,1](9) sys_mmap ( 0x0, 8192, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x7000000)
I  04035000,3
 S 04035008,8
 L 04035ff8,8
 L 1fff000758,8
 L 06000000,8
 L 07000000,8
 M 05000000,8
 L 05001000,8
SYSCALL[1,1](25) sys_mremap ( 0x5000000, 2097152, 4194304, 0x1, 0x0 ) --> [pre-success] Success(0x9000000)
 L 05000000,8
 L 09300000,8
SYSCALL[1,1](11) sys_munmap ( 0x9000000, 4194304 )[sync] --> Success(0x0)
 L 09300000,8
 L 04055000,8
";

    #[test]
    fn what_tmem_would_page_is_recorded_and_nothing_else() {
        let trace = Trace::read(&traced(LINES, 99)[..], 99).unwrap();
        let pages = [0x4035, 0x5000, 0x5001, 0x9300, 0x4055];
        assert_eq!(
            trace,
            Trace {
                writes: 2,
                ..Trace::new(&pages)
            }
        );
    }

    #[test]
    fn nothing_is_recorded_beyond_the_most() {
        let trace = Trace::read(&traced(LINES, 2)[..], 99).unwrap();
        assert_eq!(trace.pages.len(), 2);
    }
}
