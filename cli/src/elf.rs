//! Whether a program file lets a library be preloaded, from its bytes alone.

/// The part of an executable that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Loaded by the dynamic linker.
    Dynamic,
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
    match has_interpreter(head) {
        Some(true) => Kind::Dynamic,
        Some(false) => Kind::Static,
        None => Kind::Unknown,
    }
}

fn has_interpreter(head: &[u8]) -> Option<bool> {
    let table = usize::try_from(u64_at(head, 32)?).ok()?;
    let size = usize::from(u16_at(head, 54)?);
    for index in 0..usize::from(u16_at(head, 56)?) {
        let at = index.checked_mul(size)?.checked_add(table)?;
        if u32_at(head, at)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
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
        assert_eq!(kind(&own), Kind::Dynamic);
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
    fn scripts_name_their_interpreter() {
        assert_eq!(kind(b"#! /bin/sh -e\nx"), Kind::Script("/bin/sh".into()));
        assert_eq!(kind(b"#!\n"), Kind::Unknown);
        assert_eq!(kind(b""), Kind::Unknown);
    }
}
