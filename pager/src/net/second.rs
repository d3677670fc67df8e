//! The second connection to a server: when there is one, and when it carries the bulk lane.
//!
//! A server has a limited number of connections, and most processes of a family move few
//! pages. So a process has a second connection only while it writes or reads ahead. Until it
//! is there, and whenever it cannot be had, the first connection carries both lanes.
//!
//! Requests of one lane keep their order. So the second connection begins with the bulk lane
//! only when everything of that lane is answered that the first one carries.

/// A second connection that has nothing to carry for so long is given up.
const IDLE_NS: u64 = 10_000_000_000;
/// The pause before the next attempt, once it could not be had or was taken away.
const PAUSE_NS: u64 = 10_000_000_000;

/// The state of the second connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Second {
    /// There is none, and none is tried before this time.
    Off { until: u64 },
    /// An attempt to have one is under way.
    Opening,
    /// It is there. Requests for it wait until the first one has no more of the bulk lane.
    Waiting,
    /// It carries the bulk lane. It has had nothing to carry since that time.
    Carries { idle_since: Option<u64> },
}

impl Default for Second {
    fn default() -> Second {
        Second::Off { until: 0 }
    }
}

impl Second {
    /// Whether requests of the bulk lane go to it.
    pub(super) fn takes_bulk(self) -> bool {
        matches!(self, Second::Waiting | Second::Carries { .. })
    }

    /// Whether it has not carried anything yet.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Second::Opening | Second::Waiting)
    }

    /// Whether an attempt may begin now.
    pub(super) fn may_open(self, now: u64) -> bool {
        matches!(self, Second::Off { until } if until <= now)
    }

    /// It is given up, and not tried again for a while.
    pub(super) fn give_up(&mut self, now: u64) {
        *self = Second::Off {
            until: now.saturating_add(PAUSE_NS),
        };
    }

    /// Notes whether there is anything to carry. Returns whether there was nothing for so
    /// long that the connection is to be given up.
    pub(super) fn note(&mut self, is_busy: bool, now: u64) -> bool {
        let Second::Carries { idle_since } = self else {
            return false;
        };
        if is_busy {
            *idle_since = None;
            return false;
        }
        now >= idle_since.get_or_insert(now).saturating_add(IDLE_NS)
    }

    /// When it may be due to be given up.
    pub(super) fn due(self) -> Option<u64> {
        match self {
            Second::Carries { idle_since } => idle_since.map(|at| at.saturating_add(IDLE_NS)),
            _ => None,
        }
    }
}
