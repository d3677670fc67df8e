//! A bounded list without locks, to which many threads add and from which one takes.
//!
//! The atomics come from the crate's root, so that a test can replace them by loom's, which
//! try every interleaving.

use crate::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A message: words with a meaning for the caller.
pub(crate) type Message = [usize; 3];

/// Up to `N` messages. A node's name is its index plus one, and 0 names none.
#[derive(Debug)]
pub(crate) struct Inbox<const N: usize> {
    /// The node that was added last.
    pub(crate) last: AtomicU32,
    /// The first free node, in the lower half. The upper half counts changes of this word,
    /// so that a node that was taken, used and given back in between is noticed (the ABA
    /// problem).
    pub(crate) free: AtomicU64,
    /// Number of nodes that were ever used.
    pub(crate) used: AtomicU32,
    pub(crate) nodes: [Node; N],
}

/// A message, and the node that was added, or freed, before it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) before: AtomicU32,
    pub(crate) words: [AtomicUsize; 3],
}

impl<const N: usize> Inbox<N> {
    /// Adds a message. Returns whether there was room.
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
            // If `last` was taken and the same node added again meanwhile, the list is
            // still correct.
            let (done, seen) = (Ordering::Release, Ordering::Relaxed);
            match self.last.compare_exchange(last, name, done, seen) {
                Ok(_) => return true,
                Err(now) => last = now,
            }
        }
    }

    /// Takes all messages out, the last first. Only one thread may do so.
    pub(crate) fn take(&self, mut each: impl FnMut(Message)) {
        // Only this thread takes messages, so those that are there now stay until it does.
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

    /// Empties the list in a process that was just forked.
    pub(crate) fn reset_after_fork(&self) {
        self.last.store(0, Ordering::Relaxed);
        self.free.store(0, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    /// Frees the nodes from `last` back to `first`.
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

    /// Takes a node that is not in use.
    fn unused(&self) -> Option<u32> {
        let mut free = self.free.load(Ordering::Acquire);
        while free as u32 != 0 {
            // Another thread may have taken the node, so this value may be wrong. The count
            // has changed then.
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
