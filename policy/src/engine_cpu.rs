//! Engine CPU: decides whether the engine runs on the CPU of the faulting thread.
//!
//! Waking a thread that sleeps on another CPU takes several times as long as the rest of a
//! fault. Switching to a thread on the same CPU is cheap. So while a program asks for
//! single pages and waits for each, the engine runs on the CPU of the faulting thread.
//! While pages stream, there is work for two CPUs, and the kernel places the engine.
//!
//! Invariants, tested below:
//! - a program that streams, or rarely faults, is not followed;
//! - looks are at least `LOOK_NS` apart.

/// The shortest time between two looks, in nanoseconds, and the time while the program
/// stays on its CPU.
const LOOK_NS: u64 = 2_000_000;
const STABLE_LOOK_NS: u64 = 8_000_000;
/// A program waits for single pages if fewer than this many come for each fault.
const STREAMING: u64 = 8;
/// A program that faults less often than once in this time hardly waits.
const OFTEN_NS: u64 = 2_000_000;

/// What the last look saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineCpu {
    /// When the next look is due, and when the last one was.
    due_ns: u64,
    looked_ns: u64,
    streams: bool,
    /// Counts at the last look.
    faults: u64,
    pages: u64,
}

impl EngineCpu {
    /// Tells whether a look is due.
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// Counts faults and pages that came, since the start. Returns whether to run where the
    /// faulting thread does. [`EngineCpu::looked`] must follow.
    pub fn follows(&mut self, now_ns: u64, faults: u64, pages: u64) -> bool {
        let asked = faults - self.faults;
        let few = pages - self.pages < asked * STREAMING;
        let often = now_ns.saturating_sub(self.looked_ns) < asked * OFTEN_NS;
        (self.faults, self.pages, self.looked_ns) = (faults, pages, now_ns);
        self.streams = !few;
        few && often
    }

    /// Ends a look. `moved` says that the engine changes its CPU.
    pub fn looked(&mut self, now_ns: u64, moved: bool) {
        self.due_ns = now_ns + if moved { LOOK_NS } else { STABLE_LOOK_NS };
    }

    /// Tells whether pages stream.
    pub fn streams(&self) -> bool {
        self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_a_program_that_often_waits_for_single_pages_is_followed(
            looks in prop::collection::vec((0u64..100_000_000, 0u64..50, 0u64..500), 1..50),
        ) {
            let mut cpu = EngineCpu::default();
            let (mut now, mut faults, mut pages) = (1_000_000_000, 0, 0);
            cpu.follows(now, faults, pages);
            for (ns, more_faults, more_pages) in looks {
                now += ns;
                (faults, pages) = (faults + more_faults, pages + more_pages);
                let follows = cpu.follows(now, faults, pages);
                let streams = more_pages >= more_faults * STREAMING;
                prop_assert_eq!(cpu.streams(), streams);
                prop_assert_eq!(follows, !streams && ns < more_faults * OFTEN_NS);
            }
        }

        #[test]
        fn looks_are_apart(now in 0u64..1 << 60, moved: bool) {
            let mut cpu = EngineCpu::default();
            cpu.looked(now, moved);
            prop_assert!(!cpu.is_due(now + LOOK_NS - 1) && cpu.is_due(now + STABLE_LOOK_NS));
            prop_assert_eq!(cpu.is_due(now + LOOK_NS), moved);
        }
    }
}
