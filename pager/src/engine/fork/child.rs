//! The start of the engine in a forked child, from what its parent's engine has left it
//! (see `fork`). The program goes on only after this.

use crate::ServerId;
use crate::engine::fork::handover::Handed;
use crate::engine::fork::manifest::{Change, Entry, EntryKind, ForkManifest};
use crate::engine::memory::Memory;
use crate::engine::memory::address::addr;
use crate::engine::memory::report::INFO;
use crate::maps;
use crate::pages::{Page, State};
use crate::ranges::Ranges;
use crate::slots::Slot;
use crate::sys::channel::Channel;
use crate::sys::errno::Words;
use crate::sys::now_ns;
use crate::sys::space::SPACE;
use crate::sys::uffd::{REGISTER_MISSING, REGISTER_WP};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_policy::PageNumber;
use tmem_wire::PAGE_SIZE;

/// How long a process counts as just forked.
const YOUTH_NS: u64 = 100_000_000;

/// Takes over the parent's knowledge. Returns the connection to the parent's engine, which
/// has to be told when the child goes on. An error is the reason why the child cannot go
/// on.
pub(crate) fn inherit(
    m: &mut Memory,
    manifest: &ForkManifest,
    handed: Handed,
    kept: Vec<Range<usize>>,
) -> Result<Option<Channel>, String> {
    if let Some(reason) = &manifest.refused {
        return Err(reason.clone());
    }
    let (before, unknown) = manifest.changes()?;
    manifest.read();
    m.backing.slots = manifest.slots.clone();
    let now = now_ns();
    for (server, session) in ServerId::all().zip(&manifest.sessions) {
        if let Some(session) = session {
            m.backing.net.resume(server, session.clone(), now);
        }
    }
    let Handed {
        channel,
        dialled,
        files,
        ..
    } = handed;
    if let Some(copy) = &manifest.local {
        // SAFETY: the manifest was made for the fork that made this process.
        let inherited = unsafe { m.backing.net.inherit_local(copy, &SPACE, files) };
        let cannot = |e| format!("the local tier cannot be taken over: {}", Words(e));
        inherited.map_err(cannot)?;
        let pages = m.backing.net.local_memory() / PAGE_SIZE;
        m.residency.share_mut().inherits_tier(pages as u64);
    }
    dialled
        .into_iter()
        .for_each(|d| m.backing.net.resume_by(d, now));
    let entries = match before.is_empty() && unknown.is_empty() && manifest.is_sorted() {
        true => Cow::Borrowed(&*manifest.entries),
        false => Cow::Owned(settled(&manifest.entries, &before, &unknown)),
    };
    let mut ranges = Ranges::default();
    let moved = before.iter().chain(&unknown).filter_map(moved_to);
    manifest
        .adopted
        .iter()
        .cloned()
        .chain(moved)
        .for_each(|range| ranges.insert(range));
    // This engine may have mapped its own memory where something was unmapped.
    kept.into_iter().for_each(|range| ranges.remove(range));
    let ranges: Vec<_> = ranges.iter().collect();
    let refused = adopt_inherited(m, &ranges)?;
    let needed = |e: &&Entry| matches!(e.kind(), EntryKind::Remote | EntryKind::Lost);
    for entry in entries.iter().filter(needed) {
        if let Some((_, error)) = refused.iter().find(|r| r.0.contains(&addr(entry.page))) {
            return Err(format!("memory cannot be registered: {}", Words(*error)));
        }
    }
    take_over(m, &entries)?;
    m.inherit_advice();
    Ok(channel)
}

/// Registers the memory that was adopted and is still mapped. Returns the ranges that
/// cannot be registered, and why.
fn adopt_inherited(
    m: &mut Memory,
    ranges: &[Range<usize>],
) -> Result<Vec<(Range<usize>, rustix::io::Errno)>, String> {
    let mut refused = Vec::new();
    let mut text = Vec::new();
    let cannot = |e: rustix::io::Errno| format!("/proc cannot be read: {}", Words(e));
    m.mover.kernel().maps(&mut text).map_err(cannot)?;
    let mapped: Vec<Range<usize>> = maps::parse(&text)
        .filter_map(Result::ok)
        .map(|m| m.start..m.end)
        .collect();
    let mut from = 0;
    for range in ranges {
        // Both lists are in order.
        from += mapped[from..].partition_point(|m| m.end <= range.start);
        for there in mapped[from..].iter().take_while(|m| m.start < range.end) {
            let part = range.start.max(there.start)..range.end.min(there.end);
            if part.is_empty() {
                continue;
            }
            let mode = REGISTER_MISSING | REGISTER_WP;
            // Another kind of mapping may be there now.
            match m.mover.kernel().register(part.start, part.len(), mode) {
                Ok(()) => m.space.adopt(part),
                Err(e) => refused.push((part, e)),
            }
        }
    }
    for range in m.space.adopted().iter() {
        m.withhold_from_forks(&range);
    }
    if !m.space.adopted().is_empty() {
        crate::engine::exclusion::reports();
    }
    Ok(refused)
}

