//! The model's memory: mappings, page table entries, pending messages, and the threads of
//! the program that wait for them, by the rules of Linux.
//!
//! A page of the program is a single word, which its bytes repeat: 0 is a page of zeros.
//! Pages of the engine's own (frames above all) lie in real memory, as the engine reads and
//! writes them; one that is absent is filled with [`ABSENT`], so that a write to it, which
//! would make it present, shows.

use super::program::{Program, Sight};
use crate::engine::exclusion;
use crate::sys::clock;
use crate::sys::uffd::Msg;
use alloc::vec::Vec;
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use tmem_wire::PAGE_SIZE;

/// Where the program's memory begins; nothing of this process is there.
pub(super) const BASE: usize = 0x1000_0000_0000;
/// Pages that the program can map.
pub(super) const PAGES: u64 = 192;
/// What absent pages of the engine's own are filled with.
const ABSENT: u64 = 0xdead_beef_0bad_f00d;
const WORDS: usize = PAGE_SIZE / 8;

/// A mapping of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) end: usize,
    pub(super) writable: bool,
    pub(super) registered: bool,
}

/// A present page of the program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pte {
    pub(super) value: u64,
    /// Write-protected by userfaultfd.
    pub(super) protected: bool,
    /// The shared page of zeros.
    pub(super) is_zero: bool,
    /// Held by a device.
    pub(super) pinned: bool,
    /// Shared with a forked process, or not known to be exclusive since.
    pub(super) shared: bool,
    /// Given up by `MADV_FREE`: it may vanish until it is written.
    pub(super) lazy: bool,
    /// Touching it raises SIGBUS.
    pub(super) poisoned: bool,
}

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleeper {
    pub(super) tid: u32,
    pub(super) at: usize,
    /// Its message was read.
    pub(super) is_read: bool,
    pub(super) write: bool,
    pub(super) protected: bool,
}

/// A caller that changed the address space and is held until its events are read.
#[derive(Debug)]
pub(super) struct Held {
    /// What is left of the change, in order.
    pub(super) stages: VecDeque<Stage>,
    /// The event that comes first was read.
    pub(super) is_read: bool,
    /// The event of what comes first was read, and the engine knows of it.
    pub(super) is_known: bool,
    pub(super) owner: Owner,
}

/// A part of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// An event is queued, and its reading awaited.
    Report(Msg),
    /// Pages are taken away.
    Zap(Range<usize>),
    /// Pages are marked as free.
    Free(Range<usize>),
}

/// Whose change it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The program's; what it gives up by that, and whether it excludes other changes.
    Program {
        given_up: Option<Range<usize>>,
        is_alone: bool,
    },
    /// The engine's task that zaps.
    Task,
}

/// Everything but the engine and the servers.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now_ns: u64,
    pub(super) can_move: bool,
    pub(super) maps: BTreeMap<usize, Mapping>,
    pub(super) ptes: BTreeMap<u64, Pte>,
    /// Pages of the engine's own that the kernel knows, and whether they are absent.
    pub(super) own: BTreeMap<u64, bool>,
    pub(super) sleepers: Vec<Sleeper>,
    pub(super) held: Vec<Held>,
    pub(super) program: Program,
    /// Pages that the task is to make the program's own.
    pub(super) unshare: Option<Range<usize>>,
}

