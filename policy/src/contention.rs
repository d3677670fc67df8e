//! Contention: tells whether several threads ask for pages at the same time.
//!
//! Such threads run on several CPUs. Each of these CPUs has to forget the address of
//! whatever is moved, even of a frame that it never used (TLB shootdown). Then it is
//! cheaper to copy a single page into the program.
//!
//! Invariants, tested below: one thread alone never contends; threads that take turns do.

/// Faults of a sample.
const SAMPLE: u32 = 64;
/// There is contention if 1/`ONE_IN` of the faults come from another thread than the fault
/// before.
const ONE_IN: u32 = 4;

/// Counts how often the faulting thread changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contention {
    /// The thread of the last fault.
    tid: u32,
    faults: u32,
    changes: u32,
    contended: bool,
}

impl Contention {
    /// Counts a fault of thread `tid`.
    pub fn fault(&mut self, tid: u32) {
        self.faults += 1;
        self.changes += u32::from(core::mem::replace(&mut self.tid, tid) != tid);
        if self.faults == SAMPLE {
            self.contended = self.changes * ONE_IN >= SAMPLE;
            (self.faults, self.changes) = (0, 0);
        }
    }

    /// Tells whether several threads asked for pages in the last sample.
    pub fn is_contended(&self) -> bool {
        self.contended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threads_that_take_turns_contend_and_one_that_faults_most_does_not() {
        let mut contention = Contention::default();
        (0..SAMPLE).for_each(|i| contention.fault(i % 8));
        assert!(contention.is_contended());
        (0..SAMPLE).for_each(|i| contention.fault(u32::from(i % 32 == 0)));
        assert!(!contention.is_contended());
    }

    proptest! {
        #[test]
        fn one_thread_never_contends_and_turns_of_up_to_four_faults_do(
            before in prop::collection::vec(0u32..9, 0..200), tid: u32,
            threads in 2u32..50, turn in 1u32..=3,
        ) {
            let mut contention = Contention::default();
            before.iter().for_each(|tid| contention.fault(*tid));
            (0..2 * SAMPLE).for_each(|_| contention.fault(tid));
            prop_assert!(!contention.is_contended());
            (0..2 * SAMPLE).for_each(|i| contention.fault(i / turn % threads));
            prop_assert!(contention.is_contended());
        }
    }
}
