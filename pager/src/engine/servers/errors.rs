//! What becomes of pages when a server answers, and fails: they are written
//! elsewhere, or asked for again.

use crate::engine::servers::requests::{Read, Write};
use crate::engine::{DEBUG, ERROR, Engine, INFO, WARN};
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::MAX_SERVERS;
use crate::sys::now_ns;
use alloc::format;
use alloc::vec::Vec;

/// So many writes to a slab that fail one after the other have it given up for new
/// pages, where the server may take the next.
const SLAB_TRIES: u8 = 3;
/// So many to a server have it rest.
const SERVER_TRIES: u32 = 8;
/// How long it rests at first, and at most. It is twice as long each time.
const REST_NS: core::ops::RangeInclusive<u64> = 50_000_000..=30_000_000_000;
/// While a server rests for no longer, pages wait for it that no other can take.
const WAITED_FOR_NS: u64 = 1_000_000_000;

/// How pages are asked for again: after how many milliseconds, and whether over a
/// connection that was made anew. Then they are lost.
const TRIES: [(u64, bool); 5] = [
    (0, false),
    (0, true),
    (50, false),
    (200, true),
    (800, false),
];

/// How a server fails.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Writes that failed, one after the other.
    failed: u32,
    /// How long it rests, and until when.
    rest_ns: u64,
    until_ns: Option<u64>,
    /// The user was told that writes fail, that reads do, and that it rests.
    told: [bool; 3],
}

/// How servers fail, and the reads to be made again.
#[derive(Debug)]
pub(crate) struct Troubles {
    of: [Trouble; MAX_SERVERS],
    again: Vec<Again>,
}

/// A page to be asked for again.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// Of kind `Fetching`; its page says whether it is wanted still.
    frame: u32,
    tries: u8,
    due_ns: u64,
}

impl Troubles {
    pub(crate) fn new() -> Troubles {
        Troubles {
            of: [Trouble::default(); MAX_SERVERS],
            again: Vec::new(),
        }
    }

    /// The server begins anew.
    pub(crate) fn forget(&mut self, server: u16) {
        self.of[usize::from(server)] = Trouble::default();
    }

    /// When something is to be done about it.
    pub(crate) fn due(&self) -> Option<u64> {
        let rests = self.of.iter().filter_map(|t| t.until_ns);
        rests.chain(self.again.iter().map(|a| a.due_ns)).min()
    }

    /// Whether a server is about to be tried again.
    pub(crate) fn is_passing(&self) -> bool {
        let soon = |t: &Trouble| t.until_ns.is_some() && t.rest_ns <= WAITED_FOR_NS;
        self.of.iter().any(soon)
    }

    /// Whether a server rests.
    pub(crate) fn any_rests(&self) -> bool {
        self.of.iter().any(|t| t.until_ns.is_some())
    }
}

impl Trouble {
    /// A write has failed; whether the server rests from now on.
    fn fails(&mut self, now: u64) -> bool {
        self.failed = self.failed.saturating_add(1);
        if self.failed < SERVER_TRIES || self.until_ns.is_some() {
            return false;
        }
        self.rest_ns = (self.rest_ns * 2).clamp(*REST_NS.start(), *REST_NS.end());
        self.until_ns = Some(now + self.rest_ns);
        true
    }

    /// A write was taken; whether the user was told that none were.
    fn works(&mut self) -> bool {
        (self.failed, self.rest_ns) = (0, 0);
        core::mem::take(&mut self.told[RESTS])
    }

    /// Whether the user is to be told of it, once.
    fn tells(&mut self, what: usize) -> bool {
        !core::mem::replace(&mut self.told[what], true)
    }
}

const WRITES: usize = 0;
const READS: usize = 1;
const RESTS: usize = 2;

impl Engine {
    /// A write has failed. The frames still hold what was to be written.
    pub(crate) fn not_written(&mut self, write: &Write, error: RequestError) {
        if let RequestError::Status(_) = error {
            self.fails(write, error);
        }
        for &frame in &write.frames {
            self.must_be(frame, Kind::Writing);
            match self.pool.page(frame) {
                0 => self.pool.put(frame, Kind::Free, 0),
                page => {
                    let slot = self.pages.get(page).slot;
                    self.pages.update(page, |p| p.slot = None);
                    self.free_slot(slot);
                    self.unplace(frame, page);
                }
            }
        }
    }

