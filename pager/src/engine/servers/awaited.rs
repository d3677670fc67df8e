//! Pages that threads wait for, and when each is late.

use alloc::collections::VecDeque;
use tmem_policy::PageNumber;

/// The most reads that are watched: beyond, those that wait longest are not watched any
/// more.
const MOST: usize = 1 << 14;

/// Pages that threads wait for, and when each is late, about in this order.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    pages: VecDeque<(u64, PageNumber)>,
}

impl Awaited {
    /// A thread waits for a page since `since_ns`.
    pub(crate) fn watch(&mut self, page: PageNumber, late_at_ns: u64) {
        if self.pages.len() >= MOST {
            self.pages.pop_front();
        }
        self.pages.push_back((late_at_ns, page));
    }

    /// When the first is late.
    pub(crate) fn due(&self) -> Option<u64> {
        self.pages.front().map(|(due, _)| *due)
    }

    /// Drops pages from the front for which no thread waits any more, so that no timer is set
    /// for them.
    pub(crate) fn drop_answered(&mut self, waits: impl Fn(PageNumber) -> bool) {
        while self.pages.front().is_some_and(|(_, page)| !waits(*page)) {
            self.pages.pop_front();
        }
    }

    /// Takes a page that is late by now.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<PageNumber> {
        self.pages.front().filter(|(due, _)| *due <= now)?;
        self.pages.pop_front().map(|(_, page)| page)
    }
}
