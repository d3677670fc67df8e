//! Symbols of loaded libraries, looked up without the dynamic linker.
//!
//! `dlsym` has side effects: see [`crate::interpose::next`]. The code here reads the tables
//! that libraries bring (System V ABI, chapter 5, and the GNU extensions to it). It calls
//! nothing, allocates nothing, and works before this library is relocated.

use core::ffi::{CStr, c_char};
use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Sym};

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_VERSYM: u64 = 0x6fff_fff0;

/// The flag of a version that is only for those who ask for it.
const HIDDEN_VERSION: u16 = 0x8000;
/// The lowest number of a version that a library defines.
const FIRST_VERSION: u16 = 2;

const STB_LOCAL: u8 = 0;
const STT_OBJECT: u8 = 1;
const STT_TLS: u8 = 6;
const STT_GNU_IFUNC: u8 = 10;
const STV_HIDDEN: u8 = 2;
const STV_INTERNAL: u8 = 1;
const SHN_UNDEF: u16 = 0;

/// The symbols of a loaded library.
pub(crate) struct Object {
    base: usize,
    dynamic: usize,
    strings: usize,
    symbols: usize,
    versions: Option<usize>,
    table: Table,
}

/// How symbols are found by name.
enum Table {
    Gnu(usize),
    SystemV(usize),
}

impl Object {
    /// The library that was loaded at `base` with the dynamic section at `dynamic`.
    ///
    /// # Safety
    /// There is one, and it stays loaded as long as the value is used.
    pub(crate) unsafe fn of_dynamic(base: usize, dynamic: usize) -> Option<Object> {
        // The dynamic linker has turned offsets into addresses, unless the section cannot be
        // written.
        let address = |value: usize| if value < base { value + base } else { value };
        let (mut strings, mut symbols, mut versions) = (None, None, None);
        let (mut gnu, mut system_v) = (None, None);
        let mut at = dynamic as *const [u64; 2];
        if at.is_null() {
            return None;
        }
        loop {
            // SAFETY: by the caller; the section ends with a null tag.
            let [tag, value] = unsafe { *at };
            let value = Some(address(value as usize));
            match tag {
                DT_NULL => break,
                DT_STRTAB => strings = value,
                DT_SYMTAB => symbols = value,
                DT_VERSYM => versions = value,
                DT_GNU_HASH => gnu = value,
                DT_HASH => system_v = value,
                _ => {}
            }
            at = at.wrapping_add(1);
        }
        let table = gnu.map(Table::Gnu).or(system_v.map(Table::SystemV))?;
        Some(Object {
            base,
            dynamic,
            strings: strings?,
            symbols: symbols?,
            versions,
            table,
        })
    }

    /// The library that was loaded at `base` and has these program headers.
    ///
    /// # Safety
    /// As [`Object::of_dynamic`]; there are `count` headers.
    pub(crate) unsafe fn of_headers(
        base: usize,
        headers: *const Elf64_Phdr,
        count: usize,
    ) -> Option<Object> {
        // SAFETY: by the caller.
        let mut headers = (0..count).map(|i| unsafe { &*headers.wrapping_add(i) });
        let dynamic = headers.find(|h| h.p_type == libc::PT_DYNAMIC)?;
        // SAFETY: by the caller.
        unsafe { Object::of_dynamic(base, base + dynamic.p_vaddr as usize) }
    }

    /// The library whose file was loaded at `base`, from its first byte on.
    ///
    /// # Safety
    /// As [`Object::of_dynamic`].
    pub(crate) unsafe fn of_file(base: usize) -> Option<Object> {
        let file = base as *const Elf64_Ehdr;
        if file.is_null() {
            return None;
        }
        // SAFETY: by the caller: the file begins there, and says how many headers it has.
        unsafe {
            let headers = (base + (*file).e_phoff as usize) as *const Elf64_Phdr;
            Object::of_headers(base, headers, (*file).e_phnum.into())
        }
    }

