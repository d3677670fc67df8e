//! Fetches pages ahead of their use.

use crate::engine::memory::Memory;
use crate::engine::read_in::read;
use crate::engine::read_in::run::Run;
use crate::engine::reclaim::Reclaim;
use crate::pages::State;
use crate::pool::Kind;
use crate::slots::Slot;
use alloc::vec::Vec;

/// The most pages of one read ahead: the first can be used while the others
/// are still on their way, and those of one are put into the program by one move.
pub(crate) const READ_AHEAD: usize = crate::pool::RUN_FRAMES;

/// Fetches pages ahead, each once, and leaves the one that is the marker out of the
/// program.
pub(crate) fn fetch_pages(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    pages: &[u64],
    marker: Option<u64>,
) {
    let mut run: Vec<(u64, Slot)> = Vec::new();
    let mut resting = Run::default();
    for &page in pages {
        // Frames may have been reclaimed on the way here.
        let entry = m.pages.get(page);
        match (entry.state, entry.slot) {
            (State::Pooled(_), _) if Some(page) == marker => {
                m.pages.update(page, |p| p.ahead = true);
            }
            (State::Pooled(frame), _) => {
                if !matches!(m.pool.kind(frame), Kind::Standby | Kind::PendingWriteback) {
                    continue;
                }
                if !resting.add(page, frame) {
                    install_resting(m, &mut resting);
                    // What is named twice was among these.
                    if m.pages.get(page).state == entry.state {
                        resting.add(page, frame);
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
                // What is named twice was among these, and is not to be read into two
                // frames.
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

/// Asks for a run of slots, for as many of them as there are frames; whether
/// there were for all.
fn read_ahead(
    m: &mut Memory,
    reclaim: &mut Reclaim,
    run: &mut Vec<(u64, Slot)>,
    marker: Option<u64>,
) -> bool {
    let mut reads = Vec::with_capacity(run.len());
    let mut left = &run[..];
    while !left.is_empty() {
        let Some((frame, n)) = reclaim.take_frames(m, left.len(), false) else {
            break;
        };
        let (now, later) = left.split_at(n);
        for (&(page, slot), frame) in now.iter().zip(frame..) {
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

/// Puts pages that rest in the pool into the program, ahead of their use.
fn install_resting(m: &mut Memory, run: &mut Run) {
    let Run { page, frame, n } = core::mem::take(run);
    if n > 0 {
        // What stops it shows when the page is touched.
        let _ = m.install(page, frame, n);
    }
}
