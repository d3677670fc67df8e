//! The dynamic linker's list of libraries, found without calling it.

use super::map::LinkMap;
use super::object::Object;
use crate::raw::raw_syscall;
use core::arch::asm;
use core::ffi::{c_int, c_void};

/// This library and the C library.
///
/// # Safety
/// No other thread loads or unloads a library meanwhile.
pub(crate) unsafe fn libraries() -> Option<(Object, Object)> {
    let first = first_map()?;
    // SAFETY: by the caller; the list is the dynamic linker's.
    unsafe {
        let own = (*LinkMap::find(first, own_dynamic())?).object()?;
        let libc = LinkMap::all(first)
            .filter_map(|map| (*map).object())
            .find(|object| object.find(b"gnu_get_libc_version").is_some())?;
        Some((own, libc))
    }
}

/// Where this library's own dynamic section is.
pub(crate) fn own_dynamic() -> usize {
    let at: usize;
    // SAFETY: takes an address, which the linker knows.
    unsafe {
        asm!("lea {}, [rip + _DYNAMIC]", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    at
}

/// The dynamic linker's `_r_debug`, once this library is relocated.
fn r_debug() -> Option<usize> {
    let at: usize;
    // SAFETY: reads the library's own table of addresses. The entry is zero until the
    // library is relocated.
    unsafe {
        asm!("mov {}, qword ptr [rip + _r_debug@GOTPCREL]", out(reg) at,
            options(readonly, nostack, preserves_flags));
    }
    (at != 0).then_some(at)
}

/// Whether this library is relocated.
pub(crate) fn is_relocated() -> bool {
    r_debug().is_some()
}

/// The first entry of the dynamic linker's list of libraries: the program itself.
pub(crate) fn first_map() -> Option<*const LinkMap> {
    let debug = r_debug().or_else(r_debug_of_the_kernel)?;
    // SAFETY: `struct r_debug`: a version, then the list.
    let first = unsafe { *((debug + size_of::<usize>()) as *const *const LinkMap) };
    (!first.is_null()).then_some(first)
}

/// Bytes of the auxiliary vector that are looked at; it has some 20 entries of 16 bytes.
const AUXV: usize = 1024;

/// `_r_debug`, found from where the kernel says that it put the dynamic linker.
fn r_debug_of_the_kernel() -> Option<usize> {
    let mut words = [0usize; AUXV / size_of::<usize>()];
    let count = auxv(&mut words) / size_of::<usize>();
    let value = |kind: u64| {
        let mut pairs = words[..count].chunks_exact(2);
        let found = pairs.find(|pair| pair[0] == kind as usize);
        found.map_or(0, |pair| pair[1])
    };
    // The base is 0 where the dynamic linker was started by its name, as a program.
    let headers = value(libc::AT_PHDR);
    let base = value(libc::AT_BASE);
    let base = if base == 0 { headers & !0xfff } else { base };
    // SAFETY: the kernel has loaded a program there.
    unsafe { Object::of_file(base)?.find(b"_r_debug") }
}

/// Reads the auxiliary vector without the C library; how many bytes.
fn auxv(words: &mut [usize; AUXV / size_of::<usize>()]) -> usize {
    /// Linux 6.4.
    const PR_GET_AUXV: usize = 0x4155_5856;
    let at = words.as_mut_ptr() as usize;
    let path = c"/proc/self/auxv".as_ptr() as usize;
    let read_only = libc::O_RDONLY as usize;
    // SAFETY: the buffer has room for what is asked for; the path is a C string.
    let got = unsafe {
        let got = raw_syscall(libc::SYS_prctl, [PR_GET_AUXV, at, AUXV, 0, 0, 0]);
        if got > 0 {
            got
        } else {
            let fd = raw_syscall(libc::SYS_open, [path, read_only, 0, 0, 0, 0]);
            let got = raw_syscall(libc::SYS_read, [fd as usize, at, AUXV, 0, 0, 0]);
            raw_syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
            got
        }
    };
    // The vector may be longer than what there is room for.
    usize::try_from(got).unwrap_or(0).min(AUXV)
}

/// Finds a function or variable in any library that is loaded by now, also one that was
/// loaded late and for itself. It waits while another thread loads a library.
pub(crate) fn find_late(name: &'static [u8]) -> Option<usize> {
    let mut late = Late { name, found: None };
    // SAFETY: the callback takes the argument for what it is.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut late).cast()) };
    late.found
}

struct Late {
    name: &'static [u8],
    found: Option<usize>,
}

unsafe extern "C" fn look(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    late: *mut c_void,
) -> c_int {
    // SAFETY: valid for the time of the call.
    let (info, late) = unsafe { (&*info, &mut *late.cast::<Late>()) };
    let base = info.dlpi_addr as usize;
    // SAFETY: the dynamic linker describes a loaded library, with its number of headers.
    let object = unsafe { Object::of_headers(base, info.dlpi_phdr, info.dlpi_phnum.into()) };
    // SAFETY: as above; it stays loaded for the time of the call.
    late.found = unsafe {
        let object = object.filter(|o| o.dynamic() != own_dynamic());
        object.and_then(|o| o.find(late.name))
    };
    late.found.is_some().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dynamic_linkers_list_is_found_without_its_help() {
        assert!(r_debug().is_some());
        assert_eq!(r_debug_of_the_kernel(), r_debug());
    }

    #[test]
    fn what_is_loaded_is_found_by_its_name() {
        // SAFETY: a C string.
        let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_malloc".as_ptr()) };
        assert_eq!(find_late(b"__libc_malloc"), Some(known as usize));
        assert_eq!(find_late(b"no_function_has_this_name"), None);
    }
}
