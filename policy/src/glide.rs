//! Glide: lets a budget that was lowered while the program runs take effect step by step.
//!
//! A program over its budget is throttled: threads that ask for memory wait until some has
//! left. That is right where a program grows. Where the user takes memory away it would stop
//! the program for as long as all that is to leave takes. So the evict watermark follows the
//! resident pages down, and the throttle watermark stays a little above the lowest that was
//! seen: the program loses memory as fast as pages leave, and may not grow meanwhile.
//!
//! Invariants, tested below:
//! - a glide that has not begun changes nothing, and neither does one that has ended;
//! - while it lasts, the watermarks are never below those of the budget, and the throttle
//!   watermark is above what is resident unless the program grows;
//! - where pages leave, it ends.

use crate::watermarks::Watermarks;

/// Pages that are to leave between two looks, at most.
const STEP: usize = 512;
/// Pages that the program may grow by meanwhile.
const ROOM: usize = 1024;

/// A budget on its way down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glide {
    /// The most pages that may be resident; none when nothing is on its way.
    ceiling: Option<usize>,
}

impl Glide {
    /// The budget has been lowered.
    pub fn begin(&mut self) {
        self.ceiling = Some(usize::MAX);
    }

    /// The watermarks to use now, of the budget's own, with so many pages resident.
    pub fn follow(&mut self, marks: Watermarks, resident: usize) -> Watermarks {
        let Some(ceiling) = self.ceiling else {
            return marks;
        };
        if resident <= marks.throttle {
            self.ceiling = None;
            return marks;
        }
        let ceiling = ceiling.min(resident.saturating_add(ROOM));
        self.ceiling = Some(ceiling);
        Watermarks {
            evict: marks.evict.max(resident - STEP.min(resident)),
            throttle: marks.throttle.max(ceiling),
            ..marks
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks(pages: usize) -> Watermarks {
        Watermarks::new((pages * tmem_wire::PAGE_SIZE) as u64)
    }

    #[test]
    fn without_a_beginning_nothing_changes() {
        let marks = marks(10_000);
        assert_eq!(Glide::default().follow(marks, 1 << 30), marks);
    }

    #[test]
    fn a_program_that_grows_meanwhile_is_throttled() {
        let mut glide = Glide::default();
        glide.begin();
        glide.follow(marks(10_000), 50_000);
        assert_eq!(glide.follow(marks(10_000), 90_000).throttle, 51_024);
    }

    proptest! {
        #[test]
        fn it_leads_to_the_budget_without_throttling(
            from in 10_000usize..1_000_000, to in 4096usize..9000,
        ) {
            let (target, mut resident) = (marks(to), from);
            let mut glide = Glide::default();
            glide.begin();
            for _ in 0..from {
                let now = glide.follow(target, resident);
                prop_assert!(now.evict >= target.evict && now.throttle >= target.throttle);
                prop_assert!(now.throttle >= resident);
                if now == target {
                    break;
                }
                resident = resident.min(now.evict);
            }
            prop_assert_eq!(glide.follow(target, resident), target);
            prop_assert!(resident <= target.throttle);
        }
    }
}