    /// What is added to the addresses in its file.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// Whether an address lies within it. The file of a library begins at address 0.
    pub(crate) fn contains(&self, at: usize) -> bool {
        let file = self.base as *const Elf64_Ehdr;
        // SAFETY: the library is loaded, by `of_dynamic`: its file begins there, and has so
        // many program headers.
        let headers = unsafe {
            let first = (self.base + (*file).e_phoff as usize) as *const Elf64_Phdr;
            std::slice::from_raw_parts(first, (*file).e_phnum.into())
        };
        headers.iter().any(|header| {
            let start = self.base + header.p_vaddr as usize;
            header.p_type == libc::PT_LOAD && (start..start + header.p_memsz as usize).contains(&at)
        })
    }

    /// The name of the symbol of that index.
    ///
    /// # Safety
    /// As [`Object::of_dynamic`]; there is such a symbol.
    pub(crate) unsafe fn name(&self, index: usize) -> &[u8] {
        // SAFETY: by the caller; a name ends with a zero.
        unsafe {
            let symbol = &*(self.symbols as *const Elf64_Sym).wrapping_add(index);
            let text = (self.strings + symbol.st_name as usize) as *const c_char;
            CStr::from_ptr(text).to_bytes()
        }
    }

    /// Where its dynamic section is.
    pub(crate) fn dynamic(&self) -> usize {
        self.dynamic
    }

    /// The address of the function or variable of that name in its default version.
    ///
    /// # Safety
    /// As [`Object::of_dynamic`]. Where the library chooses a function by another, that one
    /// is called: the library is relocated.
    pub(crate) unsafe fn find(&self, name: &[u8]) -> Option<usize> {
        // SAFETY: by the caller.
        let symbol = unsafe { self.symbol(name) }?;
        // SAFETY: by the caller.
        Some(unsafe { self.address(symbol) })
    }

    /// The same for functions only. A variable may have been copied into the program, and
    /// then the library's own is not used by anybody.
    ///
    /// # Safety
    /// As [`Object::find`].
    pub(crate) unsafe fn find_function(&self, name: &[u8]) -> Option<usize> {
        // SAFETY: by the caller.
        let symbol = unsafe { self.symbol(name) }?;
        // SAFETY: by the caller.
        (symbol.st_info & 0xf != STT_OBJECT).then(|| unsafe { self.address(symbol) })
    }

    /// # Safety
    /// As [`Object::find`].
    unsafe fn symbol(&self, name: &[u8]) -> Option<&Elf64_Sym> {
        // SAFETY: by the caller.
        unsafe {
            match self.table {
                Table::Gnu(table) => self.find_gnu(table, name),
                Table::SystemV(table) => self.find_system_v(table, name),
            }
        }
    }

    /// # Safety
    /// As [`Object::find`], for a symbol of this object.
    unsafe fn address(&self, symbol: &Elf64_Sym) -> usize {
        let at = self.base.wrapping_add(symbol.st_value as usize);
        if symbol.st_info & 0xf != STT_GNU_IFUNC {
            return at;
        }
        // SAFETY: the ABI says so of symbols of this type; on x86-64 it takes no arguments.
        unsafe { std::mem::transmute::<usize, extern "C" fn() -> usize>(at)() }
    }

    /// # Safety
    /// As [`Object::find`].
    unsafe fn find_gnu(&self, table: usize, name: &[u8]) -> Option<&Elf64_Sym> {
        let hash = gnu_hash(name);
        // SAFETY: by the caller: the layout of DT_GNU_HASH. Four words, a bloom filter of
        // words of 64 bits, buckets, and chains of hashes whose last has its lowest bit set.
        unsafe {
            let [buckets, first, filters, shift] = *(table as *const [u32; 4]);
            let filter = (table + 16) as *const u64;
            let word = *filter.wrapping_add((hash / 64 % filters.max(1)) as usize);
            let both = 1u64 << (hash % 64) | 1u64 << ((hash >> (shift % 32)) % 64);
            if buckets == 0 || word & both != both {
                return None;
            }
            let bucket = filter.wrapping_add(filters as usize).cast::<u32>();
            let chains = bucket.wrapping_add(buckets as usize);
            let mut index = *bucket.wrapping_add((hash % buckets) as usize);
            if index < first {
                return None;
            }
            loop {
                let chained = *chains.wrapping_add((index - first) as usize);
                if chained | 1 == hash | 1
                    && let Some(symbol) = self.matching(index as usize, name)
                {
                    return Some(symbol);
                }
                if chained & 1 != 0 {
                    return None;
                }
                index += 1;
            }
        }
    }

