//! Implements the kernel trait on the model's memory.

use super::paging::{pages, refused, transfer};
use super::world::{Owner, Stage, World};
use crate::engine::kernel::{Kernel, Process, Task, Work};
use crate::maps::Flags;
use crate::sys::mem::Region;
use crate::sys::proc::{PresentRun, Resident, Shares};
use crate::sys::uffd::{OpenError, RawMsg, Transfer, Uffd, feature};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The time that a call of the kernel takes, and that a pause takes.
const CALL_NS: u64 = 300;
const PAUSE_NS: u64 = 5_000;

/// The model of the kernel.
#[derive(Clone, Debug)]
pub(super) struct ModelKernel(pub(super) Rc<RefCell<World>>);

impl ModelKernel {
    /// Makes a call: time passes, and the program may take a step that it was about to
    /// take.
    fn call<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.0.borrow_mut();
        world.pass(CALL_NS);
        world.race();
        f(&mut world)
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
            // The other userfaultfd has no events, so none of them makes it refuse a call.
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
        Ok(Box::new(ModelTask {
            kernel: self.clone(),
            polls: Cell::new(0),
        }))
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

/// The engine asks a task so often whether it is done before callers that are held go on.
/// The task may wait for them.
const POLLS: u32 = 16;

/// The task that zaps pages. The model's kernel delays it like any other task.
#[derive(Debug)]
struct ModelTask {
    kernel: ModelKernel,
    polls: Cell<u32>,
}

impl ModelTask {
    fn is_held(&self) -> bool {
        let world = self.kernel.0.borrow();
        world.held.iter().any(|h| h.owner == Owner::Task)
    }
}

impl Task for ModelTask {
    fn ask(&mut self, work: Work, range: &Range<usize>) -> Result<(), Errno> {
        self.kernel.call(|world| match work {
            Work::Zap => {
                let stages = world.removal(range, Stage::Zap);
                world.hold(stages, Owner::Task);
            }
            Work::Unshare => world.unshare = Some(range.clone()),
            Work::Follow => {}
        });
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        if self.polls.get().is_multiple_of(POLLS) {
            self.kernel.call(World::go_on);
        }
        self.kernel.call(|world| world.unshare_some()) && !self.is_held()
    }

    fn rest(&mut self) {}

    fn is_to_be_read(&mut self) -> bool {
        self.kernel.call(World::go_on);
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
