//! Parses `/proc/self/maps` and `/proc/self/smaps`.

use alloc::vec::Vec;
use core::ops::Range;
use thiserror::Error;

/// A mapping of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// First address.
    pub start: usize,
    /// First address after it.
    pub end: usize,
    /// Permissions.
    pub perms: Perms,
    /// Offset in the mapped file, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub dev: (u32, u32),
    /// The file's inode; 0 for none.
    pub inode: u64,
    /// The file, or the kernel's name for the mapping in brackets, or empty.
    pub path: &'a [u8],
}

/// Permissions of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms {
    /// Readable.
    pub r: bool,
    /// Writable.
    pub w: bool,
    /// Executable.
    pub x: bool,
    /// Shared with other processes, so not private.
    pub shared: bool,
}

/// An error in a line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MapsError {
    /// The buffer ends within a line: the file was not read completely.
    #[error("the list of mappings ends within a line")]
    Truncated,
    /// The line does not have the form that proc(5) describes.
    #[error("a line of the list of mappings cannot be understood")]
    Malformed,
}

/// Parses `buf`, which holds whole lines of `/proc/self/maps`.
///
/// # Errors
/// An item is a [`MapsError`] if its line is wrong.
pub fn parse(buf: &[u8]) -> impl Iterator<Item = Result<Mapping<'_>, MapsError>> {
    buf.split_inclusive(|b| *b == b'\n')
        .map(|line| match line.split_last() {
            // An incomplete line could lack the name that tells a stack from a heap.
            Some((b'\n', line)) => parse_line(line).ok_or(MapsError::Malformed),
            _ => Err(MapsError::Truncated),
        })
}

/// A mapping's flags that concern forked children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The child finds zeros (`MADV_WIPEONFORK`).
    pub wiped: bool,
    /// The child does not get it (`MADV_DONTFORK`).
    pub withheld: bool,
}

/// Returns the mappings in `buf`, which holds `/proc/self/smaps`, with their flags.
pub fn flags(buf: &[u8]) -> impl Iterator<Item = (Range<usize>, Flags)> {
    let mut last = None;
    buf.split(|b| *b == b'\n').filter_map(move |line| {
        if let Some(mapping) = parse_line(line) {
            last = Some(mapping.start..mapping.end);
        }
        let flags = line.strip_prefix(b"VmFlags:")?;
        let has = |name: &[u8]| flags.split(|b| *b == b' ').any(|flag| flag == name);
        let flags = Flags {
            wiped: has(b"wf"),
            withheld: has(b"dc"),
        };
        Some((last.take()?, flags))
    })
}

/// Returns the private mappings in `buf`, which holds `/proc/self/smaps`, and how many
/// bytes of each are resident anonymous memory.
pub fn private(buf: &[u8]) -> impl Iterator<Item = (Mapping<'_>, u64)> {
    let mut last = None;
    buf.split(|b| *b == b'\n').filter_map(move |line| {
        if let Some(mapping) = parse_line(line) {
            last = Some(mapping);
        }
        let rest = line.strip_prefix(b"Anonymous:")?;
        let (kib, _) = number(rest.trim_ascii_start(), 10)?;
        let mapping = last.take().filter(|m| !m.perms.shared)?;
        Some((mapping, kib.saturating_mul(1024)))
    })
}

fn parse_line(line: &[u8]) -> Option<Mapping<'_>> {
    let (start, rest) = number(line, 16)?;
    let (end, rest) = number(rest.strip_prefix(b"-")?, 16)?;
    let (perms, rest) = rest.strip_prefix(b" ")?.split_first_chunk::<4>()?;
    let perms = Perms {
        r: flag(perms[0], b'r')?,
        w: flag(perms[1], b'w')?,
        x: flag(perms[2], b'x')?,
        shared: match perms[3] {
            b's' => true,
            b'p' => false,
            _ => return None,
        },
    };
    let (offset, rest) = number(rest.strip_prefix(b" ")?, 16)?;
    let (major, rest) = number(rest.strip_prefix(b" ")?, 16)?;
    let (minor, rest) = number(rest.strip_prefix(b":")?, 16)?;
    let (inode, rest) = number(rest.strip_prefix(b" ")?, 10)?;
    if !rest.is_empty() && rest[0] != b' ' {
        return None;
    }
    let name = rest.iter().position(|b| *b != b' ').unwrap_or(rest.len());
    let mapping = Mapping {
        start: usize::try_from(start).ok()?,
        end: usize::try_from(end).ok()?,
        perms,
        offset,
        dev: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?),
        inode,
        path: &rest[name..],
    };
    (mapping.start < mapping.end).then_some(mapping)
}

