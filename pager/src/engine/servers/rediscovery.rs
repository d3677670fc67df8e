//! Connects again to servers that could not be used, or were lost.

use crate::ServerId;
use crate::engine::memory::report::{DEBUG, Report};
use crate::engine::servers::Backing;
use crate::names::Names;
use crate::sys::fd::Fd;
use crate::sys::{confined, proc};

/// The first and the longest pause between two attempts. Each is twice as long as the one
/// before.
const PAUSE_NS: core::ops::RangeInclusive<u64> = 10_000_000_000..=300_000_000_000;

/// The pause after a server was lost.
const SOON_NS: u64 = 500_000_000;

/// State of the attempts.
pub(crate) struct Rediscovery {
    due_ns: u64,
    pause_ns: u64,
    /// Servers that the user knows to be down, one bit each.
    known: u64,
    /// The file that says whether the program filters system calls.
    status: Option<Fd>,
    /// Where addresses appear that were not known at the start.
    names: Option<&'static Names>,
    servers: u16,
}

impl Rediscovery {
    /// Starts with `servers` servers.
    pub(crate) fn new(names: Option<&'static Names>, servers: u16) -> Rediscovery {
        Rediscovery {
            due_ns: 0,
            pause_ns: *PAUSE_NS.start(),
            known: 0,
            status: proc::status(),
            names,
            servers,
        }
    }

    /// Returns all servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerId> + use<> {
        ServerId::first(self.servers)
    }

    /// Notes that a server is down. Returns whether the user does not know yet.
    pub(crate) fn is_away(&mut self, server: ServerId) -> bool {
        let bit = 1 << server.index();
        let is_news = self.known & bit == 0;
        self.known |= bit;
        is_news
    }

    /// Notes that a server can be used.
    pub(crate) fn is_there(&mut self, server: ServerId) {
        self.known &= !(1 << server.index());
    }

    /// Notes that a server was lost, which may be started again soon.
    pub(crate) fn hurry(&mut self, now: u64) {
        self.pause_ns = SOON_NS;
        self.due_ns = self.due_ns.clamp(1, now.saturating_add(SOON_NS));
    }

    /// Tells whether an attempt is due.
    fn is_due(&mut self, now: u64) -> bool {
        let first = self.due_ns == 0;
        if now < self.due_ns {
            return false;
        }
        self.due_ns = now.saturating_add(self.pause_ns);
        if !first {
            self.pause_ns = (self.pause_ns * 2).min(*PAUSE_NS.end());
        }
        !first
    }

    /// Tells whether a connection might be a forbidden system call, which would end the
    /// program.
    fn is_forbidden(&self) -> bool {
        let is_filtered = self.status.as_ref().is_none_or(proc::is_filtered);
        crate::engine::alive::is_confined() || confined::is_confined() || is_filtered
    }
}

impl Backing {
    /// Connects to servers that are down, from time to time.
    pub(crate) fn look_for_servers(&mut self, report: &Report, now: u64) {
        if self.net.is_complete()
            || !self.rediscovery.is_due(now)
            || self.rediscovery.is_forbidden()
        {
            return;
        }
        self.learn_addresses();
        report.say(DEBUG, "looking for servers that are not there");
        self.net.connect(now);
    }

    /// Takes over addresses that were resolved since the program started.
    pub(crate) fn learn_addresses(&mut self) {
        let Some(names) = self.rediscovery.names else {
            return;
        };
        for server in self.rediscovery.servers() {
            if let Some(addrs) = names.find(self.net.name(server)) {
                self.net.set_addresses(server, addrs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_after_ten_seconds_and_ever_more_seldom() {
        let mut seek = Rediscovery::new(None, 0);
        let mut now = 77;
        assert!(!seek.is_due(now));
        let mut pauses = alloc::vec::Vec::new();
        for _ in 0..8 {
            let begin = now;
            while !seek.is_due(now) {
                now += 1_000_000_000;
            }
            pauses.push((now - begin) / 1_000_000_000);
        }
        assert_eq!(pauses, [10, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_server_that_was_lost_is_looked_for_soon() {
        let mut seek = Rediscovery::new(None, 0);
        let mut now = 77;
        for _ in 0..100 {
            seek.is_due(now);
            now += 10_000_000_000;
        }
        seek.hurry(now);
        let mut pauses = alloc::vec::Vec::new();
        for _ in 0..4 {
            let begin = now;
            while !seek.is_due(now) {
                now += SOON_NS;
            }
            pauses.push((now - begin) / SOON_NS);
        }
        assert_eq!(pauses, [1, 1, 2, 4]);
    }

    #[test]
    fn each_server_is_news_once_until_it_was_there() {
        let mut seek = Rediscovery::new(None, 0);
        let (third, last) = (ServerId::new(3), ServerId::new(63));
        assert!(seek.is_away(third) && !seek.is_away(third) && seek.is_away(last));
        seek.is_there(third);
        assert!(seek.is_away(third) && !seek.is_away(last));
    }

    #[test]
    fn no_filter_is_set_for_this_test() {
        let status = proc::status().expect("/proc is mounted");
        assert!(!proc::is_filtered(&status) || Rediscovery::new(None, 0).is_forbidden());
    }
}
