//! The program: threads that read and write, what they change of the address space, and the
//! plain map of what every page must hold.

use super::world::{BASE, Mapping, Owner, PAGES, Pte, Stage, World};
use crate::engine::exclusion;
use crate::sys::uffd::Msg;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};
use tmem_wire::PAGE_SIZE;

/// Threads of the program; their numbers are 1 and up.
pub(super) const THREADS: usize = 4;

/// Something that the program does. Pages are numbered from [`BASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read {
        thread: usize,
        page: u64,
    },
    Write {
        thread: usize,
        page: u64,
        zero: bool,
    },
    Map {
        first: u64,
        n: u64,
    },
    Unmap {
        first: u64,
        n: u64,
    },
    DontNeed {
        first: u64,
        n: u64,
    },
    Free {
        first: u64,
        n: u64,
    },
    /// What was freed vanishes, as when memory is short.
    Vanish,
    Move {
        first: u64,
        n: u64,
        to: u64,
        keep: bool,
    },
    Protect {
        first: u64,
        n: u64,
        writable: bool,
    },
    /// A device holds a page, or not any more.
    Pin {
        page: u64,
        on: bool,
    },
    /// A device writes to a page that it holds.
    Device {
        page: u64,
    },
}

/// What a page must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    /// Any of these: more than one while the program itself cannot know which.
    pub(super) allowed: Vec<u64>,
    /// A server was lost that had it, so that reading it may be an error.
    pub(super) may_be_lost: bool,
    /// It was written while it was being given up.
    written: bool,
    /// It was given up by `MADV_FREE`, and may become zeros until it is written.
    is_lazy: bool,
}

/// What a thread that touched a page came to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Value(u64),
    Segv,
    Bus,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    wants: Option<(usize, Option<u64>)>,
    is_asleep: bool,
}

/// The program.
#[derive(Debug, Default)]
pub(super) struct Program {
    threads: [Thread; THREADS],
    pub(super) plain: BTreeMap<u64, Plain>,
    /// Ranges that are being given up by advice, and whether by `MADV_FREE`.
    given_up: Vec<(Range<usize>, bool)>,
    /// What is done after so many calls of the kernel.
    armed: VecDeque<(u32, Action)>,
    /// Changes that wait at the gate.
    waiting: VecDeque<Action>,
    values: u64,
    /// What the program came to see that it must not.
    pub(super) wrong: Option<String>,
    /// Reads that were compared.
    pub(super) compared: u64,
}

/// The addresses of pages that are numbered from [`BASE`], as far as there are such.
pub(super) fn addresses(first: u64, n: u64) -> Range<usize> {
    let (first, end) = (first.min(PAGES), (first + n).min(PAGES));
    BASE + first as usize * PAGE_SIZE..BASE + end as usize * PAGE_SIZE
}

fn pages(range: &Range<usize>) -> Range<u64> {
    (range.start / PAGE_SIZE) as u64..(range.end / PAGE_SIZE) as u64
}