fn flag(byte: u8, set: u8) -> Option<bool> {
    match byte {
        b'-' => Some(false),
        b if b == set => Some(true),
        _ => None,
    }
}

/// Parses the number at the beginning of `text`. Returns it, and the rest.
fn number(text: &[u8], radix: u32) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut digits = 0;
    for &b in text {
        let Some(digit) = char::from(b).to_digit(radix) else {
            break;
        };
        value = value
            .checked_mul(u64::from(radix))?
            .checked_add(u64::from(digit))?;
        digits += 1;
    }
    (digits > 0).then_some((value, &text[digits..]))
}

/// Tells whether the engine may page the mapping `m`, as far as the list of mappings shows:
/// private anonymous memory that is not code (executable and not writable), not a stack
/// that the kernel names, and not special. Inaccessible memory is included, since it keeps
/// its contents until it is unmapped.
pub fn eligible(m: &Mapping<'_>) -> bool {
    let code = m.perms.x && !m.perms.w;
    if m.perms.shared || code || m.inode != 0 || m.dev != (0, 0) {
        return false;
    }
    match m.path {
        b"" | b"[heap]" => true,
        // glibc can be configured to name its thread stacks.
        name => name.starts_with(b"[anon:") && !name.windows(5).any(|w| w == b"stack"),
    }
}

