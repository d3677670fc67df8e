//! Tells from the bytes of a program file whether a library can be preloaded into it.

use object::elf::{ELFMAG, FileHeader64, PT_INTERP, ProgramHeader64, SHT_STRTAB};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadCache};
use std::fs::File;

#[cfg(target_arch = "aarch64")]
use object::elf::EM_AARCH64;
#[cfg(target_arch = "x86_64")]
use object::elf::EM_X86_64;

/// The part of an executable that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Loaded by the dynamic linker at this path.
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
const MACHINE: u16 = EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = EM_AARCH64;

type Header = FileHeader64<LittleEndian>;

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
    if !head.starts_with(&ELFMAG) {
        return Kind::Unknown;
    }
    match Header::parse(head) {
        Ok(header) if is_own(header) => match interpreter(header, head) {
            Some(Some(path)) => Kind::Dynamic(path),
            Some(None) => Kind::Static,
            None => Kind::Unknown,
        },
        _ => Kind::Foreign,
    }
}

/// Whether a file is for this architecture.
fn is_own(header: &Header) -> bool {
    header.endian().is_ok() && header.e_machine(LittleEndian) == MACHINE
}

/// The interpreter that a program header names, if one does. `None` if the headers or the name
/// are not completely in `head`.
fn interpreter(header: &Header, head: &[u8]) -> Option<Option<String>> {
    let segments = header.program_headers(LittleEndian, head).ok()?;
    let is_interpreter = |s: &&ProgramHeader64<LittleEndian>| s.p_type(LittleEndian) == PT_INTERP;
    let Some(segment) = segments.iter().find(is_interpreter) else {
        return Some(None);
    };
    let path = segment.data(LittleEndian, head).ok()?;
    let path = path.split(|b| *b == 0).next().unwrap_or_default();
    Some(Some(String::from_utf8_lossy(path).into_owned()))
}

/// The names in a program file, of symbols and of the libraries that it needs.
pub(crate) struct Names(Vec<Vec<u8>>);

/// Longer tables of names are not read.
const LONGEST_TABLE: u64 = 64 << 20;

impl Names {
    /// The names in a file for this architecture; none if it cannot be read.
    pub(crate) fn of(file: &File) -> Names {
        Names(tables(file).unwrap_or_default())
    }

    /// Whether a name is in the file.
    pub(crate) fn has(&self, name: &str) -> bool {
        // Each name has a zero on both sides.
        let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
        self.0.iter().any(|table| {
            let mut zeros = table.iter().enumerate().filter(|(_, byte)| **byte == 0);
            zeros.any(|(at, _)| table[at..].starts_with(&wanted))
        })
    }
}

fn tables(file: &File) -> Option<Vec<Vec<u8>>> {
    let data = &ReadCache::new(file);
    let header = Header::parse(data).ok().filter(|h| is_own(h))?;
    let sections = header.section_headers(LittleEndian, data).ok()?;
    let tables = sections.iter().filter(|s| {
        s.sh_type(LittleEndian) == SHT_STRTAB && s.sh_size(LittleEndian) <= LONGEST_TABLE
    });
    let texts = tables.filter_map(|s| s.data(LittleEndian, data).ok());
    Some(texts.map(<[u8]>::to_vec).collect())
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
