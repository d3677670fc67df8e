//! Detects asynchronous DMA: devices that may write to the program's memory at any time.
//!
//! Asynchronous I/O (`io_submit`, `io_uring`) goes on while the program does something
//! else: a device writes to pages that the kernel holds for it. The kernel refuses to move
//! such a page, but not to zap it, and a zap would lose what the device writes. So where
//! pages cannot be moved, nothing is evicted from a program that has set up such I/O.
//!
//! The list of mappings shows what was set up. It is read after a page was write-protected
//! and before it is copied. I/O that was given to the kernel earlier shows in the list, and
//! I/O that is given to it later faults on the page. The list is long, so it is read only
//! when it may have changed: when the size of the address space has changed, when the
//! program has unmapped something (which may hide a new mapping in the size), or when the
//! kernel's count of requests for `io_submit` has changed.

use crate::engine::memory::Memory;
use crate::engine::memory::report::WARN;
use crate::sys::anchor;
use alloc::format;
use alloc::vec::Vec;

/// Names of the mappings that such I/O sets up.
const NAMES: [&[u8]; 2] = [b"/[aio]", b"[io_uring]"];

/// What is known of asynchronous I/O.
#[derive(Debug, Default)]
pub(crate) struct AsyncDma {
    /// Such I/O is set up.
    pub(crate) write: bool,
    /// The state of the process when the list was last read.
    seen: Option<Seen>,
    warned: bool,
    /// Pages are copied because the user asked for it.
    by_choice: bool,
}

/// Pages of address space, changes by the program, and the system's count of requests for
/// `io_submit`.
type Seen = (u64, u32, Option<u64>);

impl AsyncDma {
    /// Starts without knowledge. `by_choice` says that pages are copied because the user
    /// asked for it.
    pub(crate) fn new(by_choice: bool) -> AsyncDma {
        AsyncDma {
            by_choice,
            ..AsyncDma::default()
        }
    }

    /// Tells whether zapping a page, which is write-protected already, might lose what a
    /// device writes.
    pub(crate) fn writes(&mut self, m: &Memory) -> bool {
        let seen = m.mover.kernel().size_pages().ok().map(|size| {
            let changes = crate::engine::exclusion::changes();
            (size, changes, m.mover.kernel().asynchronous_requests())
        });
        // A change while the list is read is noticed next time.
        if seen.is_none() || seen != self.seen {
            self.look(m);
            self.seen = seen;
        }
        self.write
    }

    /// Looks whether such I/O is set up.
    pub(crate) fn look(&mut self, m: &Memory) {
        if !m.mover.copies() {
            return;
        }
        let mut text = Vec::new();
        // Without an answer it counts as set up.
        let listed = m.mover.kernel().maps(&mut text).is_ok();
        self.write = !listed || text.split(|b| *b == b'\n').any(is_of_the_program);
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

/// Tells whether a line of the list of mappings shows such I/O of the program. I/O of the
/// engine does not count.
fn is_of_the_program(line: &[u8]) -> bool {
    let has = |name: &&[u8]| line.windows(name.len()).any(|w| w == *name);
    let starts_at = |at: usize| line.starts_with(format!("{at:x}-").as_bytes());
    NAMES.iter().any(has) && !anchor::at().is_some_and(starts_at)
}
