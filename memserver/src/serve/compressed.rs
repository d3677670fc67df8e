//! Receives compressed pages into a slab, page by page, so that a WRITE needs no memory of the
//! server beside the slab.

use crate::serve::connection::{Conn, End};
use crate::serve::wipe::Wiped;
use tmem_wire::packed::unpack_page;
use tmem_wire::{Header, MAX_RUN, PAGE_SIZE, PageBytes};

/// Bytes of a page's length.
const LENGTH: usize = 2;

/// Bytes received at a time.
const ROOM: usize = 64 << 10;

/// Receives the compressed pages of a WRITE to memory at `to`. Returns whether they were
/// valid. If not, the contents of the memory are undefined.
///
/// # Safety
/// The pages of the run, from `to` on, must be memory that may be written.
pub(crate) unsafe fn receive(conn: &mut Conn, header: &Header, to: *mut u8) -> Result<bool, End> {
    let count = header.count as usize;
    let mut lengths = [0u8; MAX_RUN as usize * LENGTH];
    let lengths = &mut lengths[..count * LENGTH];
    // SAFETY: the memory is `lengths`.
    unsafe { conn.payload(lengths.as_mut_ptr(), lengths.len())? };
    let len = |i: usize| usize::from(u16::from_le_bytes([lengths[2 * i], lengths[2 * i + 1]]));
    let all = header.len as usize - lengths.len();
    let fits = (0..count).all(|i| len(i) <= PAGE_SIZE);
    if !fits || (0..count).map(len).sum::<usize>() != all {
        conn.skip(all)?;
        return Ok(false);
    }
    let mut room = Wiped::new(ROOM.min(all));
    let mut page: Box<Wiped<PageBytes>> = Box::new(Wiped([0; PAGE_SIZE]));
    let (mut next, mut left) = (0, all);
    while next < count {
        // Only whole pages for which there is room.
        let first = next;
        let mut batch = 0;
        while next < count && batch + len(next) <= ROOM {
            batch += len(next);
            next += 1;
        }
        // SAFETY: the memory is `room`, which has as much at least.
        unsafe { conn.payload(room.0.as_mut_ptr(), batch)? };
        left -= batch;
        let mut at = 0;
        for i in first..next {
            let bytes = &room.0[at..at + len(i)];
            at += bytes.len();
            match bytes.len() {
                0 => page.0.fill(0),
                PAGE_SIZE => page.0.copy_from_slice(bytes),
                _ if unpack_page(bytes, &mut page.0) => {}
                _ => {
                    conn.skip(left)?;
                    return Ok(false);
                }
            }
            let to = to.wrapping_add(i * PAGE_SIZE);
            // SAFETY: a page of the run, by the caller; nobody has references to it.
            unsafe { std::ptr::copy_nonoverlapping(page.0.as_ptr(), to, PAGE_SIZE) };
        }
    }
    Ok(true)
}