fn meets(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Program {
    /// After so many calls of the kernel, in the midst of what the engine does.
    pub(super) fn arm(&mut self, calls: u32, action: Action) {
        self.armed.push_back((calls, action));
    }

    pub(super) fn woken(&mut self, tid: u32) {
        if let Some(thread) = self.threads.get_mut((tid as usize).wrapping_sub(1)) {
            thread.is_asleep = false;
        }
    }

    /// Threads that wait for a page.
    pub(super) fn waits(&self) -> usize {
        self.threads.iter().filter(|t| t.wants.is_some()).count()
    }

    /// Whether changes are under way, or wait for the engine.
    pub(super) fn changes(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn is_being_given_up(&self, range: &Range<usize>) -> bool {
        self.given_up.iter().any(|(r, _)| meets(r, range))
    }

    /// Advice was followed to the end.
    pub(super) fn has_given_up(&mut self, range: &Range<usize>) {
        let Some(at) = self.given_up.iter().position(|(r, _)| r == range) else {
            return;
        };
        let (_, is_free) = self.given_up.remove(at);
        for (_, plain) in self.plain.range_mut(pages(range)) {
            let written = core::mem::take(&mut plain.written);
            plain.is_lazy = is_free;
            if !written && !is_free {
                plain.allowed = alloc::vec![0];
            }
        }
    }

    fn saw(&mut self, at: usize, write: Option<u64>, sight: Sight) {
        let page = (at / PAGE_SIZE) as u64;
        let given_up = self.is_being_given_up(&(at..at + 1));
        let plain = self.plain.get_mut(&page);
        let wrong = match (sight, write, plain) {
            (Sight::Value(value), None, Some(plain)) => {
                self.compared += 1;
                let is_right = plain.allowed.contains(&value);
                let text = format!("page {page:x} reads {value:x}, not {:x?}", plain.allowed);
                if is_right && !given_up && !plain.is_lazy {
                    plain.allowed = alloc::vec![value];
                }
                (!is_right).then_some(text)
            }
            (Sight::Value(value), Some(_), Some(plain)) => {
                plain.allowed = alloc::vec![value];
                plain.may_be_lost = false;
                plain.is_lazy = false;
                if given_up {
                    plain.allowed.push(0);
                    plain.written = true;
                }
                None
            }
            (Sight::Bus, _, Some(plain)) if plain.may_be_lost => None,
            (Sight::Bus, ..) => Some(format!("page {page:x} is lost, and no server was")),
            (Sight::Segv, None, Some(_)) => Some(format!("page {page:x} is not mapped")),
            (Sight::Segv, ..) => None,
            (Sight::Value(_), _, None) => Some(format!("page {page:x} is mapped")),
        };
        self.wrong = self.wrong.take().or(wrong);
    }
}

impl World {
    /// A call of the kernel comes: what was to be done by then is done.
    pub(super) fn race(&mut self) {
        let Some((calls, action)) = self.program.armed.front_mut() else {
            return;
        };
        if *calls > 0 {
            *calls -= 1;
            return;
        }
        let action = *action;
        self.program.armed.pop_front();
        self.act(action);
        self.run_threads();
    }

    /// Threads that are not asleep go on, and changes that may.
    pub(super) fn run_threads(&mut self) {
        for i in 0..self.program.waiting.len() {
            if let Some(action) = self.program.waiting.pop_front() {
                let before = self.program.waiting.len();
                self.act(action);
                if self.program.waiting.len() > before || i > THREADS {
                    break;
                }
            }
        }
        for i in 0..THREADS {
            let thread = self.program.threads[i];
            let Some((at, write)) = thread.wants.filter(|_| !thread.is_asleep) else {
                continue;
            };
            let sight = self.touch(i as u32 + 1, at, write);
            self.program.threads[i].is_asleep = sight.is_none();
            if let Some(sight) = sight {
                self.program.threads[i].wants = None;
                self.program.saw(at, write, sight);
            }
        }
    }

    /// The program does something. What makes no sense now is passed over.
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Read { thread, page } => self.access(thread, page, None),
            Action::Write { thread, page, zero } => {
                self.program.values += 1;
                let value = self.program.values * u64::from(!zero);
                self.access(thread, page, Some(value));
            }
            Action::Map { first, n } => self.map_new(&addresses(first, n)),
            Action::Vanish => self.ptes.retain(|_, pte| !pte.lazy),
            Action::Pin { page, on } => {
                if let Some(pte) = self.ptes.get_mut(&(pages(&addresses(page, 1)).start)) {
                    let may = !pte.poisoned && !pte.shared && !pte.is_zero && !pte.protected;
                    pte.pinned = on && may && !pte.lazy;
                }
            }
            Action::Device { page } => self.device_writes(pages(&addresses(page, 1)).start),
            Action::Unmap { .. }
            | Action::DontNeed { .. }
            | Action::Free { .. }
            | Action::Move { .. }
            | Action::Protect { .. } => self.change_space(action),
        }
    }

    fn access(&mut self, thread: usize, page: u64, write: Option<u64>) {
        let at = addresses(page, 1).start;
        let is_there = self.program.plain.contains_key(&((at / PAGE_SIZE) as u64));
        let thread = &mut self.program.threads[thread % THREADS];
        if is_there && thread.wants.is_none() {
            thread.wants = Some((at, write));
            self.run_threads();
        }
    }

    fn device_writes(&mut self, page: u64) {
        // What is copied and zapped is not for devices, and they write where the program may.
        let at = page as usize * PAGE_SIZE;
        let may = self.can_move && self.mapping(at).is_some_and(|(_, m)| m.writable);
        let is_zapped = self.held.iter().any(|h| h.owner == Owner::Task);
        let held = |pte: &&mut Pte| pte.pinned && may && !is_zapped;
        if let Some(pte) = self.ptes.get_mut(&page).filter(held) {
            self.program.values += 1;
            pte.value = self.program.values;
            let sight = Sight::Value(pte.value);
            self.program.saw(page as usize * PAGE_SIZE, Some(0), sight);
        }
    }

    fn map_new(&mut self, range: &Range<usize>) {
        let is_free = self.parts(range).is_empty();
        if range.is_empty() || !is_free || self.program.is_being_given_up(range) {
            return;
        }
        let mapping = Mapping {
            end: range.end,
            writable: true,
            registered: false,
        };
        self.map(range, mapping);
        self.set_plain(range);
    }

    /// Pages that were never touched read as zeros.
    fn set_plain(&mut self, range: &Range<usize>) {
        for page in pages(range) {
            let plain = Plain {
                allowed: alloc::vec![0],
                ..Plain::default()
            };
            self.program.plain.insert(page, plain);
        }
    }

    /// A change that the engine hears of waits at the gate.
    fn change_space(&mut self, action: Action) {
        let is_alone = matches!(action, Action::Move { keep: true, .. });
        if !exclusion::may_change(is_alone) {
            return self.program.waiting.push_back(action);
        }
        let stages = self.changed(action).unwrap_or_default();
        let given_up = match action {
            Action::DontNeed { first, n } | Action::Free { first, n } if !stages.is_empty() => {
                Some(addresses(first, n))
            }
            _ => None,
        };
        self.hold(stages, Owner::Program { given_up, is_alone });
    }

    fn changed(&mut self, action: Action) -> Option<Vec<Stage>> {
        let is_busy = |world: &World, range: &Range<usize>| {
            let given_up = world.program.is_being_given_up(range);
            range.is_empty() || given_up || world.is_arriving(range)
        };
        match action {
            Action::Unmap { first, n } => {
                let range = addresses(first, n);
                if is_busy(self, &range) {
                    return None;
                }
                let pages = pages(&range);
                self.program.plain.retain(|page, _| !pages.contains(page));
                Some(unmapped(self.unmap(&range)))
            }
            Action::DontNeed { first, n } | Action::Free { first, n } => {
                let range = addresses(first, n);
                if is_busy(self, &range) || self.parts(&range).is_empty() {
                    return None;
                }
                let is_free = matches!(action, Action::Free { .. });
                for (_, plain) in self.program.plain.range_mut(pages(&range)) {
                    plain.allowed.push(0);
                    plain.written = false;
                }
                self.program.given_up.push((range.clone(), is_free));
                Some(self.removal(&range, if is_free { Stage::Free } else { Stage::Zap }))
            }
            Action::Move { first, n, to, keep } => {
                let (from, to) = (addresses(first, n), addresses(to, n));
                let busy = is_busy(self, &from) || is_busy(self, &to);
                if busy || from.len() != to.len() || meets(&from, &to) {
                    return None;
                }
                let (_, mapping) = self
                    .mapping(from.start)
                    .filter(|(_, m)| m.end >= from.end)?;
                Some(self.moved(&from, &to, mapping, keep))
            }
            Action::Protect { first, n, writable } => {
                let range = addresses(first, n);
                if !range.is_empty() {
                    self.change(&range, |m| m.writable = writable);
                }
                None
            }
            _ => None,
        }
    }

    /// Whether a thread is moving memory to a range: no other knows where before it is told.
    fn is_arriving(&self, range: &Range<usize>) -> bool {
        let mut stages = self.held.iter().flat_map(|held| &held.stages);
        stages.any(|stage| match stage {
            Stage::Report(Msg::Remap { to, len, .. }) => meets(&(*to..to + len), range),
            _ => false,
        })
    }

    /// The stages of advice that takes pages away, mapping by mapping.
    pub(super) fn removal(
        &self,
        range: &Range<usize>,
        last: impl Fn(Range<usize>) -> Stage,
    ) -> Vec<Stage> {
        let mut stages = Vec::new();
        for (part, mapping) in self.parts(range) {
            let (start, end) = (part.start, part.end);
            if mapping.registered {
                stages.push(Stage::Report(Msg::Remove { start, end }));
            }
            stages.push(last(part));
        }
        stages
    }

    fn moved(
        &mut self,
        from: &Range<usize>,
        to: &Range<usize>,
        mapping: Mapping,
        keep: bool,
    ) -> Vec<Stage> {
        let mut stages = unmapped(self.unmap(to));
        let ptes: Vec<(u64, Pte)> = self
            .ptes
            .range(pages(from))
            .map(|(p, e)| (*p, *e))
            .collect();
        let moved = |page: u64| page - pages(from).start + pages(to).start;
        for page in pages(from) {
            let plain = self.program.plain.remove(&page).unwrap_or_default();
            self.program.plain.insert(moved(page), plain);
        }
        let left = self.unmap(from);
        if keep {
            let mapping = Mapping {
                end: from.end,
                ..mapping
            };
            self.map(from, mapping);
            self.set_plain(from);
        }
        let mapping = Mapping {
            end: to.end,
            ..mapping
        };
        self.map(to, mapping);
        self.ptes
            .extend(ptes.into_iter().map(|(page, pte)| (moved(page), pte)));
        if mapping.registered {
            stages.push(Stage::Report(Msg::Remap {
                from: from.start,
                to: to.start,
                len: from.len(),
            }));
            stages.extend(unmapped(if keep { Vec::new() } else { left }));
        }
        stages
    }
}

fn unmapped(parts: Vec<Range<usize>>) -> Vec<Stage> {
    let report = |part: Range<usize>| {
        let (start, end) = (part.start, part.end);
        Stage::Report(Msg::Unmap { start, end })
    };
    parts.into_iter().map(report).collect()
}
