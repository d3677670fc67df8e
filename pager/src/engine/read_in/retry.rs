//! Repeats reads that a server has failed.

use crate::engine::memory::Memory;
use crate::engine::memory::report::{DEBUG, ERROR, WARN, program};
use crate::engine::read_in::read::{self, How};
use crate::engine::reclaim::Reclaim;
use crate::engine::servers::errors::ReadAgain;
use crate::engine::servers::requests::{Elsewhere, Read};
use crate::frame_number::FrameNumber;
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::pool::Kind;
use crate::sys::now_ns;
use alloc::format;
use core::sync::atomic::Ordering::Relaxed;

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
    let ReadAgain {
        frame,
        tries,
        was_spoilt,
        ..
    } = again;
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
        for at in m.backing.slots.readable(slot) {
            m.backing.net.renew(at.server, Lane::Demand, now);
        }
    }
    let elsewhere = Elsewhere {
        was_spoilt,
        ..Elsewhere::default()
    };
    let how = How {
        tries,
        elsewhere,
        ..How::default()
    };
    read::ask_for(m, &[(page, slot, frame)], how, Lane::Demand);
}

/// Handles a read that has failed.
pub(crate) fn not_fetched(m: &mut Memory, reclaim: &mut Reclaim, read: &Read, error: RequestError) {
    let text = match error {
        RequestError::Lost => None,
        error => Some(format!("{error}")),
    };
    let mut elsewhere = read.elsewhere;
    elsewhere.may_help |= error.is_transient();
    fetch_again(m, reclaim, read, &read.frames, text.as_deref(), elsewhere);
}

/// Other bytes have come for pages of a read.
pub(crate) fn spoilt(m: &mut Memory, reclaim: &mut Reclaim, read: &Read, frames: &[FrameNumber]) {
    let mut elsewhere = read.elsewhere;
    (elsewhere.may_help, elsewhere.was_spoilt) = (true, true);
    let why = Some("it answered with other bytes");
    fetch_again(m, reclaim, read, frames, why, elsewhere);
}

/// Handles pages that were not read correctly. Pages that threads wait for are read from
/// another server that has them. Where all were asked, they are read again if that may help,
/// and are lost otherwise. The other pages are left on the servers. `why` is `None` if the
/// whole server is lost.
fn fetch_again(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    read: &Read,
    frames: &[FrameNumber],
    why: Option<&str>,
    mut elsewhere: Elsewhere,
) {
    elsewhere.add(read.server);
    let (mut lost, mut again, mut other) = (0, 0, 0);
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
        if let Some(slot) = m.pages.get(page).slot
            && read::choose(m, slot, &elsewhere).is_some()
        {
            other += 1;
            let how = How {
                tries: read.tries,
                elsewhere,
                ..How::default()
            };
            read::ask_for(m, &[(page, slot, frame)], how, Lane::Demand);
            continue;
        }
        match TRIES.get(usize::from(read.tries)) {
            Some((ms, _)) if elsewhere.may_help => {
                again += 1;
                m.backing.errors.read_again(ReadAgain {
                    frame,
                    tries: read.tries + 1,
                    was_spoilt: elsewhere.was_spoilt,
                    due_ns: now_ns() + ms * 1_000_000,
                });
            }
            _ => {
                lost += 1;
                read::lose(m, reclaim, page, frame);
            }
        }
    }
    let figure = &m.report.stats.failed_over_pages;
    figure.fetch_add(other, Relaxed);
    // The loss of a whole server is reported elsewhere, once.
    let Some(why) = why else { return };
    let name = m.backing.net.called(read.server);
    if again + other > 0 {
        let is_news = m.backing.errors.read_failed(read.server);
        let level = if is_news { WARN } else { DEBUG };
        let (n, what) = match other {
            0 => (again, "asked again"),
            other => (other, "asked of another server"),
        };
        m.report.say(
            level,
            &format!("{name} did not give back {n} page(s): {why}; {what}"),
        );
    }
    if lost > 0 {
        let who = program();
        m.report.say(
            ERROR,
            &format!(
                "{name} does not give back {lost} page(s) of {who}: {why}; touching \
                 such a page ends it by SIGBUS"
            ),
        );
    }
}