/// Builds the page table. What is in memory counts, and the manifest is for the other
/// pages.
fn take_over(m: &mut Memory, entries: &[Entry]) -> Result<(), String> {
    let cannot = |e: rustix::io::Errno| format!("the page map cannot be read: {}", Words(e));
    let (mut remote, mut lost) = (0, 0);
    let mut unused: Vec<Slot> = Vec::new();
    let ranges: Vec<Range<usize>> = m.space.adopted().iter().collect();
    let mut at = 0;
    for range in ranges {
        let mut there = Vec::new();
        m.mover
            .kernel()
            .occupied(range.start, range.end, &mut there)
            .map_err(cannot)?;
        let mut runs = there.iter().peekable();
        while at < entries.len() && addr(entries[at].page) < range.end {
            let entry = &entries[at];
            at += 1;
            let place = addr(entry.page);
            while runs.next_if(|r| r.end <= place).is_some() {}
            let present = runs.peek().is_some_and(|r| r.start <= place);
            let state = match (place >= range.start, present, entry.kind()) {
                (false, ..) | (_, _, EntryKind::Struck) | (_, false, EntryKind::Local) => {
                    unused.extend(entry.slot());
                    continue;
                }
                (true, true, EntryKind::Lost) => continue,
                (true, true, _) => State::Local,
                (true, false, EntryKind::Remote) => State::Remote,
                (true, false, EntryKind::Lost) => State::Lost,
            };
            remote += i64::from(state == State::Remote);
            lost += i64::from(state == State::Lost);
            let page = Page {
                state,
                slot: entry.slot(),
                hash: entry.hash,
                ..Page::default()
            };
            m.pages.set(entry.page, &page);
        }
        m.enqueue_present(range);
    }
    unused.extend(entries[at..].iter().filter_map(Entry::slot));
    for slot in unused {
        m.backing.free_slot(Some(slot));
    }
    if lost > 0 {
        crate::engine::evicted::set_lost();
        // The parent has reported the pages that it lost with a server. The others are
        // those that the program gave up at the very moment of the fork.
        m.report
            .say(INFO, &format!("{lost} pages are lost to a forked child"));
    }
    m.residency
        .begin_as_child(remote as u64, now_ns() + YOUTH_NS);
    m.count_remote(remote);
    Ok(())
}

/// Returns the entries as they were at the fork, in order, each page once.
fn settled(entries: &[Entry], before: &[Change], unknown: &[Change]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    before.iter().for_each(|change| change.apply(&mut entries));
    for change in unknown {
        let range = change.range();
        let pages = PageNumber::containing(range.start)..PageNumber::containing(range.end);
        let mut also = Vec::new();
        for entry in entries.iter_mut().filter(|e| pages.contains(&e.page)) {
            if entry.kind() == EntryKind::Struck {
                continue;
            }
            // A page that is not in memory here has one of two states, and nothing tells
            // which.
            entry.become_kind(EntryKind::Lost);
            if let Change::Moved(_, to) = change {
                let mut there = *entry;
                there.page = PageNumber::containing(*to) + (entry.page - pages.start);
                also.push(there);
            }
        }
        entries.append(&mut also);
    }
    entries.sort_by_key(|e| (e.page, e.kind() == EntryKind::Struck));
    entries.dedup_by_key(|e| e.page);
    entries
}

