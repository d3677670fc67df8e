//! The program's seccomp filters, and what they say of a system call.
//!
//! When a thread of the program makes a system call for the engine, a filter may end it.
//! Filters are programs without loops and without state, so running them here shows what
//! they decide.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

/// An instruction of a filter (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to skip if its condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// A system call, as a filter sees it (`struct seccomp_data`), in 32-bit words.
type Data = [u32; 16];

const ARCHITECTURE: u32 = 0xc000_003e;
const ACTION: u32 = 0xffff_0000;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;

/// A filter that the program has installed, and the ones before it.
struct Installed {
    filter: Vec<Instruction>,
    before: *const Installed,
}

/// The last filter. A forked child has all of them.
static LAST: AtomicPtr<Installed> = AtomicPtr::new(ptr::null_mut());

/// Notes a filter that a thread of the program is about to install. It counts even if the
/// kernel refuses it.
pub fn note(filter: &[Instruction]) {
    let new = Box::leak(Box::new(Installed {
        filter: filter.to_vec(),
        before: ptr::null(),
    }));
    let add = |last: *mut Installed| {
        new.before = last;
        Some(ptr::from_mut(new))
    };
    let _ = LAST.fetch_update(AcqRel, Acquire, add);
}

/// Notes that a thread allows itself next to nothing from now on
/// (`SECCOMP_SET_MODE_STRICT`).
pub fn note_strict() {
    note(&[]);
}

/// Tells whether every filter allows a call of this number with these arguments.
pub(crate) fn allow(number: u32, args: [u64; 6]) -> bool {
    let mut data = [0; 16];
    (data[0], data[1]) = (number, ARCHITECTURE);
    for (words, arg) in data[4..].chunks_exact_mut(2).zip(args) {
        (words[0], words[1]) = (arg as u32, (arg >> 32) as u32);
    }
    let mut at = LAST.load(Acquire).cast_const();
    // SAFETY: null, or what `note` has leaked.
    while let Some(installed) = unsafe { at.as_ref() } {
        if !matches!(
            run(&installed.filter, &data).map(|r| r & ACTION),
            Some(ALLOW | LOG)
        ) {
            return false;
        }
        at = installed.before;
    }
    true
}

/// Runs a filter. Returns its result, or `None` if the kernel would not accept the filter.
fn run(filter: &[Instruction], data: &Data) -> Option<u32> {
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; 16];
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = *filter.get(at)?;
        at += 1;
        let source = if code & 8 == 0 { k } else { x };
        match code & 7 {
            // Loads a word of the call, its size, a constant, or a memory cell.
            class @ (0 | 1) => {
                let value = match code & 0xf8 {
                    0x20 if class == 0 && k.is_multiple_of(4) => *data.get(k as usize / 4)?,
                    0x80 => size_of::<Data>() as u32,
                    0 => k,
                    0x60 => *memory.get(k as usize)?,
                    _ => return None,
                };
                *(if class == 0 { &mut a } else { &mut x }) = value;
            }
            // Stores.
            2 => *memory.get_mut(k as usize)? = a,
            3 => *memory.get_mut(k as usize)? = x,
            // Calculates.
            4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(source),
                    0x10 => a.wrapping_sub(source),
                    0x20 => a.wrapping_mul(source),
                    // On a division by zero the kernel's filter returns 0.
                    0x30 if source == 0 => return Some(0),
                    0x30 => a / source,
                    0x40 => a | source,
                    0x50 => a & source,
                    0x60 => a.wrapping_shl(source),
                    0x70 => a.wrapping_shr(source),
                    0x80 => a.wrapping_neg(),
                    0xa0 => a ^ source,
                    _ => return None,
                }
            }
            // Jumps.
            5 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at = at.checked_add(k as usize)?;
                        continue;
                    }
                    0x10 => a == source,
                    0x20 => a > source,
                    0x30 => a >= source,
                    0x40 => a & source != 0,
                    _ => return None,
                };
                at += usize::from(if holds { jt } else { jf });
            }
            // Returns a constant, or the accumulator.
            6 => return Some(if code & 0x18 == 0x10 { a } else { k }),
            // Exchanges the registers.
            _ if code & 0xf8 == 0 => x = a,
            _ => a = x,
        }
    }
}

/// Forgets all filters, in a test.
#[cfg(test)]
fn forget() {
    LAST.store(ptr::null_mut(), core::sync::atomic::Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    const LOAD: u16 = 0x20;
    const EQUALS: u16 = 0x15;
    const RETURN: u16 = 6;
    const KILL: u32 = 0x8000_0000;
    const ERRNO: u32 = 0x0005_0001;

    #[test]
    fn a_call_is_allowed_where_each_filter_allows_it() {
        forget();
        assert!(allow(53, [1, 2, 3, 4, 5, 6]));
        // Allows, on this architecture, everything but call 41, and call 53 with a first
        // argument of 9.
        note(&[
            i(LOAD, 0, 0, 4),
            i(EQUALS, 1, 0, ARCHITECTURE),
            i(RETURN, 0, 0, KILL),
            i(LOAD, 0, 0, 0),
            i(EQUALS, 0, 1, 41),
            i(RETURN, 0, 0, ERRNO),
            i(EQUALS, 0, 3, 53),
            i(LOAD, 0, 0, 16),
            i(EQUALS, 0, 1, 9),
            i(RETURN, 0, 0, KILL),
            i(RETURN, 0, 0, ALLOW),
        ]);
        assert!(allow(53, [1 << 32, 0, 0, 0, 0, 0]));
        assert!(!allow(53, [9, 0, 0, 0, 0, 0]));
        assert!(!allow(41, [0; 6]));
        // A second filter, which calculates: only numbers below 60, each of which is
        // logged.
        note(&[
            i(LOAD, 0, 0, 0),
            i(0x02, 0, 0, 3),
            i(0x14, 0, 0, 60),
            i(0x74, 0, 0, 31),
            i(0x07, 0, 0, 0),
            i(0x61, 0, 0, 3),
            i(0x1d, 0, 1, 0),
            i(RETURN, 0, 0, 0),
            i(0x45, 0, 1, 1),
            i(RETURN, 0, 0, LOG),
            i(RETURN, 0, 0, ERRNO),
        ]);
        assert!(allow(53, [0; 6]) && !allow(72, [0; 6]) && !allow(41, [0; 6]));
        note_strict();
        assert!(!allow(53, [0; 6]));
        forget();
    }

    #[test]
    fn what_the_kernel_would_not_take_allows_nothing() {
        let data = [7; 16];
        assert_eq!(run(&[], &data), None);
        assert_eq!(
            run(&[i(LOAD, 0, 0, 64), i(RETURN, 0, 0, ALLOW)], &data),
            None
        );
        assert_eq!(
            run(&[i(0x28, 0, 0, 0), i(RETURN, 0, 0, ALLOW)], &data),
            None
        );
        assert_eq!(run(&[i(0x05, 0, 0, u32::MAX)], &data), None);
        // A division by zero.
        assert_eq!(
            run(&[i(0x34, 0, 0, 0), i(RETURN, 0, 0, ALLOW)], &data),
            Some(0)
        );
        // The accumulator.
        assert_eq!(run(&[i(0x00, 0, 0, 5), i(0x16, 0, 0, 0)], &data), Some(5));
    }
}
