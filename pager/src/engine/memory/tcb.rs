//! Keeps thread control blocks in the program's memory.
//!
//! In a forked child the C library visits the control blocks of all the parent's threads
//! (glibc's `reclaim_stacks`) before anything can be paged there. They are at the top of
//! the threads' stacks. Stacks are not adopted if they can be recognized, but often the
//! kernel has merged them with another mapping. A control block begins with its own
//! address, and has it again two words on (`tcbhead_t` of the System V ABI for x86-64).

use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::Stop;
use crate::frame_number::FrameNumber;
use crate::pages::State;
use crate::sys::mem;
use alloc::collections::BTreeSet;
use core::ops::Range;
use tmem_policy::PageNumber;
use tmem_wire::PAGE_SIZE;

/// Bytes of a control block: at least as many as glibc's `struct pthread` has.
const SIZE: usize = 4096 - 256;
/// Alignment of a control block.
const ALIGN: usize = 64;

/// Pages that hold control blocks, and must stay in the program.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    blocks: BTreeSet<PageNumber>,
    /// The user was told that nothing leaves any more: see `calls::advice`.
    warned: bool,
}

impl Pinned {
    /// Tells whether a page must stay.
    pub(crate) fn contains(&self, page: &PageNumber) -> bool {
        self.blocks.contains(page)
    }

    /// Adds a page that must stay. Returns whether it is new.
    pub(crate) fn insert(&mut self, page: PageNumber) -> bool {
        self.blocks.insert(page)
    }

    /// Removes pages that need not stay any more.
    pub(crate) fn forget(&mut self, pages: &Range<PageNumber>) {
        self.blocks.retain(|page| !pages.contains(page));
    }

    /// Tells, once, that the user has to be warned that nothing leaves any more.
    pub(crate) fn warns(&mut self) -> bool {
        !core::mem::replace(&mut self.warned, true)
    }
}

/// Finds a control block in a page that was at `addr`. Returns its offset.
fn control_block(bytes: &[u8; PAGE_SIZE], addr: usize) -> Option<usize> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|w| w.try_into().ok());
        word.map_or(0, usize::from_le_bytes)
    };
    (0..PAGE_SIZE)
        .step_by(ALIGN)
        .find(|&at| word(at) == addr + at && word(at + 16) == addr + at)
}

impl Memory {
    /// Pins a page: it must stay in the program from now on, and is brought back if
    /// necessary.
    pub(crate) fn pin(&mut self, page: PageNumber) {
        if self.pinned.insert(page) && self.pages.get(page).state != State::Local {
            self.faults.recall(page);
        }
    }

    /// Pins a page that was just evicted into `frame` if it holds a control block. Returns
    /// whether it does.
    pub(crate) fn keeps(&mut self, page: PageNumber, frame: FrameNumber) -> bool {
        // SAFETY: the frame was just taken, and no request uses it.
        let bytes = unsafe { mem::page(self.pool.addr(frame)) };
        let Some(at) = control_block(bytes, addr(page)) else {
            return false;
        };
        self.pin(page);
        if at + SIZE > PAGE_SIZE {
            self.pin(page + 1);
        }
        true
    }

    /// Puts a page that was evicted by mistake back from its frame.
    pub(crate) fn put_back(&mut self, page: PageNumber, frame: FrameNumber) {
        match self.install(page, frame, 1).1 {
            Some(Stop::Again) => self.faults.recall(page),
            Some(stop) => self.not_installed(page, stop),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_blocks_are_told_by_their_own_address() {
        let addr = 0x7f00_1234_5000usize;
        let mut page = [0u8; PAGE_SIZE];
        assert_eq!(control_block(&page, addr), None);
        let mut put = |at: usize, value: usize| {
            page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(0x6c0, addr + 0x6c0);
        put(0x6c8, 77);
        put(0x6d0, addr + 0x6c0);
        assert_eq!(control_block(&page, addr), Some(0x6c0));
        assert_eq!(control_block(&page, addr + PAGE_SIZE), None);
        page[0x6d0] ^= 1;
        assert_eq!(control_block(&page, addr), None);
    }
}
