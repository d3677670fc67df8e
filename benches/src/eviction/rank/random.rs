//! Random order.

use super::{Came, Rank};
use crate::memory::mix;

/// Takes any page, the same ones in each run.
#[derive(Default)]
pub struct Random {
    pages: Vec<u32>,
    drawn: u64,
}

impl Rank for Random {
    fn came(&mut self, page: u32, _: Came) {
        self.pages.push(page);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        if self.pages.is_empty() {
            return;
        }
        self.drawn += 1;
        let at = mix(self.drawn) % self.pages.len() as u64;
        out.push(self.pages.swap_remove(at as usize));
    }
}
