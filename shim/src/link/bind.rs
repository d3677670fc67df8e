//! Has this library call the C library itself.
//!
//! A program may have functions of its own by the names of `open`, `read` or `stat`: ISO C
//! leaves them to it. The dynamic linker finds the program's first, for this library too. So
//! before anything is called, what has been found elsewhere is replaced by the C library's.
//! The allocator stays what the program has: blocks are handed over.

use super::linker::{libraries, own_dynamic};
use super::object::Object;
use rustix::mm::{MprotectFlags, mprotect};

const DT_NULL: u64 = 0;
const DT_PLTRELSZ: u64 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_JMPREL: u64 = 23;

/// The relocations that put the address of a symbol into a table of the library.
const R_X86_64_GLOB_DAT: u64 = 6;
const R_X86_64_JUMP_SLOT: u64 = 7;

const PAGE: usize = 4096;

/// What is handed over between this library and the C library.
const ALLOCATOR: [&[u8]; 4] = [b"malloc", b"calloc", b"realloc", b"free"];

/// `Elf64_Rela`.
#[repr(C)]
struct Rela {
    offset: u64,
    info: u64,
    addend: i64,
}

/// Replaces what other libraries, or the program, have in place of functions of the C
/// library. Called before the library calls any.
pub(crate) fn to_the_c_library() {
    // SAFETY: before any thread is there that loads libraries.
    let Some((own, libc)) = (unsafe { libraries() }) else {
        return;
    };
    // SAFETY: this library's own tables.
    for table in unsafe { relocations() } {
        for rela in table {
            if !matches!(
                rela.info & 0xffff_ffff,
                R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT
            ) {
                continue;
            }
            // SAFETY: the symbol of a relocation of this library's.
            let name = unsafe { own.name((rela.info >> 32) as usize) };
            if !ALLOCATOR.contains(&name) {
                // SAFETY: the entry of a table that the relocation filled in.
                unsafe { replace(own.base() + rela.offset as usize, name, &own, &libc) };
            }
        }
    }
}

/// # Safety
/// `entry` is an entry of this library's table of addresses, for the symbol `name`.
unsafe fn replace(entry: usize, name: &[u8], own: &Object, libc: &Object) {
    let entry = entry as *mut usize;
    // SAFETY: by the caller.
    let found = unsafe { entry.read() };
    if found == 0 || own.contains(found) || libc.contains(found) {
        return;
    }
    // SAFETY: the C library stays loaded and is relocated.
    let Some(right) = (unsafe { libc.find_function(name) }) else {
        return;
    };
    let page = (entry as usize / PAGE * PAGE) as *mut core::ffi::c_void;
    let (read, write) = (MprotectFlags::READ, MprotectFlags::WRITE);
    // SAFETY: the page is of this library, which uses the entry in no other thread yet, and
    // is left as it was: the table cannot be written any more.
    unsafe {
        if mprotect(page, PAGE, read | write).is_ok() {
            entry.write(right);
            // Where it stays writable nothing is wrong.
            let _ = mprotect(page, PAGE, read);
        }
    }
}

/// The relocations of this library, with and without those of its procedure linkage table.
///
/// # Safety
/// The library is relocated.
unsafe fn relocations() -> [&'static [Rela]; 2] {
    let (mut tables, mut sizes) = ([0; 2], [0; 2]);
    let mut at = own_dynamic() as *const [u64; 2];
    loop {
        // SAFETY: the library's own dynamic section, which ends with a null tag.
        let [tag, value] = unsafe { *at };
        match tag {
            DT_NULL => break,
            DT_RELA => tables[0] = value,
            DT_RELASZ => sizes[0] = value,
            DT_JMPREL => tables[1] = value,
            DT_PLTRELSZ => sizes[1] = value,
            _ => {}
        }
        at = at.wrapping_add(1);
    }
    let table = |i: usize| match tables[i] {
        0 => &[],
        // SAFETY: the dynamic linker has made an address of it, and gives its length.
        at => unsafe {
            let count = sizes[i] as usize / size_of::<Rela>();
            std::slice::from_raw_parts(at as *const Rela, count)
        },
    };
    [table(0), table(1)]
}
