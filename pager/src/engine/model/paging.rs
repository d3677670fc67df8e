//! What the model's kernel does with pages, by the rules of Linux.

use super::world::{Pte, World};
use crate::sys::proc::PresentRun;
use crate::sys::uffd::Transfer;
use alloc::vec::Vec;
use core::ops::Range;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The task that unshares pages, as a thread that may sleep.
const TASK: u32 = 99;

pub(super) fn pages(start: usize, len: usize) -> Range<u64> {
    (start / PAGE_SIZE) as u64..((start + len) / PAGE_SIZE) as u64
}

/// Visits the pages of a call until one is refused.
pub(super) fn transfer(len: usize, mut page: impl FnMut(u64) -> Result<(), Errno>) -> Transfer {
    for i in 0..(len / PAGE_SIZE) as u64 {
        if let Err(error) = page(i) {
            let done = i as usize * PAGE_SIZE;
            let stopped = Some(if done > 0 { Errno::AGAIN } else { error });
            return Transfer { done, stopped };
        }
    }
    Transfer {
        done: len,
        stopped: None,
    }
}

pub(super) fn refused(error: Errno) -> Transfer {
    Transfer {
        done: 0,
        stopped: Some(error),
    }
}

impl World {
    /// Tells whether a range of the program can be filled.
    pub(super) fn may_fill(&self, start: usize, len: usize) -> Result<(), Errno> {
        if self.changing() > 0 {
            return Err(Errno::AGAIN);
        }
        let mapping = self.mapping(start).filter(|(_, m)| m.registered);
        let fits = mapping.is_some_and(|(_, m)| start + len <= m.end);
        if fits { Ok(()) } else { Err(Errno::NOENT) }
    }

    /// Tells whether pages of a range can be moved, from it or to it.
    fn may_move(&self, start: usize, len: usize, is_dst: bool) -> Result<(), Errno> {
        if !World::is_programs(start) {
            return Ok(());
        }
        let (_, mapping) = self.mapping(start).ok_or(Errno::NOENT)?;
        let fits = start + len <= mapping.end && mapping.writable;
        if fits && (mapping.registered || !is_dst) {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }

    pub(super) fn put(&mut self, page: u64, value: u64, is_zero: bool) -> Result<(), Errno> {
        if self.ptes.contains_key(&page) {
            return Err(Errno::EXIST);
        }
        let pte = Pte {
            value,
            is_zero,
            ..Pte::default()
        };
        self.ptes.insert(page, pte);
        Ok(())
    }

    /// Moves pages. With `holes` it skips absent pages.
    pub(super) fn move_pages(
        &mut self,
        dst: usize,
        src: usize,
        len: usize,
        holes: bool,
    ) -> Transfer {
        let may = self
            .may_move(src, len, false)
            .and_then(|()| self.may_move(dst, len, true));
        if let Err(error) = may {
            return refused(error);
        }
        let (to, from) = (pages(dst, len).start, pages(src, len).start);
        transfer(len, |i| self.move_page(to + i, from + i, holes))
    }

    fn move_page(&mut self, to: u64, from: u64, holes: bool) -> Result<(), Errno> {
        let to_program = World::is_programs(to as usize * PAGE_SIZE);
        let from_program = World::is_programs(from as usize * PAGE_SIZE);
        let value = if from_program {
            let pte = self.ptes.get(&from).copied();
            match pte {
                None if holes => return Ok(()),
                None => return Err(Errno::NOENT),
                Some(pte) if pte.poisoned => return Err(Errno::FAULT),
                Some(pte) if pte.pinned || pte.shared => return Err(Errno::BUSY),
                Some(pte) => pte.value,
            }
        } else if self.is_absent(from) {
            return if holes { Ok(()) } else { Err(Errno::NOENT) };
        } else if to_program {
            World::word(from)
        } else {
            0
        };
        if to_program {
            self.put(to, value, false)?;
        } else if from_program {
            if !self.is_absent(to) {
                return Err(Errno::EXIST);
            }
            self.fill(to, value);
        } else {
            // The page leaves the pool, and nothing reads it again.
            self.own.insert(to, false);
        }
        match from_program {
            true => drop(self.ptes.remove(&from)),
            false => self.take_away(from),
        }
        Ok(())
    }

    pub(super) fn write_protect(
        &mut self,
        start: usize,
        len: usize,
        on: bool,
    ) -> Result<(), Errno> {
        if self.changing() > 0 {
            return Err(Errno::AGAIN);
        }
        if !World::is_programs(start) {
            return Ok(());
        }
        let parts = self.parts(&(start..start + len));
        if parts.is_empty() || parts.iter().any(|(_, m)| !m.registered) {
            return Err(Errno::NOENT);
        }
        for (_, pte) in self.ptes.range_mut(pages(start, len)) {
            pte.protected = on;
        }
        if !on {
            self.wake(start, len);
        }
        Ok(())
    }

    pub(super) fn runs(&self, start: usize, end: usize, poisoned: bool, out: &mut Vec<PresentRun>) {
        for page in pages(start, end - start) {
            let at = page as usize * PAGE_SIZE;
            let is = match self.ptes.get(&page) {
                Some(pte) => poisoned || !pte.poisoned,
                None => self.own.contains_key(&page) && !self.is_absent(page),
            };
            match out.last_mut() {
                Some(last) if is && last.end == at => last.end += PAGE_SIZE,
                _ if is => out.push(PresentRun {
                    start: at,
                    end: at + PAGE_SIZE,
                }),
                _ => {}
            }
        }
    }

    /// Unshares some more pages. Returns whether the task is done.
    pub(super) fn unshare_some(&mut self) -> bool {
        while let Some(range) = self.unshare.clone() {
            if range.is_empty() {
                self.unshare = None;
                break;
            }
            if self.sleepers.iter().any(|s| s.tid == TASK) {
                return false;
            }
            let page = (range.start / PAGE_SIZE) as u64;
            let mapping = self.mapping(range.start);
            match self.ptes.get_mut(&page) {
                _ if mapping.is_none_or(|(_, m)| !m.writable) => self.unshare = None,
                Some(pte) if pte.poisoned => self.unshare = None,
                Some(pte) if !pte.protected => {
                    (pte.shared, pte.is_zero, pte.lazy) = (false, false, false);
                    self.unshare = Some(range.start + PAGE_SIZE..range.end);
                }
                _ => {
                    let value = self.ptes.get(&page).map_or(0, |pte| pte.value);
                    self.touch(TASK, range.start, Some(value));
                }
            }
        }
        true
    }
}
