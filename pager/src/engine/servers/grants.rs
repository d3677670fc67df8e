//! Slabs that servers were asked for, and servers that have none to grant.

use crate::ServerId;
use crate::engine::servers::reuse::Reuse;
use crate::net::RequestError;
use crate::slots::{MAX_SERVERS, Slots};
use tmem_wire::Status;

/// Time after which a server that refused is asked again.
const RETRY_NS: u64 = 1_000_000_000;

/// The shortest time between two messages that there is no room.
const TELL_NS: u64 = 60_000_000_000;

/// What one server was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Grant {
    /// Returns the pages asked for and not granted yet.
    coming: u64,
    asked: bool,
    /// When the server last refused, and why.
    refused: Option<(u64, RequestError)>,
}

/// What all servers were asked for.
#[derive(Debug)]
pub(crate) struct Grants {
    of: [Grant; MAX_SERVERS],
    /// Pages asked for and not granted yet.
    coming: u64,
    /// No server has room, so nothing leaves the program.
    pub(crate) full: bool,
    /// A server has refused because it is full, and no server has granted anything since.
    pub(crate) short: bool,
    /// The search for slots of pages that do not need theirs.
    pub(crate) reuse: Reuse,
    /// The user was told that there is no room, and not yet that there is some again.
    told: bool,
    told_ns: Option<u64>,
    /// The user was told that nothing can be spilled.
    told_spill: bool,
}

impl Grants {
    pub(crate) fn new() -> Grants {
        Grants {
            of: [Grant::default(); MAX_SERVERS],
            coming: 0,
            full: false,
            short: false,
            reuse: Reuse::default(),
            told: false,
            told_ns: None,
            told_spill: false,
        }
    }

    /// Tells whether the user has to be told that nothing can be spilled: once.
    pub(crate) fn tells_of_spill(&mut self) -> bool {
        !core::mem::replace(&mut self.told_spill, true)
    }

    /// Returns the pages asked for and not granted yet.
    pub(crate) fn coming(&self) -> u64 {
        self.coming
    }

    /// Notes that `server` is asked for `pages` pages. Returns false if an answer is still
    /// outstanding.
    pub(crate) fn ask(&mut self, server: ServerId, pages: u64) -> bool {
        let grant = &mut self.of[server.index()];
        let is_new = !grant.asked;
        if is_new {
            grant.asked = true;
            grant.coming = pages;
            self.coming += pages;
        }
        is_new
    }

    /// Tells whether an answer is outstanding.
    pub(crate) fn waiting(&self) -> bool {
        self.of.iter().any(|g| g.asked)
    }

    /// Notes that the server has answered, or is gone.
    pub(crate) fn answered(&mut self, server: ServerId) {
        let grant = &mut self.of[server.index()];
        self.coming -= grant.coming;
        *grant = Grant::default();
    }

    /// Notes that there is room again.
    pub(crate) fn has_room(&mut self) {
        (self.full, self.short) = (false, false);
    }

    /// Counts pages that are in the program again, so that their slots can serve other
    /// pages. That makes room if servers are full, but not if they fail.
    pub(crate) fn came_home(&mut self, pages: u64) {
        if self.reuse.came_home(pages) && self.short {
            self.full = false;
        }
    }

    /// Notes that the server has refused.
    pub(crate) fn refused(
        &mut self,
        server: ServerId,
        error: RequestError,
        slots: &mut Slots,
        now: u64,
    ) {
        self.answered(server);
        self.short |= error == RequestError::Status(Status::Full);
        slots.set_grantable(server, 0);
        self.of[server.index()].refused = Some((now, error));
    }

    /// Makes servers eligible again that have not refused lately, even if they seemed full:
    /// other clients may have freed memory.
    pub(crate) fn retry(&mut self, slots: &mut Slots, now: u64) {
        for (server, grant) in ServerId::all().zip(&mut self.of) {
            let slab = u64::from(slots.slab_pages(server));
            let lately = |(when, _)| now < when + RETRY_NS;
            if slots.grantable(server) < slab && !grant.asked && !grant.refused.is_some_and(lately)
            {
                grant.refused = None;
                slots.set_grantable(server, slab);
            }
        }
    }

