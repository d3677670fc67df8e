//! The kernel trait over the model's memory.

use super::world::{Owner, Pte, Stage, World};
use crate::engine::kernel::{Kernel, Process};
use crate::engine::reclaim::zap_worker::{Task, What};
use crate::maps::Flags;
use crate::sys::mem::Region;
use crate::sys::proc::{PresentRun, Resident, Shares};
use crate::sys::uffd::{OpenError, RawMsg, Transfer, Uffd, feature};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// What a call of the kernel takes, and a moment for others to run.
const CALL_NS: u64 = 300;
const PAUSE_NS: u64 = 5_000;
/// The task that makes pages the program's own.
pub(super) const TASK: u32 = 99;

/// The model of the kernel.
#[derive(Clone, Debug)]
pub(super) struct ModelKernel(pub(super) Rc<RefCell<World>>);

impl ModelKernel {
    /// A call: time passes, and the program may do what it was about to do.
    fn call<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.0.borrow_mut();
        world.pass(CALL_NS);
        world.race();
        f(&mut world)
    }
}

fn pages(start: usize, len: usize) -> Range<u64> {
    (start / PAGE_SIZE) as u64..((start + len) / PAGE_SIZE) as u64
}

/// Goes through the pages of a call until one is refused.
fn transfer(len: usize, mut page: impl FnMut(u64) -> Result<(), Errno>) -> Transfer {
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

fn refused(error: Errno) -> Transfer {
    Transfer {
        done: 0,
        stopped: Some(error),
    }
}

impl World {
    /// Whether something may be put at a range of the program's.
    fn may_fill(&self, start: usize, len: usize) -> Result<(), Errno> {
        if self.changing() > 0 {
            return Err(Errno::AGAIN);
        }
        let mapping = self.mapping(start).filter(|(_, m)| m.registered);
        let fits = mapping.is_some_and(|(_, m)| start + len <= m.end);
        if fits { Ok(()) } else { Err(Errno::NOENT) }
    }

    /// Whether a range is one to be moved to or from.
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

    fn put(&mut self, page: u64, value: u64, is_zero: bool) -> Result<(), Errno> {
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

    /// Moves pages, of which absent ones are passed over with `holes`.
    fn move_pages(&mut self, dst: usize, src: usize, len: usize, holes: bool) -> Transfer {
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
            // From the pool to the bin: nobody looks at it again.
            self.own.insert(to, false);
        }
        match from_program {
            true => drop(self.ptes.remove(&from)),
            false => self.take_away(from),
        }
        Ok(())
    }

    fn write_protect(&mut self, start: usize, len: usize, on: bool) -> Result<(), Errno> {
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

    fn runs(&self, start: usize, end: usize, poisoned: bool, out: &mut Vec<PresentRun>) {
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

    /// The task goes on making pages the program's own; whether it is done.
    fn unshare_some(&mut self) -> bool {
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

impl Kernel for ModelKernel {
    fn features(&self) -> u64 {
        let moves = if self.0.borrow().can_move {
            feature::MOVE
        } else {
            0
        };
        feature::WP | feature::POISON | feature::THREAD_ID | feature::EXACT_ADDRESS | moves
    }

    fn raw(&self) -> i32 {
        i32::MAX
    }

    fn read(&self, msgs: &mut [RawMsg]) -> Result<usize, Errno> {
        self.call(|world| {
            let mut n = 0;
            while n < msgs.len()
                && let Some(msg) = world.next()
            {
                msgs[n] = RawMsg::encode(&msg);
                n += 1;
            }
            if n == 0 { Err(Errno::AGAIN) } else { Ok(n) }
        })
    }

    fn register(&self, start: usize, len: usize, _: u64) -> Result<(), Errno> {
        self.call(|world| {
            if !World::is_programs(start) {
                pages(start, len).for_each(|page| world.take_away(page));
                return Ok(());
            }
            if world.mapping(start).is_none() {
                return Err(Errno::INVAL);
            }
            world.change(&(start..start + len), |m| m.registered = true);
            Ok(())
        })
    }

    fn unregister(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| {
            if World::is_programs(start) {
                world.change(&(start..start + len), |m| m.registered = false);
            }
            world.wake(start, len);
            Ok(())
        })
    }

    fn holds(&self, start: usize, len: usize, _: usize) -> Result<bool, Errno> {
        self.call(|world| match world.may_fill(start, len) {
            Err(Errno::AGAIN) => Err(Errno::AGAIN),
            other => Ok(other.is_ok()),
        })
    }

    fn wake(&self, start: usize, len: usize) {
        self.call(|world| world.wake(start, len));
    }

    fn move_to_holes(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        self.call(|world| match world.changing() {
            0 => Ok(world.move_pages(dst, src, len, false)),
            _ => Ok(refused(Errno::AGAIN)),
        })
    }

    fn move_present(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        self.call(|world| {
            if world.changing() > 0 {
                return Ok(refused(Errno::AGAIN));
            }
            let t = world.move_pages(dst, src, len, false);
            world.wake(dst, t.done);
            Ok(t)
        })
    }

    fn copy_pages(&self, dst: usize, src: usize, len: usize, wake: bool) -> Transfer {
        self.call(|world| {
            if let Err(error) = world.may_fill(dst, len) {
                return refused(error);
            }
            let (to, from) = (pages(dst, len).start, pages(src, len).start);
            let t = transfer(len, |i| world.put(to + i, World::word(from + i), false));
            if wake {
                world.wake(dst, t.done);
            }
            t
        })
    }

    fn zero_pages(&self, start: usize, len: usize, wake: bool) -> Transfer {
        self.call(|world| {
            if world.changing() > 0 {
                return refused(Errno::AGAIN);
            }
            if !World::is_programs(start) {
                pages(start, len).for_each(|page| world.fill(page, 0));
            } else if let Err(error) = world.may_fill(start, len) {
                return refused(error);
            }
            let first = pages(start, len).start;
            let t = transfer(len, |i| match World::is_programs(start) {
                true => world.put(first + i, 0, true),
                false => Ok(()),
            });
            if wake {
                world.wake(start, t.done);
            }
            t
        })
    }

    fn protect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| world.write_protect(start, len, true))
    }

    fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| world.write_protect(start, len, false))
    }

    fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| {
            world.may_fill(start, len)?;
            for page in pages(start, len) {
                world.put(page, 0, false)?;
                if let Some(pte) = world.ptes.get_mut(&page) {
                    pte.poisoned = true;
                }
            }
            world.wake(start, len);
            Ok(())
        })
    }

    fn open_bin(&mut self) -> bool {
        true
    }

    fn register_bin(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| {
            world
                .own
                .extend(pages(start, len).map(|page| (page, false)));
        });
        Ok(())
    }

    fn move_to_bin(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        self.call(|world| {
            // The other userfaultfd has no events, and refuses nothing because of one.
            Ok(world.move_pages(dst, src, len, true))
        })
    }

    fn open_for_forks(&self) -> Result<Uffd, OpenError> {
        Err(OpenError::NoPermission)
    }

    fn discard(&self, region: &Region, start: usize, len: usize) -> Result<(), Errno> {
        assert!(region.contains(start) && start + len <= region.end());
        self.call(|world| pages(start, len).for_each(|page| world.take_away(page)));
        Ok(())
    }

    fn copied_by_forks(&self, _: usize, _: usize, _: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn pause(&self) {
        self.call(|world| {
            world.pass(PAUSE_NS);
            world.go_on();
            world.run_threads();
        });
    }

    fn hurry(&self) {}

    unsafe fn spawn(
        &self,
        _: Region,
        _: unsafe extern "C" fn(*mut u8) -> !,
        _: *mut u8,
    ) -> Result<i32, Errno> {
        Err(Errno::AGAIN)
    }

    fn zap_task(&self) -> Result<Box<dyn Task>, Errno> {
        Ok(Box::new(ModelTask(self.clone())))
    }

    fn left_with(&self) -> Option<i32> {
        None
    }
}

