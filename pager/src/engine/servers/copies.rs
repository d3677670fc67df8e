//! Sees whether pages get as many replicas as they are to have, and says so where they do
//! not.

use crate::engine::memory::report::{INFO, Report, WARN, program};
use crate::engine::servers::Backing;
use alloc::format;
use core::sync::atomic::Ordering::Relaxed;

/// So long servers that have not answered yet are waited for, before pages get fewer
/// replicas.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A server is given up that has answered nothing for so many milliseconds while others
/// answer, if others have all of its pages.
const SILENT_MS: u64 = 3_000;

/// The user is told at most this often.
const TELL_NS: u64 = 60_000_000_000;

/// What the user knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopiesWatch {
    /// When pages could leave for the first time.
    since_ns: Option<u64>,
    /// The user was told that pages get fewer replicas, and when.
    told: bool,
    told_ns: Option<u64>,
}

impl Backing {
    /// Gives up a server that hangs, if nothing is lost by that.
    pub(crate) fn give_up_silent(&mut self) {
        if self.slots.copies() > 1 {
            let slots = &self.slots;
            let is_spare = |server| !slots.only_servers().contains(&server);
            self.net.give_up_silent(SILENT_MS, is_spare);
        }
    }

    /// Has servers waited for that alone have pages, where that is wanted.
    pub(crate) fn wait_for_the_only(&mut self, report: &Report) {
        let only = self.slots.only_servers();
        for server in self.rediscovery.servers() {
            self.net.set_waited_for(server, only.contains(&server));
        }
        let away = self.net.away() as u64;
        report.stats.away_servers.store(away, Relaxed);
    }

    /// Follows how many replicas pages have and get.
    pub(crate) fn follow_copies(&mut self, report: &Report, now: u64) {
        if !self.was_up || self.slots.copies() < 2 {
            return;
        }
        let since = *self.copies.since_ns.get_or_insert(now);
        if self.net.is_settled() || now >= since + PATIENCE_NS {
            self.slots.expect_no_more();
        }
        let (_, pages) = self.slots.degraded();
        report.stats.degraded_pages.store(pages, Relaxed);
        let (wanted, who) = (self.slots.copies(), program);
        let lately = self.copies.told_ns.is_some_and(|ns| now < ns + TELL_NS);
        match self.slots.last_group() {
            Some(made) if made < wanted && !self.copies.told && !lately => {
                (self.copies.told, self.copies.told_ns) = (true, Some(now));
                report.say(
                    WARN,
                    &format!(
                        "pages of {} get {made} of {wanted} copies until further memory servers are \
                         there or have room: the loss of a server may lose pages",
                        who()
                    ),
                );
            }
            Some(made) if made >= wanted && self.copies.told => {
                self.copies.told = false;
                let who = who();
                report.say(INFO, &format!("pages of {who} get {wanted} copies again"));
            }
            _ => {}
        }
    }
}
