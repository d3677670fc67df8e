//! Sets of frames that keep runs of neighbours together: a run is moved by one call, single
//! frames need one call each.

use crate::frame_number::FrameNumber;
use alloc::vec;
use alloc::vec::Vec;

/// Frames of a block, and the longest run. For a run of this length, a TLB shootdown on
/// another CPU takes about as long as the move itself.
pub(crate) const RUN_FRAMES: usize = tmem_policy::eviction::MAX_RUN as usize;

/// Each block is a bitmap in a `u128`.
const _: () = assert!(RUN_FRAMES == u128::BITS as usize);

/// A set of frames. It gives out runs within a block, and takes single frames from broken
/// blocks.
#[derive(Clone, Debug)]
pub(crate) struct FrameSet {
    words: Vec<u128>,
    whole: Vec<u32>,
    broken: Vec<u32>,
    /// Whether a block is in `whole` (bit 0) or `broken` (bit 1). Each list has a block at
    /// most once, and may be out of date.
    listed: Vec<u8>,
    len: usize,
}

const IN_WHOLE: u8 = 1;
const IN_BROKEN: u8 = 2;

impl FrameSet {
    /// Creates an empty set for `blocks * RUN_FRAMES` frames.
    pub(crate) fn new(blocks: usize) -> FrameSet {
        FrameSet {
            words: vec![0; blocks],
            whole: Vec::new(),
            broken: Vec::new(),
            listed: vec![0; blocks],
            len: 0,
        }
    }

    /// Returns the number of frames in the set.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a frame that is not in the set.
    pub(crate) fn put(&mut self, frame: FrameNumber) {
        let (block, bit) = (frame.index() / RUN_FRAMES, frame.index() % RUN_FRAMES);
        debug_assert!(self.words[block] & (1 << bit) == 0, "{frame:?} twice");
        self.words[block] |= 1 << bit;
        self.len += 1;
        self.list(block);
    }

    fn list(&mut self, block: usize) {
        let word = self.words[block];
        if word == u128::MAX && self.listed[block] & IN_WHOLE == 0 {
            self.listed[block] |= IN_WHOLE;
            self.whole.push(block as u32);
        } else if word != 0 && word != u128::MAX && self.listed[block] & IN_BROKEN == 0 {
            self.listed[block] |= IN_BROKEN;
            self.broken.push(block as u32);
        }
    }

    /// Takes up to `want` (at most [`RUN_FRAMES`]) neighbouring frames. Returns the first
    /// and their number, or `None` if the set is empty.
    pub(crate) fn take(&mut self, want: usize) -> Option<(FrameNumber, usize)> {
        let want = want.clamp(1, RUN_FRAMES);
        // Single frames come from a broken block, runs from a whole one.
        let block = if want < 8 {
            self.broken().or_else(|| self.whole())
        } else {
            self.whole().or_else(|| self.broken())
        }?;
        let word = self.words[block];
        let first = word.trailing_zeros() as usize;
        let run = (!(word >> first))
            .trailing_zeros()
            .min((RUN_FRAMES - first) as u32) as usize;
        let n = run.min(want);
        let mask = if n == RUN_FRAMES {
            u128::MAX
        } else {
            ((1 << n) - 1) << first
        };
        self.words[block] &= !mask;
        self.len -= n;
        self.list(block);
        Some((FrameNumber::new(block * RUN_FRAMES + first), n))
    }

    fn whole(&mut self) -> Option<usize> {
        while let Some(&block) = self.whole.last() {
            let block = block as usize;
            if self.words[block] == u128::MAX {
                return Some(block);
            }
            self.whole.pop();
            self.listed[block] &= !IN_WHOLE;
            self.list(block);
        }
        None
    }

    fn broken(&mut self) -> Option<usize> {
        while let Some(&block) = self.broken.last() {
            let block = block as usize;
            if self.words[block] != 0 && self.words[block] != u128::MAX {
                return Some(block);
            }
            self.broken.pop();
            self.listed[block] &= !IN_BROKEN;
            self.list(block);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn gives_out_each_frame_once_and_never_loses_one(ops in proptest::collection::vec(0usize..4 * RUN_FRAMES, 1..400)) {
            let mut set = FrameSet::new(4);
            let all = FrameNumber::new(0).run(4 * RUN_FRAMES);
            let mut inside: BTreeSet<FrameNumber> = all.clone().collect();
            let mut outside: Vec<FrameNumber> = Vec::new();
            all.for_each(|f| set.put(f));
            for op in ops {
                if op < 2 * RUN_FRAMES {
                    match set.take(op) {
                        Some((first, n)) => {
                            prop_assert!(n >= 1 && n <= op.max(1));
                            let last = first + (n - 1);
                            prop_assert_eq!(first.index() / RUN_FRAMES, last.index() / RUN_FRAMES);
                            for f in first.run(n) {
                                prop_assert!(inside.remove(&f));
                                outside.push(f);
                            }
                        }
                        None => prop_assert!(inside.is_empty()),
                    }
                } else if !outside.is_empty() {
                    let f = outside.swap_remove(op % outside.len());
                    set.put(f);
                    inside.insert(f);
                }
                prop_assert_eq!(set.len(), inside.len());
            }
        }
    }

    #[test]
    fn a_run_comes_from_a_whole_block_and_single_frames_from_broken_ones() {
        let mut set = FrameSet::new(2);
        let first = FrameNumber::new(0);
        first.run(RUN_FRAMES + 6).for_each(|f| set.put(f));
        assert_eq!(set.take(1), Some((first + RUN_FRAMES, 1)));
        assert_eq!(set.take(RUN_FRAMES), Some((first, RUN_FRAMES)));
    }
}