impl World {
    pub(super) fn new(can_move: bool) -> World {
        World {
            now_ns: 1_000_000_000,
            can_move,
            maps: BTreeMap::new(),
            ptes: BTreeMap::new(),
            own: BTreeMap::new(),
            sleepers: Vec::new(),
            held: Vec::new(),
            program: Program::default(),
            unshare: None,
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        clock::set(Some(self.now_ns));
    }

    pub(super) fn is_programs(at: usize) -> bool {
        (BASE..BASE + PAGES as usize * PAGE_SIZE).contains(&at)
    }

    /// The mapping around an address.
    pub(super) fn mapping(&self, at: usize) -> Option<(usize, Mapping)> {
        let (start, mapping) = self.maps.range(..=at).next_back()?;
        (mapping.end > at).then_some((*start, *mapping))
    }

    /// Splits mappings so that one begins at `at`, if any is there.
    fn split(&mut self, at: usize) {
        if let Some((start, mapping)) = self.mapping(at).filter(|(start, _)| *start < at) {
            self.maps.insert(start, Mapping { end: at, ..mapping });
            self.maps.insert(at, mapping);
        }
    }

    /// The mappings within a range, cut to it.
    pub(super) fn parts(&self, range: &Range<usize>) -> Vec<(Range<usize>, Mapping)> {
        let around = self.mapping(range.start).map(|(start, _)| start);
        let from = around.unwrap_or(range.start);
        self.maps
            .range(from..range.end)
            .map(|(start, m)| (*start.max(&range.start)..m.end.min(range.end), *m))
            .collect()
    }

    /// Changes mappings within a range.
    pub(super) fn change(&mut self, range: &Range<usize>, how: impl Fn(&mut Mapping)) {
        self.split(range.start);
        self.split(range.end);
        self.maps.range_mut(range.clone()).for_each(|(_, m)| how(m));
        self.join();
    }

    /// Maps a range, where nothing is.
    pub(super) fn map(&mut self, range: &Range<usize>, mapping: Mapping) {
        self.maps.insert(range.start, mapping);
        self.join();
    }

    /// Neighbours that are alike are one mapping.
    fn join(&mut self) {
        let all: Vec<_> = self.maps.iter().map(|(s, m)| (*s, *m)).collect();
        self.maps.clear();
        let mut last: Option<usize> = None;
        for (start, mapping) in all {
            if let Some(before) = last.and_then(|l| self.maps.get_mut(&l))
                && before.end == start
                && (Mapping { end: 0, ..*before } == Mapping { end: 0, ..mapping })
            {
                before.end = mapping.end;
                continue;
            }
            self.maps.insert(start, mapping);
            last = Some(start);
        }
    }

    /// Unmaps a range; what of it was registered.
    pub(super) fn unmap(&mut self, range: &Range<usize>) -> Vec<Range<usize>> {
        let registered = self.parts(range).into_iter().filter(|(_, m)| m.registered);
        let registered = registered.map(|(part, _)| part).collect();
        self.split(range.start);
        self.split(range.end);
        self.maps.retain(|start, _| !range.contains(start));
        self.ptes
            .retain(|page, _| !range.contains(&(*page as usize * PAGE_SIZE)));
        registered
    }

    /// The caller of a change goes through its stages.
    pub(super) fn hold(&mut self, stages: Vec<Stage>, owner: Owner) {
        self.held.push(Held {
            stages: stages.into(),
            is_read: false,
            is_known: false,
            owner,
        });
        self.end_held();
    }

    /// Changes that are not followed (`mmap_changing`): those of unmaps and moves count from
    /// their beginning, those of advice while their event is queued.
    pub(super) fn changing(&self) -> usize {
        let of = |held: &Held| {
            let counts = |(i, stage): (usize, &Stage)| match stage {
                Stage::Report(Msg::Remove { .. }) => i == 0,
                Stage::Report(_) => true,
                Stage::Zap(_) | Stage::Free(_) => false,
            };
            held.stages
                .iter()
                .enumerate()
                .filter(|s| counts(*s))
                .count()
        };
        self.held.iter().map(of).sum()
    }

    /// Callers whose event was read, or that have something to do, go on by a stage.
    pub(super) fn go_on(&mut self) {
        for at in 0..self.held.len() {
            let held = &mut self.held[at];
            let waits = matches!(held.stages.front(), Some(Stage::Report(_))) && !held.is_read;
            if waits {
                continue;
            }
            held.is_known = core::mem::take(&mut held.is_read);
            match held.stages.pop_front() {
                Some(Stage::Zap(range)) => {
                    let within = |page: &u64| range.contains(&(*page as usize * PAGE_SIZE));
                    self.ptes.retain(|page, _| !within(page));
                }
                Some(Stage::Free(range)) => {
                    for (page, pte) in &mut self.ptes {
                        let is_in = range.contains(&(*page as usize * PAGE_SIZE));
                        pte.lazy |= is_in && !pte.pinned && !pte.poisoned;
                    }
                }
                Some(Stage::Report(_)) | None => {}
            }
        }
        self.end_held();
    }

    /// Pages that the program has given up and that are still there, as the engine knows.
    pub(super) fn given_up(&self) -> impl Iterator<Item = u64> {
        let known = self
            .held
            .iter()
            .filter(|h| h.is_known && h.owner != Owner::Task);
        let ranges = known.filter_map(|held| match held.stages.front() {
            Some(Stage::Zap(range) | Stage::Free(range)) => Some(range),
            _ => None,
        });
        let pages = |r: &Range<usize>| (r.start / PAGE_SIZE) as u64..(r.end / PAGE_SIZE) as u64;
        ranges.flat_map(move |range| self.ptes.range(pages(range)).map(|(page, _)| *page))
    }

    fn end_held(&mut self) {
        while let Some(at) = self.held.iter().position(|h| h.stages.is_empty()) {
            let held = self.held.remove(at);
            self.ended(held.owner);
        }
    }

    fn ended(&mut self, owner: Owner) {
        if let Owner::Program { given_up, is_alone } = owner {
            exclusion::has_changed(is_alone);
            if let Some(range) = given_up {
                self.program.has_given_up(&range);
            }
        }
    }

    /// The next message, faults first.
    pub(super) fn next(&mut self) -> Option<Msg> {
        if let Some(sleeper) = self.sleepers.iter_mut().find(|s| !s.is_read) {
            sleeper.is_read = true;
            return Some(Msg::Fault {
                addr: sleeper.at,
                write: sleeper.write,
                protected: sleeper.protected,
                tid: sleeper.tid,
            });
        }
        for held in self.held.iter_mut().filter(|h| !h.is_read) {
            if let Some(Stage::Report(msg)) = held.stages.front() {
                held.is_read = true;
                return Some(*msg);
            }
        }
        None
    }

    /// Threads that wait in a range look again.
    pub(super) fn wake(&mut self, start: usize, len: usize) {
        let range = start..start + len;
        let sleepers = core::mem::take(&mut self.sleepers);
        let (woken, asleep) = sleepers.into_iter().partition(|s| range.contains(&s.at));
        self.sleepers = asleep;
        let woken: Vec<Sleeper> = woken;
        woken.iter().for_each(|s| self.program.woken(s.tid));
    }

    /// A thread touches an address; what it sees, nothing where it has to wait.
    pub(super) fn touch(&mut self, tid: u32, at: usize, write: Option<u64>) -> Option<Sight> {
        let page = (at / PAGE_SIZE) as u64;
        let Some((_, mapping)) = self.mapping(at) else {
            return Some(Sight::Segv);
        };
        if write.is_some() && !mapping.writable {
            return Some(Sight::Segv);
        }
        let fault = |protected| Sleeper {
            tid,
            at,
            is_read: false,
            write: write.is_some(),
            protected,
        };
        let Some(pte) = self.ptes.get_mut(&page) else {
            if mapping.registered {
                self.sleepers.push(fault(false));
                return None;
            }
            let pte = Pte {
                value: write.unwrap_or(0),
                is_zero: write.is_none(),
                ..Pte::default()
            };
            self.ptes.insert(page, pte);
            return Some(Sight::Value(pte.value));
        };
        if pte.poisoned {
            return Some(Sight::Bus);
        }
        let Some(value) = write else {
            return Some(Sight::Value(pte.value));
        };
        if pte.protected && mapping.registered {
            self.sleepers.push(fault(true));
            return None;
        }
        *pte = Pte {
            value,
            pinned: pte.pinned,
            ..Pte::default()
        };
        Some(Sight::Value(value))
    }

    /// Whether a page of the engine's own has no memory.
    pub(super) fn is_absent(&self, page: u64) -> bool {
        let first = page as usize * PAGE_SIZE;
        // SAFETY: a page of the engine's own, which is mapped.
        let words = unsafe { core::slice::from_raw_parts(first as *const u64, WORDS) };
        self.own.get(&page) == Some(&true) && words.iter().all(|w| *w == ABSENT)
    }

    /// A page of the engine's own has no memory from now on.
    pub(super) fn take_away(&mut self, page: u64) {
        let first = page as usize * PAGE_SIZE;
        // SAFETY: a page of the engine's own, which the kernel takes away.
        let words = unsafe { core::slice::from_raw_parts_mut(first as *mut u64, WORDS) };
        words.fill(ABSENT);
        self.own.insert(page, true);
    }

    /// The word that a page of the engine's own repeats.
    pub(super) fn word(page: u64) -> u64 {
        let first = page as usize * PAGE_SIZE;
        // SAFETY: a page of the engine's own, which is mapped.
        let words = unsafe { core::slice::from_raw_parts(first as *const u64, WORDS) };
        assert!(
            words.iter().all(|w| *w == words[0]),
            "the program would be given a page that it never had"
        );
        words[0]
    }

    /// Fills a page of the engine's own with a word.
    pub(super) fn fill(&mut self, page: u64, word: u64) {
        let first = page as usize * PAGE_SIZE;
        // SAFETY: a page of the engine's own, which is given memory here.
        let words = unsafe { core::slice::from_raw_parts_mut(first as *mut u64, WORDS) };
        words.fill(word);
        self.own.insert(page, false);
    }

    /// Pages that are resident: the program's, and the engine's own.
    pub(super) fn resident(&self) -> usize {
        let programs = self.ptes.values().filter(|p| !p.is_zero && !p.poisoned);
        let own = self.own.keys().filter(|page| !self.is_absent(**page));
        programs.count() + own.count()
    }
}
