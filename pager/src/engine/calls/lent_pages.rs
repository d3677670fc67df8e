//! Pages that the program has lent to a pipe, and that have to stay in its memory.
//!
//! After `vmsplice` a pipe shows what the program writes to a page, as long as the page is
//! not moved: a page that leaves and returns is another one for the pipe. Nothing tells
//! when a pipe was read. So the most recently lent pages stay, and earlier ones may leave.

use crate::engine::memory::address::page;
use crate::engine::threads::{LENT_PAGES, THREADS};
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use tmem_policy::PageNumber;

/// Notes that the program is about to lend this memory to a pipe, so that its last pages
/// stay. Called by threads of the program, with signals blocked.
pub fn keep_in_place(range: &Range<usize>) {
    if range.is_empty() {
        return;
    }
    let end = page(range.end - 1) + 1;
    let start = page(range.start);
    let passed_over = (end - start).saturating_sub(LENT_PAGES);
    for number in (start + passed_over).until(end) {
        // A page that cannot be noted may leave.
        if THREADS.lending.pages.insert(number) != Ok(true) {
            continue;
        }
        let place = THREADS.lending.count.fetch_add(1, Relaxed) % LENT_PAGES;
        let before = THREADS.lending.last[place].swap(number.get(), SeqCst);
        if before != 0 && before != number.get() {
            let before = PageNumber::new(before);
            THREADS.lending.pages.remove(&(before..before + 1));
        }
    }
}

/// Tells whether a page has to stay.
pub(crate) fn contain(page: PageNumber) -> bool {
    THREADS.lending.pages.contains(page)
}

/// Removes pages that were unmapped.
pub(crate) fn unmapped(pages: &Range<PageNumber>) {
    THREADS.lending.pages.remove(pages);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::threads::for_this_test;

    fn p(number: u64) -> PageNumber {
        PageNumber::new(number)
    }

    #[test]
    fn the_last_pages_that_were_lent_stay() {
        let _alone = for_this_test();
        const PAGE: usize = tmem_wire::PAGE_SIZE;
        let lend = |first: usize, n: usize| {
            // A part of the first and of the last page is enough.
            keep_in_place(&(first * PAGE + 100..(first + n - 1) * PAGE + 200));
        };
        lend(1000, 2);
        assert!(!contain(p(999)) && contain(p(1000)) && contain(p(1001)) && !contain(p(1002)));
        lend(5000, LENT_PAGES - 2);
        assert!(contain(p(1000)) && contain(p(5000)));
        lend(9000, 1);
        assert!(!contain(p(1000)) && contain(p(1001)) && contain(p(9000)));
        unmapped(&(p(5000)..p(5010)));
        assert!(!contain(p(5009)) && contain(p(5010)));
        // Of more pages than may stay, the last ones do.
        lend(20_000, 3 * LENT_PAGES);
        assert!(!contain(p(1001)) && !contain(p(20_000 + 2 * LENT_PAGES as u64 - 1)));
        assert!(
            contain(p(20_000 + 2 * LENT_PAGES as u64))
                && contain(p(20_000 + 3 * LENT_PAGES as u64 - 1))
        );
        keep_in_place(&(7..7));
        THREADS.lending.reset_after_fork();
        assert!(!contain(p(20_000 + 3 * LENT_PAGES as u64 - 1)));
    }
}
