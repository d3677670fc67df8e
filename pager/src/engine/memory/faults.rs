//! Faults that wait to be served.

use crate::sys::now_ns;
use alloc::collections::VecDeque;
use core::ops::Range;
use tmem_policy::PageNumber;
use tmem_policy::readahead::Window;

/// A page fault: a thread waits for a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) page: PageNumber,
    /// The address that was touched, if the kernel reports it, else the page's address.
    pub(crate) at: u64,
    pub(crate) write: bool,
    /// The page is present, but write-protected.
    pub(crate) protected: bool,
    pub(crate) tid: u32,
    /// When the fault was read from the kernel.
    pub(crate) read_ns: u64,
    /// The readahead window for this fault, once the policy was asked. A fault that has to
    /// wait must not be counted twice.
    pub(crate) ahead: Option<Window>,
    /// How many pages to fill, once the policy was asked.
    pub(crate) fill: usize,
}

impl Fault {
    /// Returns the readahead window, which may be empty.
    pub(crate) fn window(&self) -> Window {
        self.ahead.unwrap_or(Window::NONE)
    }
}

/// Faults in the order in which they were read.
#[derive(Debug, Default)]
pub(crate) struct FaultQueue {
    waiting: VecDeque<Fault>,
    /// In this turn a page was installed for a thread that had waited for a server.
    served_one: bool,
    /// Number of pages that are being read ahead and that a thread has begun to wait for.
    joined: usize,
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

    /// Returns the number of faults.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Tells whether there is no fault.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Iterates over all faults.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.waiting.iter()
    }

    /// Notes that a thread waits for a page that is already being read ahead.
    pub(crate) fn join(&mut self) {
        self.joined += 1;
    }

    /// Notes that such a page has arrived.
    pub(crate) fn part(&mut self) {
        self.joined = self.joined.saturating_sub(1);
    }

    /// Notes that no page is being read.
    pub(crate) fn part_all(&mut self) {
        self.joined = 0;
    }

    /// Whether a thread waits: its fault is queued, or its page is being read ahead.
    pub(crate) fn is_awaited(&self) -> bool {
        self.joined > 0 || !self.is_empty()
    }

    /// Forgets the faults on a range of pages.
    pub(crate) fn forget(&mut self, pages: &Range<PageNumber>) {
        self.waiting.retain(|fault| !pages.contains(&fault.page));
    }

    /// Tells whether a thread that waited for a server was served in this turn.
    pub(crate) fn has_served_one(&self) -> bool {
        self.served_one
    }

    /// Notes whether a thread that waited for a server was served in this turn.
    pub(crate) fn set_served_one(&mut self, has: bool) {
        self.served_one = has;
    }

    /// Brings a page back into the program, as if a thread waited for it.
    pub(crate) fn recall(&mut self, page: PageNumber) {
        self.waiting.push_back(Fault {
            page,
            at: page.address() as u64,
            write: false,
            protected: false,
            tid: 0,
            read_ns: now_ns(),
            ahead: Some(Window::NONE),
            fill: 0,
        });
    }
}
