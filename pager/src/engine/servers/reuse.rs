//! Progress of the search for slots of pages that are in the program.

use tmem_policy::PageNumber;

/// After this many pages have returned to the program, a new search is worthwhile.
const WORTH_A_LOOK: u64 = 64;

/// State of the search.
#[derive(Debug, Default)]
pub(crate) struct Reuse {
    /// The page at which the search goes on.
    cursor: PageNumber,
    /// The current round has begun at the first page of the page table.
    is_whole_round: bool,
    /// The current round has found a slot.
    found: bool,
    /// A whole round has found nothing.
    exhausted: bool,
    /// Pages that have returned to the program since then.
    came_home: u64,
}

impl Reuse {
    /// Returns the page at which the search goes on.
    pub(crate) fn cursor(&self) -> PageNumber {
        self.cursor
    }

    /// Tells whether no page in the program has a slot that could be taken back.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Counts `n` pages that have returned to the program, most of them with a slot.
    /// Returns whether a search is worthwhile again.
    pub(crate) fn came_home(&mut self, n: u64) -> bool {
        self.came_home += n;
        let again = self.exhausted && self.came_home >= WORTH_A_LOOK;
        if again {
            *self = Reuse {
                cursor: self.cursor,
                ..Reuse::default()
            };
        }
        again
    }

    /// Ends the search until pages return to the program.
    pub(crate) fn give_up(&mut self) {
        self.exhausted = true;
        self.came_home = 0;
    }

    /// Notes what a step of the search has found, and the page at which the next begins.
    /// `None` is the end of the table.
    pub(crate) fn looked(&mut self, found: bool, next: Option<PageNumber>) {
        self.found |= found;
        if next.is_none() {
            if self.is_whole_round && !self.found {
                self.give_up();
            }
            self.is_whole_round = true;
            self.found = false;
        }
        self.cursor = next.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_round_without_a_slot_ends_the_search_until_pages_come_home() {
        let mut reuse = Reuse::default();
        reuse.looked(false, Some(PageNumber::new(7)));
        assert_eq!(reuse.cursor, PageNumber::new(7));
        // This round may have begun in the middle.
        reuse.looked(false, None);
        assert!(!reuse.is_exhausted());
        reuse.looked(true, Some(PageNumber::new(3)));
        reuse.looked(false, None);
        assert!(!reuse.is_exhausted());
        reuse.looked(false, None);
        assert!(reuse.is_exhausted());
        assert!(!reuse.came_home(WORTH_A_LOOK - 1) && reuse.is_exhausted());
        assert!(reuse.came_home(1) && !reuse.is_exhausted());
        assert!(!reuse.came_home(1000));
        reuse.give_up();
        assert!(reuse.is_exhausted() && reuse.came_home(1000));
    }
}
