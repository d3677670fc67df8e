//! How the engine of a forked child begins: with what its parent's engine has
//! left it, see `fork`. The program goes on only when this is done.

use super::fork::{Change, Entry, EntryKind, Will};
use super::{Engine, WARN, fault::addr};
use crate::maps;
use crate::pages::{Page, State};
use crate::ranges::Ranges;
use crate::slots::Slot;
use crate::sys::now_ns;
use crate::sys::uffd::{REGISTER_MISSING, REGISTER_WP};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_wire::PAGE_SIZE;

impl Engine {
    /// Takes over what the parent knew. An error is a reason why the child
    /// cannot go on.
    pub(super) fn inherit(&mut self, will: &Will) -> Result<(), String> {
        if let Some(reason) = &will.refused {
            return Err(reason.clone());
        }
        let (before, unknown) = will.changes()?;
        will.read();
        self.slots = will.slots.clone();
        let now = now_ns();
        for (server, session) in (0..).zip(&will.sessions) {
            if let Some(session) = session {
                self.net.resume(server, session.clone(), now);
            }
        }
        let entries = match before.is_empty() && unknown.is_empty() && will.is_sorted() {
            true => Cow::Borrowed(&*will.entries),
            false => Cow::Owned(settled(&will.entries, &before, &unknown)),
        };
        let mut ranges = Ranges::default();
        let moved = before.iter().chain(&unknown).filter_map(moved_to);
        will.adopted
            .iter()
            .cloned()
            .chain(moved)
            .for_each(|range| ranges.insert(range));
        // What this engine has mapped for itself may be where something was
        // unmapped.
        self.kept()
            .into_iter()
            .for_each(|range| ranges.remove(range));
        let ranges: Vec<_> = ranges.iter().collect();
        let refused = self.adopt_inherited(&ranges)?;
        let needed = |e: &&Entry| matches!(e.kind(), EntryKind::Remote | EntryKind::Lost);
        for entry in entries.iter().filter(needed) {
            if let Some((_, error)) = refused.iter().find(|r| r.0.contains(&addr(entry.page))) {
                return Err(format!("memory cannot be registered (error {error})"));
            }
        }
        self.take_over(&entries)?;
        while self.net.is_resuming() {
            self.drive();
            if self.net.is_resuming() {
                self.wait();
            }
        }
        self.pages_from_now_on();
        Ok(())
    }

    /// Registers what was adopted and is still mapped; what cannot be, and why.
    fn adopt_inherited(
        &mut self,
        ranges: &[Range<usize>],
    ) -> Result<Vec<(Range<usize>, i32)>, String> {
        let mut refused = Vec::new();
        let mut text = Vec::new();
        let cannot = |e: rustix::io::Errno| format!("/proc cannot be read (error {e})");
        self.proc.maps(&mut text).map_err(cannot)?;
        let mapped: Vec<Range<usize>> = maps::parse(&text)
            .filter_map(Result::ok)
            .map(|m| m.start..m.end)
            .collect();
        for range in ranges {
            for m in &mapped {
                let part = range.start.max(m.start)..range.end.min(m.end);
                if part.is_empty() {
                    continue;
                }
                let mode = REGISTER_MISSING | REGISTER_WP;
                // What is there now may be of another kind.
                match self.uffd.register(part.start, part.len(), mode) {
                    Ok(()) => self.adopted.insert(part),
                    Err(e) => refused.push((part, e.raw_os_error())),
                }
            }
        }
        for range in self.adopted.iter() {
            self.hide_from_forks(&range);
        }
        if !self.adopted.is_empty() {
            super::adopt::some_is_adopted();
        }
        Ok(refused)
    }

    /// Notes where pages are: what is in memory counts, the will does for the
    /// rest.
    fn take_over(&mut self, entries: &[Entry]) -> Result<(), String> {
        let cannot = |e: rustix::io::Errno| format!("the page map cannot be read (error {e})");
        let (mut remote, mut lost) = (0, 0);
        let mut unused: Vec<Slot> = Vec::new();
        let ranges: Vec<Range<usize>> = self.adopted.iter().collect();
        let mut at = 0;
        for range in ranges {
            let mut there = Vec::new();
            self.proc
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
                self.pages.set(entry.page, &page);
            }
            self.enqueue_present(range);
        }
        unused.extend(entries[at..].iter().filter_map(Entry::slot));
        for slot in unused {
            self.free_slot(Some(slot));
        }
        if lost > 0 {
            super::LOST.store(true, core::sync::atomic::Ordering::Relaxed);
            self.say(WARN, &format!("{lost} pages are lost to a forked child"));
        }
        self.inherited = remote as u64;
        self.count_remote(remote);
        Ok(())
    }
}

/// Entries as they were at the fork, in order, each page once.
fn settled(entries: &[Entry], before: &[Change], unknown: &[Change]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    before.iter().for_each(|change| change.apply(&mut entries));
    for change in unknown {
        let range = change.range();
        let pages = (range.start / PAGE_SIZE) as u64..(range.end / PAGE_SIZE) as u64;
        let mut also = Vec::new();
        for entry in entries.iter_mut().filter(|e| pages.contains(&e.page)) {
            if entry.kind() == EntryKind::Struck {
                continue;
            }
            // What is not in memory here is one or the other.
            entry.become_kind(EntryKind::Lost);
            if let Change::Moved(_, to) = change {
                let mut there = *entry;
                there.page = entry.page - pages.start + (*to / PAGE_SIZE) as u64;
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
