//! A list of bounded length that many threads add to and one takes from, without locks.
//!
//! Its atomics come from the crate's root, so that a test can put ones there that try
//! every interleaving.

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What is added: words of the caller's choice.
pub(crate) type Message = [usize; 3];

/// Up to `N` messages. A node is named by its index and one, and none by 0.
#[derive(Debug)]
pub(crate) struct Inbox<const N: usize> {
    /// The node that was added last.
    pub(crate) last: AtomicU32,
    /// The first free node, in the lower half. The upper half counts the changes of this
    /// word, so that one that was taken, used and given back is told from one that stayed.
    pub(crate) free: AtomicU64,
    /// How many nodes were ever used.
    pub(crate) used: AtomicU32,
    pub(crate) nodes: [Node; N],
}

/// A message, and the node that was added, or given back, before it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) before: AtomicU32,
    pub(crate) words: [AtomicUsize; 3],
}

impl<const N: usize> Inbox<N> {
    /// Adds a message; whether there was room for it.
    pub(crate) fn add(&self, message: Message) -> bool {
        let Some(name) = self.unused() else {
            return false;
        };
        let node = self.node(name);
        for (word, value) in node.words.iter().zip(message) {
            word.store(value, Ordering::Relaxed);
        }
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            node.before.store(last, Ordering::Relaxed);
            // What is taken meanwhile and added once more is as good as the same.
            let (done, seen) = (Ordering::Release, Ordering::Relaxed);
            match self.last.compare_exchange(last, name, done, seen) {
                Ok(_) => return true,
                Err(now) => last = now,
            }
        }
    }

    /// Takes all messages, the last first. One thread does so at a time.
    pub(crate) fn take(&self, mut each: impl FnMut(Message)) {
        // Only this thread takes: what is there now stays until it does.
        if self.last.load(Ordering::Relaxed) == 0 {
            return;
        }
        let last = self.last.swap(0, Ordering::Acquire);
        let (mut name, mut first) = (last, last);
        while name != 0 {
            let node = self.node(name);
            each(core::array::from_fn(|i| {
                node.words[i].load(Ordering::Relaxed)
            }));
            first = name;
            name = node.before.load(Ordering::Relaxed);
        }
        if last != 0 {
            self.give_back(last, first);
        }
    }

    /// In a process that was just forked: nothing was added.
    pub(crate) fn reset_after_fork(&self) {
        self.last.store(0, Ordering::Relaxed);
        self.free.store(0, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    /// Nodes from `last` back to `first` are free.
    fn give_back(&self, last: u32, first: u32) {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            self.node(first)
                .before
                .store(free as u32, Ordering::Relaxed);
            match self.change_free(free, last) {
                Ok(_) => return,
                Err(now) => free = now,
            }
        }
    }

    /// A node that is not in use.
    fn unused(&self) -> Option<u32> {
        let mut free = self.free.load(Ordering::Acquire);
        while free as u32 != 0 {
            // It may be another's by now, and this its: then the count has changed.
            let before = self.node(free as u32).before.load(Ordering::Relaxed);
            match self.change_free(free, before) {
                Ok(_) => return Some(free as u32),
                Err(now) => free = now,
            }
        }
        let more = |used: u32| (used < N as u32).then_some(used + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let used = self.used.fetch_update(set, fetch, more);
        used.ok().map(|used| used + 1)
    }

    fn change_free(&self, from: u64, to: u32) -> Result<u64, u64> {
        let count = (from >> 32).wrapping_add(1);
        self.free.compare_exchange(
            from,
            count << 32 | u64::from(to),
            Ordering::AcqRel,
            Ordering::Acquire,
        )
    }

    fn node(&self, name: u32) -> &Node {
        &self.nodes[name as usize - 1]
    }
}