fn moved_to(change: &Change) -> Option<Range<usize>> {
    match change {
        Change::Moved(range, to) => Some(*to..*to + range.len()),
        Change::Discarded(_) | Change::Unmapped(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digester;
    use crate::slots::Slots;
    use EntryKind::{Local, Lost, Remote, Struck};

    fn entries(kinds: &[(u64, EntryKind)]) -> Vec<Entry> {
        let slot = |page| (page % 2 == 0).then(|| Slot::from_bits(page));
        let entry = |&(page, kind): &(u64, EntryKind)| {
            Entry::new(PageNumber::new(page), slot(page), page, kind)
        };
        kinds.iter().map(entry).collect()
    }

    fn seen(entries: &[Entry]) -> Vec<(u64, EntryKind)> {
        entries.iter().map(|e| (e.page.get(), e.kind())).collect()
    }

    fn pages(range: Range<usize>) -> Range<usize> {
        range.start * PAGE_SIZE..range.end * PAGE_SIZE
    }

    #[test]
    fn what_was_given_up_before_a_fork_is_struck() {
        let told = entries(&[(1, Remote), (2, Local), (3, Remote), (9, Lost)]);
        let before = [Change::Discarded(pages(2..4))];
        let settled = settled(&told, &before, &[]);
        assert_eq!(
            seen(&settled),
            [(1, Remote), (2, Struck), (3, Struck), (9, Lost)]
        );
    }

    #[test]
    fn what_was_moved_before_a_fork_is_where_it_was_moved_to() {
        let told = entries(&[(1, Remote), (2, Local), (30, Remote)]);
        let before = [Change::Moved(pages(1..3), 40 * PAGE_SIZE)];
        let settled = settled(&told, &before, &[]);
        assert_eq!(seen(&settled), [(30, Remote), (40, Remote), (41, Local)]);
        assert_eq!(settled[2].slot(), Some(Slot::from_bits(2)));
    }

    #[test]
    fn what_may_have_changed_before_or_after_a_fork_is_lost() {
        let told = entries(&[(1, Remote), (2, Struck), (3, Local), (7, Remote)]);
        let unknown = [
            Change::Unmapped(pages(1..3)),
            Change::Moved(pages(3..4), 50 * PAGE_SIZE),
        ];
        let settled = settled(&told, &[], &unknown);
        assert_eq!(
            seen(&settled),
            [(1, Lost), (2, Struck), (3, Lost), (7, Remote), (50, Lost)]
        );
        assert_eq!(settled[0].slot(), None);
    }

    fn manifest(told: Vec<Entry>) -> ForkManifest {
        let (adopted, sessions) = (Vec::new(), Vec::new());
        let (slots, digester) = (Slots::new(Vec::new(), 1), Digester::draw());
        ForkManifest::new(told, adopted, sessions, (slots, None), digester, None).unwrap()
    }

    /// What a child that is forked now has: a copy of the entries, and the batch number.
    fn inherited(manifest: &ForkManifest) -> (Vec<Entry>, u32) {
        (manifest.entries.clone(), manifest.batch())
    }

    #[test]
    fn a_report_that_was_read_and_not_followed_at_the_fork_is_found_in_the_log() {
        let mut parent = manifest(entries(&[(1, Remote), (2, Remote), (3, Remote)]));
        parent.batch_begins();
        parent.strike(&Change::Discarded(pages(1..2)));
        parent.batch_ends();
        parent.batch_begins();
        let (told, batch) = inherited(&parent);
        parent.strike(&Change::Discarded(pages(2..3)));
        parent.batch_ends();
        // The child has to learn of changes after the fork as well.
        parent.batch_begins();
        parent.strike(&Change::Unmapped(pages(3..4)));
        parent.strike(&Change::Discarded(pages(1..4)));
        parent.batch_ends();
        let (before, unknown) = parent.changes_since(batch);
        let settled = settled(&told, &before, &unknown);
        assert_eq!(seen(&settled), [(1, Struck), (2, Struck), (3, Lost)]);
    }

    #[test]
    fn nothing_is_left_to_be_told_where_no_report_was_being_read() {
        let mut parent = manifest(entries(&[(1, Remote), (2, Remote)]));
        parent.batch_begins();
        parent.strike(&Change::Unmapped(pages(1..2)));
        parent.batch_ends();
        let (told, batch) = inherited(&parent);
        let (before, unknown) = parent.changes_since(batch);
        assert!(before.is_empty() && unknown.is_empty());
        assert_eq!(seen(&told), [(1, Struck), (2, Remote)]);
    }
}
