//! Sees whether devices may write to the program's memory behind its back.
//!
//! Asynchronous input (`io_submit`, `io_uring`) goes on while the program does
//! something else: a device writes to pages that the kernel holds for it. Such
//! a page is not moved by the kernel, but it is zapped, and what the device wrote
//! is lost. Where pages cannot be moved, nothing is evicted from a program that
//! has set up such input: its memory stays local.
//!
//! What was set up is seen in the list of mappings. That is read once a page is
//! write-protected, and before it is copied: what the kernel is given from then on
//! waits for the page to be there again, and what it was given before is seen. Since
//! the list is long, it is read when it may have changed: when the size of the address
//! space has, when the program has unmapped something (which could make up for what was
//! mapped), or when the kernel's count of all that is set up for `io_submit` has.

use crate::engine::memory::Memory;
use crate::engine::memory::report::WARN;
use alloc::format;
use alloc::vec::Vec;

/// What the mappings are called.
const NAMES: [&[u8]; 2] = [b"/[aio]", b"[io_uring]"];

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct AsyncDma {
    /// Such input is set up.
    pub(crate) write: bool,
    /// What would have changed with the list since it was read last.
    seen: Option<Seen>,
    warned: bool,
    /// Pages are copied because the user asks for it.
    by_choice: bool,
}

/// Pages of the address space, changes by the program, and requests of `io_submit` that
/// the system has room for.
type Seen = (u64, u32, Option<u64>);

impl AsyncDma {
    /// Nothing is known yet. `by_choice` says that pages are copied as the user asks.
    pub(crate) fn new(by_choice: bool) -> AsyncDma {
        AsyncDma {
            by_choice,
            ..AsyncDma::default()
        }
    }

    /// Whether a page that is zapped, and was write-protected before this, might lose
    /// what a device writes.
    pub(crate) fn writes(&mut self, m: &Memory) -> bool {
        let seen = m.mover.kernel().size_pages().ok().map(|size| {
            let changes = crate::engine::exclusion::changes();
            (size, changes, m.mover.kernel().asynchronous_requests())
        });
        // What changes while the list is read is looked for again.
        if seen.is_none() || seen != self.seen {
            self.look(m);
            self.seen = seen;
        }
        self.write
    }

    /// Looks whether such input is set up.
    pub(crate) fn look(&mut self, m: &Memory) {
        if !m.mover.copies() {
            return;
        }
        let mut text = Vec::new();
        // Without an answer it may be.
        let listed = m.mover.kernel().maps(&mut text).is_ok();
        self.write = !listed || NAMES.iter().any(|name| has(&text, name));
        if self.write && !self.warned {
            self.warned = true;
            let remedy = match self.by_choice {
                true => "without `--page-path copy`, Linux 6.8 or later can page them",
                false => "Linux 6.8 or later can page them",
            };
            m.report.say(
                WARN,
                &format!(
                    "the program has devices write to its memory (io_submit or io_uring); pages that \
                     are copied cannot be paged then: as long as it does so, its memory stays local, \
                     beyond its budget; {remedy}"
                ),
            );
        }
    }
}

fn has(text: &[u8], name: &[u8]) -> bool {
    text.windows(name.len()).any(|w| w == name)
}
