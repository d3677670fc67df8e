//! Sees whether devices may write to the program's memory behind its back.
//!
//! Asynchronous input (`io_submit`, `io_uring`) goes on while the program does
//! something else: a device writes to pages that the kernel holds for it. Such
//! a page is not moved by the kernel, but it is zapped, and what the device wrote
//! is lost. Where pages cannot be moved, nothing is evicted from a program that
//! has set up such input: its memory stays local.
//!
//! What was set up is seen in the list of mappings. For `io_submit` the kernel
//! counts what there is of it in the whole system, so that the list is read when
//! that count has changed; for `io_uring` it is read now and then.

use super::{Engine, WARN};
use alloc::vec::Vec;

/// What the mappings are called.
const NAMES: [&[u8]; 2] = [b"/[aio]", b"[io_uring]"];

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// Such input is set up.
    pub(super) write: bool,
    /// The system's count when it was looked last.
    count: Option<u64>,
    warned: bool,
}

impl Engine {
    /// Whether a page that is zapped now might lose what a device writes.
    pub(super) fn devices_write(&mut self) -> bool {
        let count = self.proc.asynchronous_requests();
        if count != self.devices.count {
            self.devices.count = count;
            self.look_for_devices();
        }
        self.devices.write
    }

    /// Looks whether such input is set up.
    pub(super) fn look_for_devices(&mut self) {
        if !self.copying {
            return;
        }
        let mut text = Vec::new();
        // Without an answer it may be.
        let listed = self.proc.maps(&mut text).is_ok();
        self.devices.write = !listed || NAMES.iter().any(|name| has(&text, name));
        if self.devices.write && !self.devices.warned {
            self.devices.warned = true;
            self.say(
                WARN,
                "the program has devices write to its memory (io_submit or io_uring), which \
                 cannot be paged on this kernel: as long as it does, its memory stays local, \
                 beyond its budget; Linux 6.8 or later can",
            );
        }
    }
}

fn has(text: &[u8], name: &[u8]) -> bool {
    text.windows(name.len()).any(|w| w == name)
}
