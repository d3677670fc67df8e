//! Servers that mean to end: where the move away from them stands.

use tmem_policy::PageNumber;

/// The user is told at most this often that there is no room elsewhere.
const TELL_NS: u64 = 60_000_000_000;

/// Where the move stands.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    /// The page to go on with.
    pub(crate) cursor: PageNumber,
    told_ns: Option<u64>,
}

impl Drains {
    /// Whether the user is to be told now that there is no room elsewhere.
    pub(crate) fn tells(&mut self, now: u64) -> bool {
        let lately = self.told_ns.is_some_and(|then| now < then + TELL_NS);
        if !lately {
            self.told_ns = Some(now);
        }
        !lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_repeated_within_a_minute() {
        let mut drains = Drains::default();
        assert!(drains.tells(7) && !drains.tells(8) && !drains.tells(6 + TELL_NS));
        assert!(drains.tells(7 + TELL_NS));
    }
}
