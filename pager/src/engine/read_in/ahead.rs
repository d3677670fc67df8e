//! Reads pages ahead of their use.

use crate::engine::memory::Memory;
use crate::engine::read_in::read;
use crate::engine::read_in::run::{Run, add};
use crate::engine::reclaim::Reclaim;
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use alloc::vec::Vec;
use tmem_policy::PageNumber;

/// The most pages of one read ahead. The first page of a run can be used while later runs
/// are still on their way, and the pages of one run are installed by one move.
pub(crate) const READ_AHEAD: usize = crate::pool::RUN_FRAMES;

/// Reads pages ahead. The page that is the readahead marker is brought to local memory but
/// not installed, so that touching it is noticed.
pub(crate) fn fetch_pages(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    pages: &[PageNumber],
    marker: Option<PageNumber>,
) {
    let mut run: Vec<(PageNumber, Slot)> = Vec::new();
    let mut resting: Option<Run> = None;
    for &page in pages {
        // Taking frames may have reclaimed pages of this list.
        let entry = m.pages.get(page);
        match (entry.state, entry.slot) {
            (State::Pooled(_), _) if Some(page) == marker => {
                m.pages.update(page, |p| p.ahead = true);
            }
            (State::Pooled(frame), _) => {
                if !matches!(m.pool.kind(frame), Kind::Standby | Kind::PendingWriteback) {
                    continue;
                }
                if !add(&mut resting, page, frame) {
                    install_resting(m, &mut resting);
                    // A page that is listed twice was installed just now.
                    if m.pages.get(page).state == entry.state {
                        add(&mut resting, page, frame);
                    }
                }
            }
            (State::Remote, Some(slot)) => {
                install_resting(m, &mut resting);
                let follows = run.last().is_none_or(|(_, last)| last.is_before(slot));
                let sends = !follows || run.len() >= READ_AHEAD;
                if sends && !read_ahead(m, reclaim, &mut run, marker) {
                    break;
                }
                // A page that is listed twice was asked for just now, and must not be read
                // into two frames.
                if !sends || m.pages.get(page).state == State::Remote {
                    run.push((page, slot));
                }
            }
            _ => {}
        }
    }
    install_resting(m, &mut resting);
    read_ahead(m, reclaim, &mut run, marker);
}

/// Asks for a run of consecutive slots, as far as there are frames. Returns whether there
/// were enough.
fn read_ahead(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    run: &mut Vec<(PageNumber, Slot)>,
    marker: Option<PageNumber>,
) -> bool {
    let mut reads = Vec::with_capacity(run.len());
    let mut left = &run[..];
    while !left.is_empty() {
        let Some((frame, n)) = reclaim.take_frames(m, left.len(), false) else {
            break;
        };
        let (now, later) = left.split_at(n);
        for (&(page, slot), frame) in now.iter().zip(frame.run(n)) {
            m.pages.update(page, |p| p.ahead = true);
            reads.push((page, slot, frame));
        }
        left = later;
    }
    let all = left.is_empty();
    run.clear();
    read::read(m, &reads, None, marker);
    all
}

/// Installs pages that are in frames already, ahead of their use.
fn install_resting(m: &mut Memory, run: &mut Option<Run>) {
    if let Some(Run { page, frame, n }) = run.take() {
        // If something stops it, a fault will show.
        let _ = m.install(page, frame, n);
    }
}
