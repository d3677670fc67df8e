//! Repeats reads that a server has failed.

use crate::engine::memory::Memory;
use crate::engine::memory::report::{DEBUG, ERROR, WARN, program};
use crate::engine::read_in::read;
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::errors::ReadAgain;
use crate::engine::servers::requests::Read;
use crate::frame_number::FrameNumber;
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::now_ns;
use alloc::format;

/// Pauses before each repetition in milliseconds, and whether it uses a new connection.
/// After the last one the page is lost.
const TRIES: [(u64, bool); 5] = [
    (0, false),
    (0, true),
    (50, false),
    (200, true),
    (800, false),
];

/// Uses servers again whose pause is over, and repeats reads that are due.
pub(crate) fn retry_due(m: &mut Memory, reclaim: &mut Reclaim, now: u64) {
    if m.backing.errors.due().is_none_or(|due| now < due) {
        return;
    }
    for server in m.backing.errors.rested(now) {
        m.backing.slots.set_resting(server, false);
        m.backing.grants.full = false;
    }
    for again in m.backing.errors.reads_due(now) {
        read_again(m, reclaim, again, now);
    }
}

fn read_again(m: &mut Memory, reclaim: &mut Reclaim, again: ReadAgain, now: u64) {
    let ReadAgain { frame, tries, .. } = again;
    m.pool.must_be(frame, Kind::ReadIn);
    let Some(page) = m.pool.page(frame) else {
        return m.pool.put(frame, Kind::Free, None);
    };
    let Some(slot) = m.pages.get(page).slot else {
        // The server was lost meanwhile.
        return read::lose(m, reclaim, page, frame);
    };
    let (_, is_anew) = TRIES[usize::from(tries) - 1];
    if is_anew {
        m.backing.net.renew(slot.server(), Lane::Demand, now);
    }
    read::ask_for(m, &[(page, slot, frame)], None, None, tries, Lane::Demand);
}

/// Handles a read that has failed.
pub(crate) fn not_fetched(m: &mut Memory, reclaim: &mut Reclaim, read: &Read, error: RequestError) {
    let text = match error {
        RequestError::Lost => None,
        error => Some(format!("{error}")),
    };
    fetch_again(
        m,
        reclaim,
        read,
        &read.frames,
        text.as_deref(),
        error.is_transient(),
    );
}

/// Handles pages that were not read correctly. Pages that threads wait for are read again
/// if that `helps`, and are lost otherwise. The other pages are left on the server. `why`
/// is `None` if the whole server is lost.
pub(crate) fn fetch_again(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    read: &Read,
    frames: &[FrameNumber],
    why: Option<&str>,
    helps: bool,
) {
    let (mut lost, mut again) = (0, 0);
    for &frame in frames {
        m.pool.must_be(frame, Kind::ReadIn);
        let Some(page) = m.pool.page(frame) else {
            m.pool.put(frame, Kind::Free, None);
            continue;
        };
        if !m.pages.get(page).has_waiters && m.pages.get(page).slot.is_some() {
            // The next fault on the page reads it.
            m.pages.update(page, |p| {
                p.state = State::Remote;
                p.ahead = false;
            });
            m.pool.put(frame, Kind::Free, None);
            continue;
        }
        match TRIES.get(usize::from(read.tries)) {
            Some((ms, _)) if helps => {
                again += 1;
                m.backing.errors.read_again(ReadAgain {
                    frame,
                    tries: read.tries + 1,
                    due_ns: now_ns() + ms * 1_000_000,
                });
            }
            _ => {
                lost += 1;
                read::lose(m, reclaim, page, frame);
            }
        }
    }
    // The loss of a whole server is reported elsewhere, once.
    let Some(why) = why else { return };
    let name = m.backing.net.name(read.server);
    if again > 0 {
        let is_news = m.backing.errors.read_failed(read.server);
        let level = if is_news { WARN } else { DEBUG };
        m.report.say(
            level,
            &format!("server {name} did not give back {again} page(s): {why}; asked again"),
        );
    }
    if lost > 0 {
        let who = program();
        m.report.say(
            ERROR,
            &format!(
                "server {name} does not give back {lost} page(s) of {who}: {why}; touching \
                 such a page ends it by SIGBUS"
            ),
        );
    }
}
