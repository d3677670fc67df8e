//! `mincore`, for which what is elsewhere is in memory: see
//! `tmem_pager::engine::pages_there`.

use super::interpose;
use crate::errno;
use crate::raw::raw_syscall;
use libc::{c_int, c_uchar, c_void, size_t};
use tmem_pager::engine::exclusion::are_reported;

const PAGE: usize = 4096;

interpose! {
    /// `mincore(2)`.
    mincore => Mincore, own_mincore;
}

/// `mincore(2)`, for which memory that is elsewhere is there.
///
/// # Safety
/// As for the C library's.
pub(crate) unsafe extern "C" fn own_mincore(
    at: *mut c_void,
    len: size_t,
    vec: *mut c_uchar,
) -> c_int {
    let args = [at as usize, len, vec as usize, 0, 0, 0];
    // SAFETY: by the caller.
    let result = unsafe { raw_syscall(libc::SYS_mincore, args) };
    if result < 0 {
        errno::set(-result as c_int);
        return -1;
    }
    let pages = len.div_ceil(PAGE);
    // SAFETY: the kernel has just written so many bytes there.
    let all = (0..pages).all(|page| unsafe { vec.add(page).read() } & 1 != 0);
    if all || !are_reported() {
        return 0;
    }
    crate::heap::undisturbed(|| {
        tmem_pager::engine::pages_there(at as usize, pages, |page| {
            // SAFETY: as above: one of so many bytes.
            unsafe { *vec.add(page) |= 1 };
        });
    });
    0
}