    /// Tells whether all refusals were for lack of room.
    pub(crate) fn is_for_lack_of_room(&self) -> bool {
        let full = RequestError::Status(Status::Full);
        let mut refusals = self.of.iter().filter_map(|g| g.refused);
        refusals.all(|(_, error)| error == full)
    }

    /// Tells whether the user has to be told now that there is no room.
    pub(crate) fn tells(&mut self, now: u64) -> bool {
        let lately = self.told_ns.is_some_and(|then| now < then + TELL_NS);
        if self.told || lately {
            return false;
        }
        self.told = true;
        self.told_ns = Some(now);
        true
    }

    /// Tells whether the user has to be told now that there is room again.
    pub(crate) fn tells_of_room(&mut self) -> bool {
        core::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Group, Location};
    use alloc::vec::Vec;

    const SERVER: ServerId = ServerId::new(0);
    const FULL: RequestError = RequestError::Status(Status::Full);

    fn group() -> Group {
        [SERVER].into_iter().collect()
    }

    /// Slots of a server that has reported `pages` free pages.
    fn slots(pages: u64) -> Slots {
        let mut slots = Slots::new(alloc::vec![Location::default()], 1);
        slots.set_geometry(SERVER, 64).expect("64 pages are a slab");
        slots.set_grantable(SERVER, pages);
        slots
    }

    #[test]
    fn a_server_that_gave_all_it_spoke_of_is_asked_for_more() {
        let (mut slots, mut grants) = (slots(64), Grants::new());
        assert!(grants.ask(SERVER, 64) && !grants.ask(SERVER, 64));
        assert_eq!((grants.coming(), grants.waiting()), (64, true));
        slots.add_slabs(SERVER, &[1]);
        grants.answered(SERVER);
        assert_eq!((grants.coming(), grants.waiting()), (0, false));
        assert!(slots.next_group().is_empty());
        grants.retry(&mut slots, 1);
        assert_eq!(slots.next_group(), group());
    }

    #[test]
    fn a_server_without_room_is_asked_again_as_long_as_it_has_none() {
        let (mut slots, mut grants) = (slots(64), Grants::new());
        let mut now = 5;
        for _ in 0..100 {
            assert_eq!(slots.next_group(), group());
            assert!(grants.ask(SERVER, 64));
            grants.refused(SERVER, FULL, &mut slots, now);
            grants.retry(&mut slots, now + RETRY_NS - 1);
            assert!(slots.next_group().is_empty());
            now += RETRY_NS;
            grants.retry(&mut slots, now);
        }
        assert_eq!(slots.alloc(1, &mut Vec::new()), 0);
    }

    #[test]
    fn a_server_that_fails_is_not_called_full() {
        let (mut slots, mut grants) = (slots(64), Grants::new());
        grants.refused(SERVER, FULL, &mut slots, 1);
        assert!(grants.is_for_lack_of_room());
        grants.refused(
            SERVER,
            RequestError::Status(Status::Internal),
            &mut slots,
            1,
        );
        assert!(!grants.is_for_lack_of_room());
    }

    #[test]
    fn pages_that_come_home_make_room_where_servers_are_full_and_not_where_they_fail() {
        let internal = RequestError::Status(Status::Internal);
        for (error, makes_room) in [(FULL, true), (internal, false)] {
            let (mut slots, mut grants) = (slots(64), Grants::new());
            grants.refused(SERVER, error, &mut slots, 1);
            assert_eq!(grants.short, makes_room);
            grants.full = true;
            grants.reuse.give_up();
            grants.came_home(1000);
            assert_eq!(grants.full, !makes_room);
        }
        let mut grants = Grants::new();
        (grants.short, grants.full) = (true, true);
        grants.has_room();
        assert!(!grants.short && !grants.full);
    }

    #[test]
    fn each_end_is_told_once_and_nothing_is_repeated_within_a_minute() {
        let mut grants = Grants::new();
        assert!(!grants.tells_of_room());
        assert!(grants.tells(7) && !grants.tells(8));
        assert!(grants.tells_of_room() && !grants.tells_of_room());
        assert!(!grants.tells(9) && !grants.tells_of_room());
        assert!(grants.tells(7 + TELL_NS));
    }
}