impl Process for ModelKernel {
    fn resident(&mut self) -> Result<Resident, Errno> {
        let private = self.0.borrow().resident() as u64;
        Ok(Resident {
            private,
            ..Resident::default()
        })
    }

    fn size_pages(&self) -> Result<u64, Errno> {
        Ok(self.0.borrow().maps.len() as u64)
    }

    fn shares(&self) -> Result<Shares, Errno> {
        Ok(Shares::default())
    }

    fn asynchronous_requests(&self) -> Option<u64> {
        None
    }

    fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        out.clear();
        self.call(|world| {
            for (start, m) in &world.maps {
                let w = if m.writable { 'w' } else { '-' };
                let line = format!("{start:x}-{:x} r{w}-p 00000000 00:00 0 \n", m.end);
                out.extend_from_slice(line.as_bytes());
            }
        });
        Ok(())
    }

    fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno> {
        Ok(Vec::new())
    }

    fn smaps(&self) -> Result<Vec<u8>, Errno> {
        Ok(Vec::new())
    }

    fn present(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        self.call(|world| world.runs(start, end, false, out));
        Ok(())
    }

    fn occupied(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        self.call(|world| world.runs(start, end, true, out));
        Ok(())
    }

    fn cpu_of(&mut self, _: u32) -> Option<u32> {
        None
    }

    unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno> {
        self.call(|world| {
            for (from, to) in pages(src, len).zip(pages(dst, len)) {
                let pte = world.ptes.get(&from).filter(|pte| !pte.poisoned);
                let value = pte.ok_or(Errno::IO)?.value;
                world.fill(to, value);
            }
            Ok(())
        })
    }

    fn words(&self, src: usize, words: &mut [u64]) -> usize {
        let world = self.0.borrow();
        let per_page = PAGE_SIZE / size_of::<u64>();
        for (page, words) in (src / PAGE_SIZE..).zip(words.chunks_mut(per_page)) {
            match world.ptes.get(&(page as u64)).filter(|pte| !pte.poisoned) {
                Some(pte) => words.fill(pte.value),
                None => return (page - src / PAGE_SIZE) * per_page,
            }
        }
        words.len()
    }
}

/// The task that zaps, which the kernel holds like any other.
#[derive(Debug)]
struct ModelTask(ModelKernel);

impl ModelTask {
    fn is_held(&self) -> bool {
        let world = self.0.0.borrow();
        world.held.iter().any(|h| h.owner == Owner::Task)
    }
}

impl Task for ModelTask {
    fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno> {
        self.0.call(|world| match what {
            What::Zap => {
                let stages = world.removal(range, Stage::Zap);
                world.hold(stages, Owner::Task);
            }
            What::Unshare => world.unshare = Some(range.clone()),
            What::Follow => {}
        });
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.0.call(|world| world.unshare_some()) && !self.is_held()
    }

    fn rest(&mut self) {}

    fn is_to_be_read(&mut self) -> bool {
        self.0.call(World::go_on);
        self.is_held()
    }

    fn look_after(&mut self) {}

    fn stay_with(&mut self, _: Option<u32>) {}

    fn follow(&mut self) {}

    fn end(&mut self) {}

    fn stack(&self) -> Option<Region> {
        None
    }
}
