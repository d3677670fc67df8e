//! The memory that the engine must never page: memory that its own code uses.

use std::ops::Range;

const PAGE: usize = 4096;

/// This library's heaps, and all memory of the loaded shared objects except the executable's
/// own. In order.
pub(crate) fn ranges() -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = crate::heap::ranges();
    // SAFETY: the callback takes the argument for what it is.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found.sort_unstable_by_key(|r| r.start);
    found
}

unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    found: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: valid for the time of the call.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Range<usize>>>()) };
    // The program itself has an empty name, and comes first.
    // SAFETY: a C string, or nothing.
    let is_program = info.dlpi_name.is_null() || unsafe { *info.dlpi_name } == 0;
    if is_program || info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the dynamic linker says where they are, and how many.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD) {
        let start = info.dlpi_addr as usize + header.p_vaddr as usize;
        let end = start + header.p_memsz as usize;
        found.push(start / PAGE * PAGE..end.next_multiple_of(PAGE));
    }
    0
}
