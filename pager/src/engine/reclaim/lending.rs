//! Detects lent pages: pages that the kernel may still show to others after they have left
//! the program.
//!
//! `vmsplice`, `MSG_ZEROCOPY` and the zero-copy sends of io_uring lend pages of the program
//! to a pipe or a socket: the kernel takes a reference, but does not pin the page.
//! `UFFDIO_MOVE` refuses only pinned pages. So a lent page becomes a frame of the pool
//! while the pipe or socket still shows its memory. Whatever is written to the frame next
//! would come out there instead of the program's bytes.
//!
//! User space cannot see such references. So from the first call on that can lend pages, a
//! frame that a page was moved into is never written. Its memory goes back to the kernel,
//! which keeps it for as long as it is shown, and the next page gets fresh memory. That
//! costs about 1 µs a page. For programs that lend nothing it would make reading in order
//! nearly twice as slow.
//!
//! The order makes this safe. A thread announces that it is about to lend, before its call.
//! The engine checks after a move and before the frame can be written. A page that was lent
//! before the move was announced by then, and a page that was moved cannot be lent.
//!
//! The shim sees calls that go through the C library. To find other calls, the engine
//! searches the code of the program and of its shared objects ([`crate::raw_calls`]). All
//! pages count as lent until all code was searched, and for good once a call was found that
//! may lend. They also do for a second after the program was about to load code. Code that
//! the program writes itself (with a just-in-time compiler) is not searched.
//!
//! The same search tells whether the program may give advice on memory past the shim. If
//! so, the engine asks the kernel at each fork which memory the child finds wiped
//! (`calls::advice`).

pub use crate::engine::calls::lent_pages::keep_in_place;
use crate::engine::kernel::Process;
use crate::engine::memory::Memory;
use crate::engine::memory::report::INFO;
use crate::engine::threads::THREADS;
use crate::maps::{self, Mapping};
use crate::raw_calls::{self, Calls, Functions, Memory as ReadMemory};
use crate::sys::now_ns;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// How long after the announcement newly loaded code may be mapped.
const LOADING_NS: u64 = 1_000_000_000;
/// Pause after reading the list of mappings, in multiples of the time that it took. The
/// list may have tens of thousands of lines.
const PAUSE_PER_LISTING: u64 = 64;
/// Bytes of code to search before faults are looked at again.
const PIECE: u64 = 64 << 10;
/// File names of the C library, whose functions the shim sees.
const C_LIBRARY: [&[u8]; 4] = [b"libc.so.6", b"ld-linux-x86-64.so.2", b"libc-2.", b"ld-2."];

/// Announces that the program is about to make a call that can lend pages to the kernel.
/// Called by threads of the program, also in signal handlers.
pub fn begin() {
    THREADS.lending.lent.store(true, SeqCst);
}

/// Announces that the program may give advice on memory past the shim. Called by threads of
/// the program.
pub fn advises() {
    THREADS.lending.advised.store(true, SeqCst);
}

/// Announces that the program is about to load code, which may lend pages at once. Called
/// by threads of the program.
pub fn loads() {
    THREADS.lending.loaded_ns.fetch_max(now_ns(), SeqCst);
}

/// What is known of the program's code.
#[derive(Debug, Default)]
pub(crate) struct LendingWatch {
    /// Pages of address space when mappings were last listed.
    size: Option<u64>,
    /// Mappings of code in the last list.
    listed: Vec<Range<u64>>,
    /// Code that is still to be searched.
    left: Vec<Code>,
    /// A digest of `listed` and of the files that are mapped.
    digest: u64,
    /// When mappings were last listed, and the earliest time of the next list unless code
    /// is being loaded.
    listed_ns: u64,
    next_ns: u64,
}

impl LendingWatch {
    /// Tells whether mappings were never listed.
    pub(crate) fn are_unknown(&self) -> bool {
        self.size.is_none()
    }

    /// Returns the time by which code is mapped that the program was about to load, unless
    /// mappings were listed since.
    fn loads_until(&self) -> Option<u64> {
        match THREADS.lending.loaded_ns.load(SeqCst) {
            0 => None,
            at => Some(at + LOADING_NS).filter(|until| self.listed_ns < *until),
        }
    }
}

/// A mapping of code.
#[derive(Debug)]
struct Code {
    range: Range<u64>,
    /// Address of the ELF header of its file.
    base: u64,
    name: String,
    /// Where the search goes on.
    at: u64,
}