    /// The old table says how many symbols there are, which are looked at one by one: few
    /// libraries have no other.
    ///
    /// # Safety
    /// As [`Object::find`].
    unsafe fn find_system_v(&self, table: usize, name: &[u8]) -> Option<&Elf64_Sym> {
        // SAFETY: by the caller: the second word is the number of symbols.
        let [_, count] = unsafe { *(table as *const [u32; 2]) };
        // SAFETY: by the caller.
        (0..count as usize).find_map(|index| unsafe { self.matching(index, name) })
    }

    /// The symbol of that index, if it is a definition with that name for everybody.
    ///
    /// # Safety
    /// As [`Object::find`]; there is such a symbol.
    unsafe fn matching(&self, index: usize, name: &[u8]) -> Option<&Elf64_Sym> {
        // SAFETY: by the caller; a name ends with a zero.
        unsafe {
            let symbol = &*(self.symbols as *const Elf64_Sym).wrapping_add(index);
            let is_defined = symbol.st_shndx != SHN_UNDEF
                && symbol.st_info >> 4 != STB_LOCAL
                && symbol.st_info & 0xf != STT_TLS
                && !matches!(symbol.st_other & 3, STV_HIDDEN | STV_INTERNAL);
            if !is_defined {
                return None;
            }
            let text = (self.strings + symbol.st_name as usize) as *const u8;
            for (i, byte) in name.iter().enumerate() {
                if *text.wrapping_add(i) != *byte {
                    return None;
                }
            }
            if *text.wrapping_add(name.len()) != 0 {
                return None;
            }
            let version = |at: usize| *(at as *const u16).wrapping_add(index);
            let is_default = self
                .versions
                .map(version)
                .is_none_or(|v| v & !HIDDEN_VERSION < FIRST_VERSION || v & HIDDEN_VERSION == 0);
            is_default.then_some(symbol)
        }
    }
}

fn gnu_hash(name: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add((*byte).into());
    name.iter().fold(5381, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{CStr, c_int, c_void};

    struct Search {
        name: &'static CStr,
        by_table: Vec<usize>,
    }

    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: valid for the time of the call.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        // SAFETY: a loaded library with so many headers.
        let found = unsafe {
            let (base, count) = (info.dlpi_addr as usize, info.dlpi_phnum.into());
            Object::of_headers(base, info.dlpi_phdr, count)
                .and_then(|object| object.find(search.name.to_bytes()))
        };
        search.by_table.extend(found);
        0
    }

    #[test]
    fn symbols_are_those_of_the_dynamic_linker() {
        // A function, one of several versions, one that is chosen at start, and a variable.
        for name in [c"mmap", c"memcpy", c"strlen", c"_IO_list_all", c"fopen"] {
            let mut search = Search {
                name,
                by_table: Vec::new(),
            };
            // SAFETY: the callback takes the argument for what it is.
            unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
            // SAFETY: a C string.
            let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) } as usize;
            assert!(search.by_table.contains(&known), "{name:?}");
        }
    }

    #[test]
    fn nothing_is_found_that_is_not_there() {
        let mut search = Search {
            name: c"no_function_has_this_name",
            by_table: Vec::new(),
        };
        // SAFETY: the callback takes the argument for what it is.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
        assert!(search.by_table.is_empty());
    }

    #[test]
    fn names_hash_as_the_linker_hashes_them() {
        assert_eq!(gnu_hash(b""), 0x1505);
        assert_eq!(gnu_hash(b"printf"), 0x156b_2bb8);
    }
}
