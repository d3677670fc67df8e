//! Whether a program file lets a library be preloaded, from its bytes alone.

use std::os::unix::fs::FileExt;

/// The part of an executable that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Loaded by the dynamic linker of this path.
    Dynamic(String),
    /// No dynamic linker.
    Static,
    /// Of another architecture or word size than tmem itself.
    Foreign,
    /// A script, with the interpreter that its first line names.
    Script(String),
    /// Nothing known.
    Unknown,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const PT_INTERP: u32 = 3;

/// Judges a file by `head`, its first bytes.
pub(crate) fn kind(head: &[u8]) -> Kind {
    if let Some(rest) = head.strip_prefix(b"#!") {
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        return match line.split_whitespace().next() {
            Some(interpreter) => Kind::Script(interpreter.to_owned()),
            None => Kind::Unknown,
        };
    }
    if !head.starts_with(b"\x7fELF") {
        return Kind::Unknown;
    }
    // Class 2: 64 bits; data 1: little endian.
    if head.get(4..6) != Some(&[2, 1]) || u16_at(head, 18) != Some(MACHINE) {
        return Kind::Foreign;
    }
    match interpreter(head) {
        Some(Some(path)) => Kind::Dynamic(path),
        Some(None) => Kind::Static,
        None => Kind::Unknown,
    }
}

/// The interpreter that a program header names, if one does; nothing where the headers, or
/// the name, are not all in `head`.
fn interpreter(head: &[u8]) -> Option<Option<String>> {
    let table = usize::try_from(u64_at(head, 32)?).ok()?;
    let size = usize::from(u16_at(head, 54)?);
    for index in 0..usize::from(u16_at(head, 56)?) {
        let at = index.checked_mul(size)?.checked_add(table)?;
        if u32_at(head, at)? == PT_INTERP {
            let start = usize::try_from(u64_at(head, at.checked_add(8)?)?).ok()?;
            let len = usize::try_from(u64_at(head, at.checked_add(32)?)?).ok()?;
            let path = head.get(start..start.checked_add(len)?)?;
            let path = path.split(|b| *b == 0).next().unwrap_or_default();
            return Some(Some(String::from_utf8_lossy(path).into_owned()));
        }
    }
    Some(None)
}

/// The names in a program file, of symbols and of the libraries that it needs.
pub(crate) struct Names(Vec<Vec<u8>>);

/// A table of names that is longer is not looked at.
const LONGEST_TABLE: u64 = 64 << 20;
/// Bytes of a section's header.
const SECTION: usize = 64;
const SHT_STRTAB: u32 = 3;

impl Names {
    /// Those of a file for this architecture; none where it cannot be read.
    pub(crate) fn of(file: &impl FileExt) -> Names {
        Names(tables(file).unwrap_or_default())
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        // Each name has a zero on both sides.
        let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
        self.0.iter().any(|table| {
            let mut zeros = table.iter().enumerate().filter(|(_, byte)| **byte == 0);
            zeros.any(|(at, _)| table[at..].starts_with(&wanted))
        })
    }
}

fn tables(file: &impl FileExt) -> Option<Vec<Vec<u8>>> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    let count = usize::from(u16_at(&head, 60)?);
    let mut sections = vec![0; count * SECTION];
    file.read_exact_at(&mut sections, u64_at(&head, 40)?).ok()?;
    let table = |section: &[u8]| {
        let (start, len) = (u64_at(section, 24)?, u64_at(section, 32)?);
        if u32_at(section, 4)? != SHT_STRTAB || len > LONGEST_TABLE {
            return None;
        }
        let mut table = vec![0; usize::try_from(len).ok()?];
        file.read_exact_at(&mut table, start).ok()?;
        Some(table)
    };
    Some(sections.chunks_exact(SECTION).filter_map(table).collect())
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..)?.first_chunk().copied()
}

fn u16_at(head: &[u8], at: usize) -> Option<u16> {
    bytes(head, at).map(u16::from_le_bytes)
}

fn u32_at(head: &[u8], at: usize) -> Option<u32> {
    bytes(head, at).map(u32::from_le_bytes)
}

fn u64_at(head: &[u8], at: usize) -> Option<u64> {
    bytes(head, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_executable_is_dynamic() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(kind(&own), Kind::Dynamic(path) if path.contains("ld-linux")));
    }

    #[test]
    fn another_word_size_is_foreign_and_a_cut_file_unknown() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let mut other = own.clone();
        other[4] = 1;
        assert_eq!(kind(&other), Kind::Foreign);
        assert_eq!(kind(&own[..64]), Kind::Unknown);
    }

    #[test]
    fn names_are_those_of_libraries_and_symbols() {
        let names = Names::of(&std::fs::File::open("/proc/self/exe").unwrap());
        assert!(names.has("libc.so.6"));
        assert!(!names.has("libc.so"));
        assert!(names.has("__errno_location"));
        assert!(!names.has("errno_location"));
    }

    #[test]
    fn scripts_name_their_interpreter() {
        assert_eq!(kind(b"#! /bin/sh -e\nx"), Kind::Script("/bin/sh".into()));
        assert_eq!(kind(b"#!\n"), Kind::Unknown);
        assert_eq!(kind(b""), Kind::Unknown);
    }
}
