//! What the kernel says of ranges that were registered.

use rustix::io::Errno;
use tmem_pager::sys::mem::Region;
use tmem_pager::sys::uffd::{REGISTER_MISSING, REGISTER_WP, Uffd};

const PAGE: usize = 4096;

/// A mapping in whose middle something was unmapped and mapped anew after it was
/// registered is not held: pages of the new mapping would not be faulted for.
#[test]
fn a_range_with_a_hole_or_another_mapping_in_it_is_not_held() {
    let uffd = Uffd::open(0).expect("a userfaultfd can be had");
    let nowhere = Region::nowhere().expect("a page can be mapped").start;
    let region = Region::new(8 * PAGE).expect("memory can be mapped");
    let start = region.start;
    // SAFETY: within the region, which is this test's.
    unsafe { std::ptr::write_volatile(start as *mut u8, 7) };
    let held = |at: usize, pages: usize| uffd.holds(at, pages * PAGE, nowhere);

    assert_eq!(held(start, 8), Ok(false), "it is not registered");
    uffd.register(start, region.len, REGISTER_MISSING | REGISTER_WP)
        .expect("it can be registered");
    assert_eq!(held(start, 8), Ok(true));
    assert_eq!(held(start + 2 * PAGE, 3), Ok(true));

    let hole = start + 3 * PAGE;
    // SAFETY: as above; nobody uses these pages.
    unsafe { rustix::mm::munmap(hole as *mut _, PAGE) }.expect("it can be unmapped");
    assert_eq!(held(start, 8), Ok(false), "there is a hole");
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: nothing is there.
    let new = unsafe { rustix::mm::mmap_anonymous(hole as *mut _, PAGE, prot, flags) };
    assert_eq!(new.map(|at| at as usize), Ok::<_, Errno>(hole));
    assert_eq!(held(start, 8), Ok(false), "there is another mapping");
    assert_eq!(held(start, 3), Ok(true));

    // To ask has changed nothing.
    // SAFETY: the page is there, by this test's own hand.
    assert_eq!(unsafe { std::ptr::read_volatile(start as *const u8) }, 7);
}