/// Removes everything in `exclude` from `ranges`. Both are sorted and without overlaps.
/// Empty ranges disappear.
pub fn subtract(ranges: &mut Vec<Range<usize>>, exclude: &[Range<usize>]) {
    let mut left = Vec::with_capacity(ranges.len());
    let mut from = 0;
    for range in ranges.iter() {
        let mut start = range.start;
        while from < exclude.len() && exclude[from].end <= start {
            from += 1;
        }
        for cut in exclude[from..]
            .iter()
            .take_while(|cut| cut.start < range.end)
        {
            if start < cut.start && !cut.is_empty() {
                left.push(start..cut.start);
            }
            if !cut.is_empty() {
                start = start.max(cut.end);
            }
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    *ranges = left;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_children_are_not_to_have_is_found_among_the_flags() {
        let text = b"\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Size:               2048 kB
VmFlags: rd wr mr mw me ac wf sd 
7f0000200000-7f0000300000 rw-p 00000000 00:00 0                          [anon: wf dc]
Rss:                   4 kB
VmFlags: rd wr mr mw me dc ac
7f0000300000-7f0000400000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me ac sd 
";
        let said = |wiped, withheld| Flags { wiped, withheld };
        let expected = [
            (0x7f00_0000_0000..0x7f00_0020_0000, said(true, false)),
            (0x7f00_0020_0000..0x7f00_0030_0000, said(false, true)),
            (0x7f00_0030_0000..0x7f00_0040_0000, said(false, false)),
        ];
        assert_eq!(flags(text).collect::<Vec<_>>(), expected);
    }
    use proptest::prelude::*;
    use std::{format, string::String, vec, vec::Vec};

    const SAMPLE: &[u8] = b"\
55d0c0a00000-55d0c0a21000 r--p 00000000 fe:01 1311 /usr/bin/a name with spaces (deleted)
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 
7f0040000000-7f0040001000 ---p 00000000 00:00 0 
7f0050000000-7f0050001000 rw-s 00000000 00:01 4711 /dev/zero (deleted)
7f0060000000-7f0060001000 rwxp 00000000 00:00 0 
7f0068000000-7f0068001000 r-xp 00000000 00:00 0 
7f0070000000-7f0070001000 rw-p 00000000 00:00 0                          [anon:arena]
7f0080000000-7f0080001000 rw-p 00000000 00:00 0                          [anon: glibc: pthread stack: 71]
7f0090000000-7f0090001000 rw-s 00000000 00:00 0                          [anon_shmem:x]
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7ffc10000000-7ffc10004000 r--p 00000000 00:00 0                          [vvar]
7ffc10004000-7ffc10006000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn every_line_of_a_sample_is_read_and_judged() {
        let all: Vec<_> = parse(SAMPLE).map(Result::unwrap).collect();
        assert_eq!(all.len(), 14);
        assert_eq!(all[0].path, b"/usr/bin/a name with spaces (deleted)");
        assert_eq!((all[0].dev, all[0].inode), ((0xfe, 1), 1311));
        assert_eq!((all[1].start, all[1].end), (0x55d0c1000000, 0x55d0c1021000));
        let yes: Vec<_> = (0..all.len()).filter(|i| eligible(&all[*i])).collect();
        assert_eq!(yes, [1, 2, 3, 5, 7]);
    }

    #[test]
    fn this_process_is_understood_and_its_heap_found() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let on_heap = vec![0u8; 1 << 22];
        let at = on_heap.as_ptr() as usize + 4096;
        let own: Vec<_> = parse(&maps).map(Result::unwrap).collect();
        assert!(own.iter().any(|m| m.path == b"[stack]" && !eligible(m)));
        let maps = std::fs::read("/proc/self/maps").unwrap();
        assert!(
            parse(&maps)
                .map(Result::unwrap)
                .any(|m| m.start <= at && at < m.end && eligible(&m))
        );
    }

    #[test]
    fn a_line_cut_short_is_never_taken_for_a_whole_one() {
        for cut in 1..SAMPLE.len() {
            let last = parse(&SAMPLE[..cut]).last().unwrap();
            assert_eq!(last.is_ok(), SAMPLE[cut - 1] == b'\n', "at {cut}");
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<usize>>> {
        prop::collection::vec((0..6usize, 0..9usize), 0..12).prop_map(|steps| {
            let mut at = 0;
            let mut out = vec![];
            for (gap, len) in steps {
                out.push(at + gap..at + gap + len);
                at += gap + len;
            }
            out
        })
    }

    proptest! {
        #[test]
        fn a_formatted_mapping_is_read_back(
            start in 0..1usize << 47, len in 1..1usize << 40, bits in 0..16u8,
            offset: u64, major in 0..4096u32, minor: u32, inode: u64, name in "(/[a-z /]*[a-z]|\\[[a-z:]+\\])?",
        ) {
            let c = |bit: u8, yes: char, no: char| if bits & bit != 0 { yes } else { no };
            let line: String = format!(
                "{start:x}-{:x} {}{}{}{} {offset:08x} {major:02x}:{minor:02x} {inode}            {name}\n",
                start + len, c(1, 'r', '-'), c(2, 'w', '-'), c(4, 'x', '-'), c(8, 's', 'p'),
            );
            let perms = Perms {
                r: bits & 1 != 0, w: bits & 2 != 0, x: bits & 4 != 0, shared: bits & 8 != 0,
            };
            let got: Vec<_> = parse(line.as_bytes()).collect();
            prop_assert_eq!(got, vec![Ok(Mapping {
                start, end: start + len, perms, offset, dev: (major, minor), inode,
                path: name.as_bytes(),
            })]);
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>) {
            parse(&bytes).for_each(drop);
        }

        #[test]
        fn any_damage_to_a_line_is_parsed_without_a_panic(at in 0..SAMPLE.len(), byte: u8) {
            let mut bytes = SAMPLE.to_vec();
            bytes[at] = byte;
            parse(&bytes).for_each(drop);
        }

        #[test]
        fn subtraction_agrees_with_sets(a in ranges(), b in ranges()) {
            let mut got = a.clone();
            subtract(&mut got, &b);
            prop_assert!(got.iter().all(|r| !r.is_empty()));
            prop_assert!(got.windows(2).all(|w| w[0].end <= w[1].start));
            let points: Vec<usize> = got.iter().cloned().flatten().collect();
            let want: Vec<usize> = a.into_iter().flatten()
                .filter(|p| !b.iter().any(|r| r.contains(p))).collect();
            prop_assert_eq!(points, want);
        }
    }
}
