//! A set of pages without locks, to which many threads add.
//!
//! It has a bit for each page, in blocks that are allocated when their first page is added,
//! and never freed. So its size is bounded by the address space that it describes, however
//! often pages are added. It is consistent at every instant, since the process may be
//! forked at any.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};
use tmem_policy::PageNumber;

/// Bits of a page number that index each level: with 12 bits of offset, 47 bits of address
/// in all.
const LEAF_BITS: u32 = 15;
const MIDDLE_BITS: u32 = 10;
const ROOT_BITS: u32 = 10;
const WORD_BITS: u32 = u64::BITS;

/// The first page beyond a program's normal address space. Higher addresses exist only on
/// request.
const END: u64 = 1 << (LEAF_BITS + MIDDLE_BITS + ROOT_BITS);
/// Pages of a leaf, and of a middle block.
const LEAF: u64 = 1 << LEAF_BITS;
const MIDDLE: u64 = 1 << (LEAF_BITS + MIDDLE_BITS);

type Leaf = [AtomicU64; 1 << LEAF_BITS >> WORD_BITS.ilog2()];
type Middle = [AtomicPtr<Leaf>; 1 << MIDDLE_BITS];

/// An error: there is no memory to note the page, or its address is too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNoted;

#[derive(Debug)]
pub(crate) struct PageSet {
    any: AtomicBool,
    root: [AtomicPtr<Middle>; 1 << ROOT_BITS],
}

impl PageSet {
    pub(crate) const fn new() -> PageSet {
        PageSet {
            any: AtomicBool::new(false),
            root: [const { AtomicPtr::new(null_mut()) }; 1 << ROOT_BITS],
        }
    }

    /// Adds a page. Returns whether it is new.
    ///
    /// # Errors
    /// [`NotNoted`].
    pub(crate) fn insert(&self, page: PageNumber) -> Result<bool, NotNoted> {
        let page = page.get();
        if page >= END {
            return Err(NotNoted);
        }
        let middle = made(&self.root[(page / MIDDLE) as usize])?;
        let leaf = made(&middle[(page % MIDDLE / LEAF) as usize])?;
        let (word, bit) = place(page);
        let before = leaf[word].fetch_or(bit, SeqCst);
        self.any.store(true, SeqCst);
        Ok(before & bit == 0)
    }

    /// Tells whether a page is in the set.
    pub(crate) fn contains(&self, page: PageNumber) -> bool {
        let page = page.get();
        if !self.any.load(SeqCst) {
            return false;
        }
        let (word, bit) = place(page);
        self.leaf(page)
            .is_some_and(|leaf| leaf[word].load(SeqCst) & bit != 0)
    }

    /// Removes a range of pages.
    pub(crate) fn remove(&self, pages: &Range<PageNumber>) {
        self.visit(pages.start.get()..pages.end.get(), |word, bits, _| {
            word.fetch_and(!bits, SeqCst);
        });
    }

    /// Removes all pages.
    pub(crate) fn clear(&self) {
        self.visit(0..END, |word, _, _| word.store(0, SeqCst));
    }

    /// Calls `each` with every page of the set.
    pub(crate) fn each(&self, mut each: impl FnMut(PageNumber)) {
        self.visit(0..END, |word, bits, first| {
            let mut there = word.load(SeqCst) & bits;
            while there != 0 {
                each(PageNumber::new(first + u64::from(there.trailing_zeros())));
                there &= there - 1;
            }
        });
    }

    /// Calls `visit` with each word that may hold pages of a range, with the mask of the
    /// range's bits, and with the page of the lowest bit.
    fn visit(&self, pages: Range<u64>, mut visit: impl FnMut(&AtomicU64, u64, u64)) {
        if !self.any.load(SeqCst) {
            return;
        }
        let end = pages.end.min(END);
        let mut page = pages.start;
        while page < end {
            let Some(leaf) = self.leaf(page) else {
                let size = match there(&self.root[(page / MIDDLE) as usize]) {
                    Some(_) => LEAF,
                    None => MIDDLE,
                };
                page = (page / size + 1) * size;
                continue;
            };
            let (word, bit) = place(page);
            let first = page & !u64::from(WORD_BITS - 1);
            let next = first + u64::from(WORD_BITS);
            let above = match end < next {
                true => u64::MAX << (end - first),
                false => 0,
            };
            visit(&leaf[word], !(bit - 1) & !above, first);
            page = next;
        }
    }

