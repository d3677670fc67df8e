//! Pages that the program has lent to a pipe, which stay in its memory.
//!
//! After `vmsplice` a pipe shows what the program writes to the page, as long as that stays
//! where it is: a page that leaves and comes back is another one for the pipe. Nobody is told
//! when a pipe has been read. So the last pages that were lent stay, and those before may
//! leave.

use crate::engine::memory::address::page;
use crate::engine::threads::{LENT_PAGES, THREADS};
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The program is about to lend this memory to a pipe: its last pages are to stay. Called by
/// threads of the program, with signals blocked.
pub fn keep_in_place(range: &Range<usize>) {
    if range.is_empty() {
        return;
    }
    let end = page(range.end - 1) + 1;
    let start = page(range.start).max(end.saturating_sub(LENT_PAGES as u64));
    for number in start..end {
        // What cannot be noted may leave.
        if THREADS.lending.pages.insert(number) != Ok(true) {
            continue;
        }
        let place = THREADS.lending.count.fetch_add(1, Relaxed) % LENT_PAGES;
        let before = THREADS.lending.last[place].swap(number, SeqCst);
        if before != 0 && before != number {
            THREADS.lending.pages.remove(&(before..before + 1));
        }
    }
}

/// Whether a page is one of these.
pub(crate) fn contain(page: u64) -> bool {
    THREADS.lending.pages.contains(page)
}

/// Pages are unmapped.
pub(crate) fn unmapped(pages: &Range<u64>) {
    THREADS.lending.pages.remove(pages);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::threads::for_this_test;

    #[test]
    fn the_last_pages_that_were_lent_stay() {
        let _alone = for_this_test();
        const PAGE: usize = tmem_wire::PAGE_SIZE;
        let lend = |first: usize, n: usize| {
            // Some bytes of the first and of the last page will do.
            keep_in_place(&(first * PAGE + 100..(first + n - 1) * PAGE + 200));
        };
        lend(1000, 2);
        assert!(!contain(999) && contain(1000) && contain(1001) && !contain(1002));
        lend(5000, LENT_PAGES - 2);
        assert!(contain(1000) && contain(5000));
        lend(9000, 1);
        assert!(!contain(1000) && contain(1001) && contain(9000));
        unmapped(&(5000..5010));
        assert!(!contain(5009) && contain(5010));
        // Of more pages than may stay, the last.
        lend(20_000, 3 * LENT_PAGES);
        assert!(!contain(1001) && !contain(20_000 + 2 * LENT_PAGES as u64 - 1));
        assert!(
            contain(20_000 + 2 * LENT_PAGES as u64) && contain(20_000 + 3 * LENT_PAGES as u64 - 1)
        );
        keep_in_place(&(7..7));
        THREADS.lending.reset_after_fork();
        assert!(!contain(20_000 + 3 * LENT_PAGES as u64 - 1));
    }
}
