//! Faults that wait to be served.

use crate::sys::now_ns;
use alloc::collections::VecDeque;
use core::ops::Range;
use tmem_policy::readahead::Window;
use tmem_wire::PAGE_SIZE;

/// A thread waits for a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) page: u64,
    /// The address that was touched, where the kernel tells it, or else its page's.
    pub(crate) at: u64,
    pub(crate) write: bool,
    /// The page is there, but write-protected.
    pub(crate) protected: bool,
    pub(crate) tid: u32,
    /// When it was read from the kernel.
    pub(crate) read_ns: u64,
    /// What the thread is expected to touch next, once that was asked: a fault
    /// that has to wait must not be taken for two.
    pub(crate) ahead: Option<Window>,
    /// How many pages to fill, once that was asked.
    pub(crate) fill: usize,
}

impl Fault {
    /// What the thread is expected to touch next.
    pub(crate) fn window(&self) -> Window {
        self.ahead.unwrap_or(Window::NONE)
    }
}

/// Faults in the order in which they were read.
#[derive(Debug, Default)]
pub(crate) struct FaultQueue {
    waiting: VecDeque<Fault>,
    /// A thread that waited for a server goes on since this turn.
    served_one: bool,
}

impl FaultQueue {
    /// Adds a fault.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.waiting.push_back(fault);
    }

    /// Takes the fault that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Fault> {
        self.waiting.pop_front()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.waiting.iter()
    }

    /// Forgets the faults on pages of a range.
    pub(crate) fn forget(&mut self, pages: &Range<u64>) {
        self.waiting.retain(|fault| !pages.contains(&fault.page));
    }

    /// Whether a thread that waited for a server goes on since this turn.
    pub(crate) fn has_served_one(&self) -> bool {
        self.served_one
    }

    /// Takes note whether one does.
    pub(crate) fn set_served_one(&mut self, has: bool) {
        self.served_one = has;
    }

    /// Has a page brought back, as if a thread waited for it.
    pub(crate) fn recall(&mut self, page: u64) {
        self.waiting.push_back(Fault {
            page,
            at: page * PAGE_SIZE as u64,
            write: false,
            protected: false,
            tid: 0,
            read_ns: now_ns(),
            ahead: Some(Window::NONE),
            fill: 0,
        });
    }
}