impl LendingWatch {
    /// Tells whether a page that was just moved may have been lent before.
    pub(crate) fn has_lent(&self) -> bool {
        THREADS.lending.lent.load(SeqCst) || self.has_code_to_search()
    }

    /// Tells whether the program may have given advice on memory past the shim.
    pub(crate) fn may_be_advised_unseen(&self) -> bool {
        THREADS.lending.advised.load(SeqCst) || self.has_code_to_search()
    }

    fn has_code_to_search(&self) -> bool {
        self.are_unknown() || !self.left.is_empty() || self.loads_until().is_some()
    }

    /// Tells whether a search can find nothing new. Pages that leave by copying may be
    /// lent.
    fn has_found_all(&self, m: &Memory) -> bool {
        (m.mover.copies() || THREADS.lending.lent.load(Relaxed))
            && THREADS.lending.advised.load(Relaxed)
    }

    /// Lists the mappings, if due, to find code that was not searched yet.
    pub(crate) fn look_for_code(&mut self, m: &mut Memory) {
        if self.has_found_all(m) {
            return;
        }
        let now = now_ns();
        let is_loaded = self.loads_until().is_some_and(|at| now >= at);
        let size = m.mover.kernel().size_pages().ok();
        let same = size.is_some() && size == self.size;
        if !is_loaded && (same || now < self.next_ns) {
            return;
        }
        let mut text = Vec::new();
        if m.mover.kernel().maps(&mut text).is_err() {
            return self.makes(m, Calls::ANY, "the program, whose mappings cannot be read,");
        }
        let (found, digest) = code_in(&text);
        let lenders = self;
        let listed = core::mem::take(&mut lenders.listed);
        lenders.listed = found.iter().map(|code| code.range.clone()).collect();
        lenders.size = size;
        lenders.digest = digest;
        lenders
            .left
            .retain(|code| lenders.listed.contains(&code.range));
        if THREADS.lending.searched.load(Relaxed) != digest {
            let new = found.into_iter().filter(|c| !listed.contains(&c.range));
            lenders.left.extend(new);
        }
        // This is the time before the list was read: code that is mapped meanwhile may not
        // be in it.
        lenders.listed_ns = now;
        lenders.next_ns = now + (now_ns() - now) * PAUSE_PER_LISTING;
    }

    /// Searches a piece of the code that is left.
    pub(crate) fn search_code(&mut self, m: &mut Memory) {
        let Some(mut code) = self.left.pop() else {
            return;
        };
        let program = Program(m.mover.kernel());
        let end = code.range.end.min(code.at + PIECE);
        // One byte more than the piece, since the instructions to be found have two bytes.
        let mut bytes = vec![0; (code.range.end.min(end + 1) - code.at) as usize];
        let made = match program.read(code.at, &mut bytes) {
            false => Calls::ANY,
            true => {
                let found: Vec<u64> = raw_calls::candidates(&bytes, code.at).collect();
                let functions = (!found.is_empty()).then(|| Functions::of(&program, code.base));
                let functions = functions.flatten();
                let calls = |at| raw_calls::calls(&program, functions.as_ref(), &code.range, at);
                found.into_iter().map(calls).fold(Calls::NONE, Calls::and)
            }
        };
        code.at = end;
        self.makes(m, made, &code.name);
        if self.has_found_all(m) {
            self.left.clear();
        } else if end < code.range.end {
            self.left.push(code);
        } else if self.left.is_empty() {
            THREADS.lending.searched.store(self.digest, Relaxed);
        }
    }

    /// Notes that code was found that may make such calls.
    fn makes(&mut self, m: &mut Memory, calls: Calls, name: &str) {
        if calls.lend && !m.mover.copies() && !THREADS.lending.lent.load(Relaxed) {
            Self::lends(m, name);
        }
        if calls.advise && !THREADS.lending.advised.load(Relaxed) {
            advises();
            m.report.say(
                INFO,
                &format!(
                    "{name} has code that makes system calls directly, and may advise on memory so: \
                     at each fork the kernel is asked what the child is to find empty; \
                     MADV_DONTFORK given so for paged memory has no effect"
                ),
            );
        }
    }