    fn leaf(&self, page: u64) -> Option<&Leaf> {
        let middle = there(self.root.get((page / MIDDLE) as usize)?)?;
        there(&middle[(page % MIDDLE / LEAF) as usize])
    }
}

/// Returns the word of a leaf and the bit in it that stand for a page.
fn place(page: u64) -> (usize, u64) {
    let at = page % LEAF;
    let bits = u64::from(WORD_BITS);
    ((at / bits) as usize, 1 << (at % bits))
}

/// Returns a block, if it was allocated.
fn there<T>(at: &AtomicPtr<T>) -> Option<&T> {
    // SAFETY: null, or what `made` has stored, which is never freed and consists of
    // atomics.
    unsafe { at.load(Acquire).as_ref() }
}

/// Returns a block, and allocates it if necessary. Both kinds of block consist of atomics,
/// for which zeros are valid.
fn made<T>(at: &AtomicPtr<T>) -> Result<&T, NotNoted> {
    if let Some(block) = there(at) {
        return Ok(block);
    }
    let layout = Layout::new::<T>();
    // SAFETY: the size is not zero.
    let new = unsafe { alloc_zeroed(layout) };
    if new.is_null() {
        return Err(NotNoted);
    }
    if at
        .compare_exchange(null_mut(), new.cast(), AcqRel, Acquire)
        .is_err()
    {
        // SAFETY: allocated just now with this layout, and not published: another thread
        // was faster.
        unsafe { dealloc(new, layout) };
    }
    there(at).ok_or(NotNoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn p(number: u64) -> PageNumber {
        PageNumber::new(number)
    }

    fn all(set: &PageSet) -> Vec<u64> {
        let mut all = Vec::new();
        set.each(|page| all.push(page.get()));
        all
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            ops in proptest::collection::vec((any::<bool>(), 0..4u64, 0..200u64, 0..150u64), 1..60)
        ) {
            let set = Box::new(PageSet::new());
            let mut model = BTreeSet::new();
            for (add, block, at, len) in ops {
                // Pages near the boundaries of words, leaves and middle blocks.
                let first = [0, LEAF - 100, MIDDLE - 100, END - 400][block as usize] + at;
                if add {
                    prop_assert_eq!(set.insert(p(first)), Ok(model.insert(first)));
                } else {
                    set.remove(&(p(first)..p(first + len)));
                    model.retain(|page| !(first..first + len).contains(page));
                }
                prop_assert_eq!(set.contains(p(first)), model.contains(&first));
            }
            prop_assert_eq!(all(&set), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_too_high_is_not_noted_and_not_there() {
        let set = Box::new(PageSet::new());
        assert_eq!(set.insert(p(END)), Err(NotNoted));
        assert_eq!(set.insert(p(END - 1)), Ok(true));
        assert!(!set.contains(p(END)) && !set.contains(p(u64::MAX)) && set.contains(p(END - 1)));
        set.remove(&(p(0)..p(u64::MAX)));
        assert_eq!(all(&set), []);
    }

    #[test]
    fn what_threads_add_at_once_is_all_there_and_new_to_one_of_them() {
        let set = Box::new(PageSet::new());
        let new: usize = std::thread::scope(|scope| {
            let add = || {
                let new = (0..3000).filter(|i| set.insert(p(i * 1000)) == Ok(true));
                new.count()
            };
            let adders: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            adders.into_iter().map(|a| a.join().unwrap()).sum()
        });
        assert_eq!((new, all(&set).len()), (3000, 3000));
    }
}
