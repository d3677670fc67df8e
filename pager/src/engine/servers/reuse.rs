//! Follows the search for slots of pages that are in the program.

/// After so many pages have come home there are slots to take back again.
const WORTH_A_LOOK: u64 = 64;

/// Where the search for such slots stands.
#[derive(Debug, Default)]
pub(crate) struct Reuse {
    /// The page to go on with.
    cursor: u64,
    /// The present round through the page table began at its first page.
    is_whole_round: bool,
    /// A slot was found in the present round.
    found: bool,
    /// A whole round has found none.
    exhausted: bool,
    /// Pages that have come home since then.
    came_home: u64,
}

impl Reuse {
    /// The page to go on with.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether no page in the program has a slot that could be taken back.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Notes that `n` pages have come home, most with a slot; whether it is worth looking
    /// again where it was not.
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

    /// Nothing can be taken back until pages come home.
    pub(crate) fn give_up(&mut self) {
        self.exhausted = true;
        self.came_home = 0;
    }

    /// Notes what a look has found, and where it ended: at a page, or the table's end.
    pub(crate) fn looked(&mut self, found: bool, next: Option<u64>) {
        self.found |= found;
        if next.is_none() {
            if self.is_whole_round && !self.found {
                self.give_up();
            }
            self.is_whole_round = true;
            self.found = false;
        }
        self.cursor = next.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_round_without_a_slot_ends_the_search_until_pages_come_home() {
        let mut reuse = Reuse::default();
        reuse.looked(false, Some(7));
        assert_eq!(reuse.cursor, 7);
        // This round may have begun in the middle.
        reuse.looked(false, None);
        assert!(!reuse.is_exhausted());
        reuse.looked(true, Some(3));
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