    /// Makes all pages count as lent from here on.
    fn lends(m: &mut Memory, name: &str) {
        begin();
        m.pool.set_all_lent();
        m.report.say(
            INFO,
            &format!(
                "{name} has code that makes system calls directly, not through the C library; it may \
                 give pages to the kernel without a copy (vmsplice, io_uring, MSG_ZEROCOPY), so \
                 paging takes safer and slower ways from now on"
            ),
        );
    }
}

/// Returns the mappings of code that may make such calls, and a digest of all of them.
fn code_in(text: &[u8]) -> (Vec<Code>, u64) {
    let own = begin as *const () as u64;
    let mut found = Vec::new();
    let mut digest = 0xcbf2_9ce4_8422_2325;
    // Inode and device of the file whose mappings are being listed, and the address of its
    // header.
    let mut file = (0, (0, 0), 0);
    // The first mapping of each library is the one whose functions the shim sees. A program
    // may load a second one beside it (`dlmopen`).
    let mut libraries = [0; C_LIBRARY.len()];
    for mapping in maps::parse(text).filter_map(Result::ok) {
        let (start, end) = (mapping.start as u64, mapping.end as u64);
        if mapping.offset == 0 || (mapping.inode, mapping.dev) != (file.0, file.1) {
            file = (mapping.inode, mapping.dev, start);
        }
        if !is_code(&mapping) || (start..end).contains(&own) {
            continue;
        }
        if let Some(part) = c_library(&mapping) {
            libraries[part] += 1;
            if libraries[part] == 1 {
                continue;
            }
        }
        for number in [start, end, mapping.inode, mapping.offset] {
            // FNV-1a, one word at a time.
            digest = (digest ^ number).wrapping_mul(0x0100_0000_01b3);
        }
        found.push(Code {
            range: start..end,
            base: file.2,
            name: String::from_utf8_lossy(mapping.path).into_owned(),
            at: start,
        });
    }
    (found, digest)
}

/// Tells whether a mapping holds code of a file.
fn is_code(mapping: &Mapping<'_>) -> bool {
    // Just-in-time compilers put code into memory files.
    let is_file = mapping.inode != 0 && !mapping.path.starts_with(b"/memfd:");
    mapping.perms.x && is_file
}

/// Returns which part of the C library a mapping belongs to, if any.
fn c_library(mapping: &Mapping<'_>) -> Option<usize> {
    let name = mapping.path.rsplit(|b| *b == b'/').next()?;
    C_LIBRARY.iter().position(|part| name.starts_with(part))
}

/// The program's memory.
struct Program<'a>(&'a dyn Process);

impl ReadMemory for Program<'_> {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        // SAFETY: `out` belongs to this thread.
        unsafe {
            self.0
                .copy_out(at as usize, out.as_mut_ptr() as usize, out.len())
        }
        .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0c0a00000-55d0c0a21000 r--p 00000000 fe:01 1311 /usr/bin/program
55d0c0a21000-55d0c0a31000 r-xp 00021000 fe:01 1311 /usr/bin/program
7f0000000000-7f0000100000 r-xp 00000000 00:01 99 /memfd:doublemapper (deleted)
7f0060000000-7f0060001000 rwxp 00000000 00:00 0 
7f0070000000-7f0070001000 r--p 00000000 fe:01 42 /lib/x86_64-linux-gnu/libc.so.6
7f0070001000-7f0070101000 r-xp 00001000 fe:01 42 /lib/x86_64-linux-gnu/libc.so.6
7f0080000000-7f0080001000 r-xp 00000000 fe:01 43 /lib/libone.so
7ffc10004000-7ffc10006000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn code_of_files_is_found_with_its_header_and_without_the_c_library() {
        let (found, digest) = code_in(MAPS);
        let found: Vec<_> = found.iter().map(|c| (c.range.start, c.base)).collect();
        let program = (0x55d0_c0a2_1000, 0x55d0_c0a0_0000);
        assert_eq!(found, [program, (0x7f00_8000_0000, 0x7f00_8000_0000)]);
        let other = std::string::String::from_utf8(MAPS.to_vec()).unwrap();
        assert_ne!(digest, code_in(other.replace(" 43 ", " 44 ").as_bytes()).1);
        let again = "7f0090000000-7f0090100000 r-xp 00001000 fe:01 42 /lib/libc.so.6\n";
        assert_eq!(code_in((other + again).as_bytes()).0.len(), 3);
    }
}
