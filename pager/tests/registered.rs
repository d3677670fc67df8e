//! What the kernel tells of ranges that were registered.

use rustix::io::Errno;
use tmem_pager::sys::mem::Region;
use tmem_pager::sys::uffd::{REGISTER_MISSING, REGISTER_WP, Uffd};

const PAGE: usize = 4096;

/// A mapping counts as not held if a part of it was unmapped and mapped anew after it was
/// registered: the new pages would cause no faults.
#[test]
fn a_range_with_a_hole_or_another_mapping_in_it_is_not_held() {
    let uffd = Uffd::open(0).expect("a userfaultfd can be had");
    let nowhere = Region::nowhere().expect("a page can be mapped").start;
    let region = Region::new(8 * PAGE).expect("memory can be mapped");
    let start = region.start;
    // SAFETY: the address is within the region, which belongs to this test.
    unsafe { std::ptr::write_volatile(start as *mut u8, 7) };
    let held = |at: usize, pages: usize| uffd.holds(at, pages * PAGE, nowhere);

    assert_eq!(held(start, 8), Ok(false), "it is not registered");
    uffd.register(start, region.len, REGISTER_MISSING | REGISTER_WP)
        .expect("it can be registered");
    assert_eq!(held(start, 8), Ok(true));
    assert_eq!(held(start + 2 * PAGE, 3), Ok(true));

    let hole = start + 3 * PAGE;
    // SAFETY: as above. Nothing uses these pages.
    unsafe { rustix::mm::munmap(hole as *mut _, PAGE) }.expect("it can be unmapped");
    assert_eq!(held(start, 8), Ok(false), "there is a hole");
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: nothing is mapped there.
    let new = unsafe { rustix::mm::mmap_anonymous(hole as *mut _, PAGE, prot, flags) };
    assert_eq!(new.map(|at| at as usize), Ok::<_, Errno>(hole));
    assert_eq!(held(start, 8), Ok(false), "there is another mapping");
    assert_eq!(held(start, 3), Ok(true));

    // The question itself changed nothing. SAFETY: the test has filled the page.
    assert_eq!(unsafe { std::ptr::read_volatile(start as *const u8) }, 7);
}

/// The kernel answers differently for huge pages and for small ones.
#[test]
fn a_range_of_huge_pages_is_held() {
    const HUGE: usize = 2 << 20;
    let uffd = Uffd::open(0).expect("a userfaultfd can be had");
    let nowhere = Region::nowhere().expect("a page can be mapped").start;
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let flags = rustix::mm::MapFlags::PRIVATE;
    // SAFETY: this maps new memory at an address that the kernel chooses.
    let at = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4 * HUGE, prot, flags) };
    let start = (at.expect("memory can be mapped") as usize).next_multiple_of(HUGE);
    // SAFETY: the memory belongs to this test, and the advice changes no contents.
    let advised = unsafe {
        rustix::mm::madvise(start as *mut _, 2 * HUGE, rustix::mm::Advice::LinuxHugepage)
    };
    if advised.is_err() {
        eprintln!("skipped: this kernel has no huge pages");
        return;
    }
    // SAFETY: the range is within the memory, which belongs to this test.
    unsafe { std::ptr::write_bytes(start as *mut u8, 7, 2 * HUGE) };
    uffd.register(start, 2 * HUGE, REGISTER_MISSING | REGISTER_WP)
        .expect("it can be registered");
    assert_eq!(uffd.holds(start, 2 * HUGE, nowhere), Ok(true));
    // SAFETY: the test has filled the page.
    assert_eq!(unsafe { std::ptr::read_volatile(start as *const u8) }, 7);
}

/// The kernel requires as much address space behind the unreadable page as the range is
/// long. That page may lie near the end of the address space.
#[test]
fn a_range_is_held_wherever_nothing_can_be_read() {
    const END: usize = 0x7fff_ffff_f000;
    let uffd = Uffd::open(0).expect("a userfaultfd can be had");
    let region = Region::new(64 * PAGE).expect("memory can be mapped");
    uffd.register(region.start, region.len, REGISTER_MISSING | REGISTER_WP)
        .expect("it can be registered");
    for behind in [1, 5, 63, 64, 65] {
        let nowhere = END - behind * PAGE;
        let held = uffd.holds(region.start, region.len, nowhere);
        assert_eq!(held, Ok(true), "{behind} pages from the end");
    }
}
