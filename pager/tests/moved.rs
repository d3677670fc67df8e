//! What the kernel tells of pages that it has moved.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tmem_pager::sys::mem::Region;
use tmem_pager::sys::proc::Proc;
use tmem_pager::sys::uffd::{REGISTER_MISSING, REGISTER_WP, Transfer, Uffd, feature};

const PAGE: usize = 4096;
const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;

/// Moves pages until all have moved. After each call, as many pages have left as the kernel
/// told, and the others have not.
fn moves_all(there: &Proc, from: usize, mut go: impl FnMut(usize) -> Transfer) {
    let mut done = 0;
    while done < LEN {
        done += go(done).done;
        let mut left = Vec::new();
        there
            .occupied(from, from + LEN, &mut left)
            .expect("the page map can be read");
        let left: usize = left.iter().map(|run| run.end - run.start).sum();
        assert_eq!(left, LEN - done, "pages have moved that are not counted");
    }
}

/// Linux 6.18 does not count pages whose entry changed while they were moved, which are
/// those first used after their age was sampled.
#[test]
fn pages_that_are_used_while_they_move_are_counted() {
    let uffd = Uffd::open(feature::MOVE).expect("a userfaultfd can be had");
    if uffd.features & feature::MOVE == 0 {
        eprintln!("this kernel cannot move pages");
        return;
    }
    let proc = Proc::open().expect("/proc can be read");
    let program = Region::new(LEN).expect("memory can be mapped");
    let pool = Region::new(LEN).expect("memory can be mapped");
    for at in (0..LEN).step_by(PAGE) {
        // SAFETY: the address is within the region, which belongs to this test.
        unsafe { std::ptr::write_volatile((program.start + at) as *mut u8, (at / PAGE) as u8 + 1) };
    }
    uffd.register(program.start, LEN, REGISTER_MISSING)
        .expect("it can be registered");
    uffd.register(pool.start, LEN, REGISTER_WP)
        .expect("it can be registered");

    let end = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !end.load(Relaxed) {
                for at in (0..LEN).step_by(PAGE) {
                    // SAFETY: as above. If the page is absent, this waits for it.
                    let byte =
                        unsafe { std::ptr::read_volatile((program.start + at) as *const u8) };
                    assert_eq!(byte, (at / PAGE) as u8 + 1);
                }
            }
        });
        threads.spawn(|| {
            while !end.load(Relaxed) {
                // SAFETY: the advice changes no contents.
                let _ = unsafe {
                    rustix::mm::madvise(program.start as *mut _, LEN, rustix::mm::Advice::LinuxCold)
                };
            }
        });
        let _ends = Ends(|| {
            end.store(true, Relaxed);
            // A thread that waits for a lost page would wait for ever.
            let _ = uffd.unregister(program.start, LEN);
        });
        for _ in 0..10_000 {
            moves_all(&proc, program.start, |at| {
                let (to, from) = (pool.start + at, program.start + at);
                uffd.move_to_holes(&proc, to, from, LEN - at)
                    .expect("it is sure")
            });
            moves_all(&proc, pool.start, |at| {
                let (to, from) = (program.start + at, pool.start + at);
                uffd.move_present(&proc, to, from, LEN - at, false, true)
                    .expect("it is sure")
            });
        }
    });
}

/// Ends the threads, even if the test fails.
struct Ends<F: Fn()>(F);

impl<F: Fn()> Drop for Ends<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
