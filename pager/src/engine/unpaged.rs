//! Measures memory that cannot be paged, once more is resident than the budget allows.

use crate::engine::map_throttle::SMALLEST;
use crate::engine::memory::Memory;
use crate::maps::{self, Mapping, eligible};
use crate::ranges::Ranges;
use crate::stats::Slot as Figures;
use crate::sys::now_ns;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU64;

/// The shortest pause between two measurements.
const LOOK_NS: u64 = 1_000_000_000;
/// Pause after a measurement, in multiples of the time that it took.
const PAUSE_PER_LOOK: u64 = 100;

/// When the next measurement is due, and how much was resident at the last.
#[derive(Debug, Default)]
pub(crate) struct Unpaged {
    next_ns: u64,
    seen: usize,
}

/// Private memory that is not paged, by kinds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    stacks: u64,
    code: u64,
    libraries: u64,
    small: u64,
    other: u64,
}

impl Kinds {
    /// Returns the counter for an unadopted mapping.
    fn of(&mut self, m: &Mapping<'_>) -> &mut u64 {
        if m.inode != 0 {
            &mut self.libraries
        } else if m.path.windows(5).any(|w| w == b"stack") {
            &mut self.stacks
        } else if m.perms.x && !m.perms.w {
            &mut self.code
        } else if eligible(m) && m.end - m.start < SMALLEST {
            &mut self.small
        } else {
            &mut self.other
        }
    }

    /// Measures all kinds, from the text of `smaps`. Memory in `adopted` is paged. Memory
    /// in `own` belongs to the engine.
    fn find(text: &[u8], adopted: &Ranges, own: &Ranges) -> Kinds {
        let mut kinds = Kinds::default();
        for (m, bytes) in maps::private(text) {
            let among = |set: &Ranges| set.around(m.start).is_some();
            // The library that contains the engine is counted, although its mappings are in
            // `own`.
            if !among(adopted) && (m.inode != 0 || !among(own)) {
                *kinds.of(&m) += bytes;
            }
        }
        kinds
    }
}

impl Unpaged {
    /// Tells whether to measure now: while more is resident than the highest watermark.
    pub(crate) fn is_due(&self, m: &Memory, now: u64) -> bool {
        let resident = m.residency.sampled();
        let grown = resident > self.seen + self.seen / 16;
        resident > m.residency.marks().most() && grown && now >= self.next_ns
    }

    /// Updates the statistics of memory that cannot be paged. `kept` is the engine's own
    /// memory.
    pub(crate) fn look(&mut self, m: &Memory, kept: Vec<Range<usize>>, now: u64) {
        let resident = m.residency.sampled();
        let Ok(text) = m.mover.kernel().smaps() else {
            return;
        };
        self.seen = resident;
        let mut own = Ranges::default();
        kept.into_iter().for_each(|range| own.insert(range));
        let kinds = Kinds::find(&text, m.space.adopted(), &own);
        let note = |figure: &AtomicU64, bytes| Figures::peak(figure, bytes);
        note(&m.report.stats.stacks_bytes, kinds.stacks);
        note(&m.report.stats.code_bytes, kinds.code);
        note(&m.report.stats.libraries_bytes, kinds.libraries);
        note(&m.report.stats.small_bytes, kinds.small);
        note(&m.report.stats.other_bytes, kinds.other);
        let took = now_ns().saturating_sub(now);
        self.next_ns = now + (took * PAUSE_PER_LOOK).max(LOOK_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_that_is_not_adopted_is_told_by_kinds() {
        let text = b"\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Rss:                2048 kB
Anonymous:          2048 kB
7f0000200000-7f0000201000 rw-p 00000000 00:00 0 
Anonymous:             4 kB
7f0000300000-7f0000400000 r-xp 00000000 00:00 0 
Anonymous:           100 kB
7f0000400000-7f0000500000 rw-p 00000000 08:01 77                         /lib/x.so
Anonymous:            40 kB
7f0000500000-7f0000600000 rw-s 00000000 00:01 78                         /dev/zero (deleted)
Anonymous:             8 kB
7f0000600000-7f0000700000 rw-p 00000000 00:00 0 
Anonymous:            64 kB
7f0000700000-7f0000800000 rw-p 00000000 00:00 0                          [stack]
Anonymous:            12 kB
7f0000800000-7f0000900000 rw-p 00000000 00:00 0 
Anonymous:            16 kB
";
        let (mut adopted, mut own) = (Ranges::default(), Ranges::default());
        adopted.insert(0x7f00_0000_0000..0x7f00_0020_0000);
        own.insert(0x7f00_0060_0000..0x7f00_0070_0000);
        own.insert(0x7f00_0040_0000..0x7f00_0050_0000);
        let kinds = Kinds {
            stacks: 12 << 10,
            code: 100 << 10,
            libraries: 40 << 10,
            small: 4 << 10,
            other: 16 << 10,
        };
        assert_eq!(Kinds::find(text, &adopted, &own), kinds);
    }
}
