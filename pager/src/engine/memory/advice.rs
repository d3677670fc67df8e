//! Applies advice on ranges of memory that threads of the program have logged.

use crate::engine::calls::advice::{self, Ask};
use crate::engine::calls::lent_pages;
use crate::engine::memory::Memory;
use crate::engine::memory::address::page;
use crate::engine::memory::report::WARN;
use crate::pages::State;
use crate::ranges::Ranges;
use alloc::vec::Vec;
use core::ops::Range;
use rustix::io::Errno;
use tmem_policy::PageNumber;

impl Memory {
    /// Applies the advice that was logged since the last call. This comes before each
    /// event: advice on memory that is then unmapped does not concern what is mapped there
    /// later.
    pub(crate) fn follow_advice(&mut self) {
        let mut asked = Vec::new();
        advice::take(|what, range| asked.push((what, range)));
        let mut given_back = Ranges::default();
        for (what, range) in asked.into_iter().rev() {
            let adopted = self.space.adopted().within(&range);
            match what {
                Ask::Stay => self.bring_what_stays(&range),
                Ask::Wipe(_) if adopted.is_empty() => {}
                Ask::Wipe(_) => advice::note_wiped(),
                Ask::Withhold(true) => adopted.into_iter().for_each(|part| {
                    given_back.remove(part.clone());
                    self.space.withhold(part);
                }),
                Ask::Withhold(false) => adopted.into_iter().for_each(|part| {
                    given_back.insert(part.clone());
                    self.space.hand_down(part);
                }),
            }
        }
        // Adopted memory is withheld again from children that are forked without the
        // engine's knowledge.
        given_back
            .iter()
            .for_each(|part| self.withhold_from_forks(&part));
    }

    fn bring_what_stays(&mut self, range: &Range<usize>) {
        for page in page(range.start).until(page(range.end - 1) + 1) {
            // The page may have been unmapped since.
            if advice::stays(page) && self.pages.get(page).state != State::Local {
                self.faults.recall(page);
            }
        }
    }

    /// Tells whether a page must stay in the program.
    pub(crate) fn must_stay(&self, page: PageNumber) -> bool {
        self.pinned.contains(&page) || advice::stays(page) || lent_pages::contain(page)
    }

    /// Lets pages be evicted again that were unmapped.
    pub(crate) fn no_longer_stays(&mut self, pages: &Range<PageNumber>) {
        self.pinned.forget(pages);
        advice::none_stays(pages);
        lent_pages::unmapped(pages);
    }

    /// Returns the mappings that are withheld from children, as they are before new memory is
    /// adopted; none where the program has asked for none. `every` says that small mappings
    /// are adopted, and `unseen` that advice may have been given without the engine's
    /// knowledge.
    pub(crate) fn find_withheld(
        &self,
        every: bool,
        unseen: bool,
    ) -> Result<Vec<Range<usize>>, Errno> {
        if !advice::is_any_withheld(every) && !unseen {
            return Ok(Vec::new());
        }
        let all = self.mover.kernel().flags()?;
        let of_them = all.into_iter().filter(|(_, flags)| flags.withheld);
        Ok(of_them.map(|(range, _)| range).collect())
    }

    /// Notes which memory of `found`, which is about to be adopted, the program withholds from
    /// its children. `mappings` is what [`Memory::find_withheld`] returned.
    ///
    /// Adopted memory has the same flag by the engine, and so has what its mapping has grown
    /// by since. There the program wants what it wants of the part that was adopted before.
    pub(crate) fn note_withheld(&mut self, mappings: &[Range<usize>], found: &[Range<usize>]) {
        for mapping in mappings {
            let before = self.space.adopted().within(mapping).last().cloned();
            let is_wanted = |part: Range<usize>| self.space.dontfork().around(part.end - 1);
            if before.is_some_and(|part| is_wanted(part).is_none()) {
                continue;
            }
            for part in found {
                let both = mapping.start.max(part.start)..mapping.end.min(part.end);
                if !both.is_empty() {
                    self.space.withhold(both);
                }
            }
        }
    }

    /// Returns the ranges that a child forked now finds wiped. `every` and `unseen` are as
    /// in [`Memory::find_withheld`].
    pub(crate) fn find_wiped(&self, every: bool, unseen: bool) -> Result<Ranges, Errno> {
        let mut wiped = Ranges::default();
        if advice::is_any_wiped(every) || unseen {
            let all = self.mover.kernel().flags()?;
            let of_them = all.into_iter().filter(|(_, flags)| flags.wiped);
            of_them.for_each(|(range, _)| wiped.insert(range));
        }
        Ok(wiped)
    }

    /// Warns once if the engine could not note which pages have to stay, so that nothing
    /// may leave.
    pub(crate) fn tell_of_others_that_stay(&mut self) {
        if advice::others_stay() && self.pinned.warns() {
            self.report.say(
                WARN,
                "no memory to note where the program has robust mutexes, which have to stay in \
                 memory: nothing more is paged out, and the budget is not kept",
            );
        }
    }

    /// Keeps the pages in a forked child that threads of the parent wanted to stay. Pages
    /// that were withheld from the child are absent, or no longer concerned.
    pub(crate) fn inherit_advice(&mut self) {
        let mut elsewhere = Vec::new();
        advice::each_that_stays(|page| {
            if self.pages.get(page).state != State::Local {
                elsewhere.push(page);
            }
        });
        elsewhere
            .into_iter()
            .for_each(|page| self.faults.recall(page));
    }
}