    fn fails(&mut self, write: &Write, error: RequestError) {
        let server = write.slot.server();
        let trouble = &mut self.troubles.of[usize::from(server)];
        let rests = trouble.fails(now_ns());
        let level = if trouble.tells(WRITES) { WARN } else { DEBUG };
        let tells = rests && trouble.tells(RESTS);
        let is_sure = !error.is_transient();
        self.slots.failed(write.slot, is_sure, SLAB_TRIES);
        let name = self.net.name(server);
        let n = write.frames.len();
        self.say(
            level,
            &format!("server {name} did not take {n} page(s): {error}; they are written again"),
        );
        if rests {
            self.slots.set_resting(server, true);
        }
        if tells {
            self.say(
                WARN,
                &format!(
                    "server {name} takes no pages ({error}): it keeps those that it has, others \
                     go elsewhere until it takes some again"
                ),
            );
        }
    }

    /// A server has taken pages.
    pub(crate) fn took(&mut self, server: u16) {
        if self.troubles.of[usize::from(server)].works() {
            let name = self.net.name(server);
            self.say(INFO, &format!("server {name} takes pages again"));
        }
    }

    /// Does what is due: servers that have rested are tried again, and reads made
    /// again.
    pub(crate) fn look_at_troubles(&mut self, now: u64) {
        if self.troubles.due().is_none_or(|due| now < due) {
            return;
        }
        for (server, trouble) in (0..).zip(&mut self.troubles.of) {
            if trouble.until_ns.take_if(|until| now >= *until).is_some() {
                self.slots.set_resting(server, false);
                self.grants.full = false;
            }
        }
        let (due, later) = core::mem::take(&mut self.troubles.again)
            .into_iter()
            .partition(|a| now >= a.due_ns);
        self.troubles.again = later;
        for again in due {
            self.read_again(again, now);
        }
    }

    fn read_again(&mut self, again: Again, now: u64) {
        let Again { frame, tries, .. } = again;
        self.must_be(frame, Kind::Fetching);
        let page = self.pool.page(frame);
        if page == 0 {
            return self.pool.put(frame, Kind::Free, 0);
        }
        let Some(slot) = self.pages.get(page).slot else {
            // Its server was lost meanwhile.
            return self.lose(page, frame);
        };
        let (_, is_anew) = TRIES[usize::from(tries) - 1];
        if is_anew {
            self.net.renew(slot.server(), Lane::Demand, now);
        }
        self.ask_for(&[(page, slot, frame)], 0, 0, tries);
    }

    /// A read has failed.
    pub(crate) fn not_fetched(&mut self, read: &Read, error: RequestError) {
        let text = match error {
            RequestError::Lost => None,
            error => Some(format!("{error}")),
        };
        self.fetch_again(read, &read.frames, text.as_deref(), error.is_transient());
    }

    /// Pages of a read are not what they should be, for a reason, or their server is
    /// lost: those that threads wait for are asked for again, if that may help, and
    /// are lost otherwise.
    pub(crate) fn fetch_again(
        &mut self,
        read: &Read,
        frames: &[u32],
        why: Option<&str>,
        helps: bool,
    ) {
        let (mut lost, mut again) = (0, 0);
        for &frame in frames {
            self.must_be(frame, Kind::Fetching);
            let page = self.pool.page(frame);
            if page == 0 {
                self.pool.put(frame, Kind::Free, 0);
                continue;
            }
            if !self.pages.get(page).wanted && self.pages.get(page).slot.is_some() {
                // Whoever touches it will ask for it.
                self.pages.update(page, |p| {
                    p.state = State::Remote;
                    p.ahead = false;
                });
                self.pool.put(frame, Kind::Free, 0);
                continue;
            }
            match TRIES.get(usize::from(read.tries)) {
                Some((ms, _)) if helps => {
                    again += 1;
                    self.troubles.again.push(Again {
                        frame,
                        tries: read.tries + 1,
                        due_ns: now_ns() + ms * 1_000_000,
                    });
                }
                _ => {
                    lost += 1;
                    self.lose(page, frame);
                }
            }
        }
        // The loss of a whole server is told once.
        let Some(why) = why else { return };
        let name = self.net.name(read.server);
        if again > 0 {
            let trouble = &mut self.troubles.of[usize::from(read.server)];
            let level = if trouble.tells(READS) { WARN } else { DEBUG };
            self.say(
                level,
                &format!("server {name} did not give back {again} page(s): {why}; asked again"),
            );
        }
        if lost > 0 {
            let who = self.program();
            self.say(
                ERROR,
                &format!(
                    "server {name} does not give back {lost} page(s) of {who}: {why}; touching \
                     such a page ends it by SIGBUS"
                ),
            );
        }
    }

    /// Spreads pages over the servers as they are quick.
    pub(crate) fn weigh_servers(&mut self) {
        let (servers, speeds): (Vec<u16>, Vec<_>) = self.net.speeds().unzip();
        let shares = tmem_policy::placement::shares(&speeds);
        for (server, share) in servers.into_iter().zip(shares) {
            self.slots.set_share(server, share);
        }
    }
}
