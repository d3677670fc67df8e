//! Repair: makes further replicas of slabs that have too few, in the background.
//!
//! A few slabs at a time are copied, run by run of pages in use: a run is read from a
//! server that has it, into memory of the engine's own, and written to the new one. From the
//! beginning the new replica takes every write to its slab as well. A page that is written
//! or discarded while it is being read is read again: what was read may be older than what the new server
//! was given meanwhile. A write that comes once the copy was sent is behind it, since what
//! goes to a server by one lane takes effect in order.

use crate::engine::memory::Memory;
use crate::engine::memory::report::{INFO, program};
use crate::engine::servers::requests::{Elsewhere, Op};
use crate::net::{At, Lane, RequestError};
use crate::slots::{Fill, Slot, Slots};
use crate::sys::mem::Region;
use crate::sys::now_ns;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// Slabs that are copied at a time.
const SLABS: usize = 2;
/// The most pages of a run.
const RUN: u32 = 64;
/// After a server has failed to give or take pages, nothing is begun for so long.
const PAUSE_NS: u64 = 1_000_000_000;
/// Between two looks for slabs that need it.
const LOOK_NS: u64 = 10_000_000;
/// The same while no server has room for further replicas.
const IDLE_LOOK_NS: u64 = 100_000_000;
/// What was not copied for lack of turns is made up for by no more than this.
const CATCH_UP_NS: u64 = 10_000_000;
const SECOND_NS: u128 = 1_000_000_000;

/// What is being copied.
#[derive(Debug)]
pub(crate) struct Repair {
    /// The most bytes copied in a second.
    rate: u64,
    tasks: [Option<Task>; SLABS],
    /// Where the pages of each task are meanwhile; none while nothing is copied.
    buffer: Option<Region>,
    /// When the next run may begin.
    next_ns: u64,
    /// When to look again for slabs that need it.
    look_ns: u64,
    /// When it was begun, and how many pages have been copied since.
    began: Option<(u64, u64)>,
}

/// A slab that gets a further replica.
#[derive(Debug)]
struct Task {
    fill: Fill,
    /// Pages before this one are copied.
    from: u32,
    run: Option<Run>,
    /// Servers that did not give the run.
    failed: Elsewhere,
}

/// A run under way.
#[derive(Clone, Copy, Debug)]
struct Run {
    page: u32,
    len: u32,
    /// It is being read.
    is_read: bool,
    /// Some of its pages were written or discarded since the read was asked for.
    is_stale: bool,
}

/// A request of the repair: its task, and the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    task: usize,
    at: At,
}

impl Repair {
    /// Copies at most `rate` bytes in a second.
    pub(crate) fn new(rate: u64) -> Repair {
        Repair {
            rate: rate.max(1),
            tasks: [const { None }; SLABS],
            buffer: None,
            next_ns: 0,
            look_ns: 0,
            began: None,
        }
    }

    /// Memory of its own.
    pub(crate) fn region(&self) -> Option<Region> {
        self.buffer
    }

    /// Pages from a slot on are about to be written or discarded.
    pub(crate) fn changes(&mut self, slots: &Slots, slot: Slot, count: u32) {
        for task in self.tasks.iter_mut().flatten() {
            if let Some(run) = &mut task.run
                && run.is_read
                && slots.meets(slot, count, task.fill, run.page..run.page + run.len)
            {
                run.is_stale = true;
            }
        }
    }

    /// When there is something to do, if there is.
    pub(crate) fn due(&self) -> Option<u64> {
        let waits = |t: &Task| t.run.is_none();
        if self.tasks.iter().flatten().any(waits) {
            return Some(self.next_ns);
        }
        let is_vacant = self.tasks.iter().any(Option::is_none);
        let looks = is_vacant && self.began.is_some();
        looks.then(|| self.look_ns.max(self.next_ns))
    }

    /// Whether pages are being read to be copied.
    #[cfg(test)]
    pub(crate) fn is_reading(&self) -> bool {
        let runs = self.tasks.iter().flatten().filter_map(|task| task.run);
        runs.into_iter().any(|run| run.is_read)
    }

    fn is_idle(&self) -> bool {
        self.tasks.iter().all(Option::is_none)
    }

    fn buffer_of(&self, task: usize) -> usize {
        let start = self.buffer.map_or(0, |b| b.start);
        start + task * RUN as usize * PAGE_SIZE
    }

    /// The frames of a task.
    fn addresses(&self, task: usize, len: u32) -> Vec<usize> {
        let first = self.buffer_of(task);
        let frames = (0..len as usize).map(|i| first + i * PAGE_SIZE);
        frames.collect()
    }

    fn pause(&mut self) {
        self.next_ns = now_ns() + PAUSE_NS;
    }
}

/// Does what can be done now.
pub(crate) fn go_on(m: &mut Memory, now: u64) {
    if m.is_forking() || now < m.backing.repair.next_ns {
        return;
    }
    let looks = now >= m.backing.repair.look_ns;
    if looks {
        m.backing.repair.look_ns = now + LOOK_NS;
    }
    for at in 0..SLABS {
        let is_vacant = m.backing.repair.tasks[at].is_none();
        if is_vacant && !(looks && begin(m, at, now)) {
            continue;
        }
        next_run(m, at, now);
    }
    if looks {
        finish(m, now);
    }
}

/// Begins with a slab, if one needs it; whether one does.
fn begin(m: &mut Memory, at: usize, now: u64) -> bool {
    let Some(fill) = m.backing.slots.begin_fill() else {
        return false;
    };
    if m.backing.repair.buffer.is_none() {
        let Ok(region) = Region::new(SLABS * RUN as usize * PAGE_SIZE) else {
            m.backing.slots.give_up_fill(fill);
            m.backing.repair.pause();
            return false;
        };
        m.backing.repair.buffer = Some(region);
    }
    if m.backing.repair.began.is_none() {
        m.backing.repair.began = Some((now, 0));
        let (_, pages) = m.backing.slots.degraded();
        let (mib, who) = ((pages * PAGE_SIZE as u64) >> 20, program());
        let rate = m.backing.repair.rate >> 20;
        m.report.say(
            INFO,
            &format!(
                "{mib} MiB of {who} have fewer copies than they are to have; further ones are \
                 made, {rate} MiB/s at most"
            ),
        );
    }
    m.backing.repair.tasks[at] = Some(Task {
        fill,
        from: 0,
        run: None,
        failed: Elsewhere::default(),
    });
    true
}

/// Asks for the next run of a task, unless one is under way.
fn next_run(m: &mut Memory, at: usize, now: u64) {
    let backing = &mut m.backing;
    let Some(task) = backing.repair.tasks[at].as_mut() else {
        return;
    };
    if task.run.is_some() {
        return;
    }
    if backing.slots.target(task.fill, 0).is_none() {
        // The slab is gone, or its new server, or the replica was given up.
        backing.repair.tasks[at] = None;
        return;
    }
    let Some((page, len)) = backing.slots.used_run(task.fill, task.from, RUN) else {
        backing.slots.end_fill(task.fill);
        backing.repair.tasks[at] = None;
        backing.repair.look_ns = now;
        return;
    };
    let is_new = |at: &At| !task.failed.has(at.server);
    let source = backing.slots.sources(task.fill, page).find(is_new);
    let Some(source) = source else {
        backing.slots.give_up_fill(task.fill);
        backing.repair.tasks[at] = None;
        return backing.repair.pause();
    };
    task.run = Some(Run {
        page,
        len,
        is_read: true,
        is_stale: false,
    });
    let bytes = u128::from(len) * PAGE_SIZE as u128;
    let takes = (bytes * SECOND_NS / u128::from(backing.repair.rate)) as u64;
    let since = backing.repair.next_ns.max(now.saturating_sub(CATCH_UP_NS));
    backing.repair.next_ns = since.saturating_add(takes);
    let dest = backing.repair.addresses(at, len);
    let step = Step {
        task: at,
        at: source,
    };
    let token = backing.requests.add(Op::Repair(step));
    // SAFETY: memory of this task, which begins nothing else before the answer.
    unsafe { backing.net.read(Lane::Bulk, token, source, &dest) };
}

/// A run was read, or not: it goes to its new server.
pub(crate) fn read(m: &mut Memory, step: &Step, result: Result<(), RequestError>) {
    let backing = &mut m.backing;
    let Some(task) = backing.repair.tasks[step.task].as_mut() else {
        return;
    };
    let Some(run) = task.run.take() else {
        return;
    };
    let Some(to) = backing.slots.target(task.fill, run.page) else {
        backing.repair.tasks[step.task] = None;
        return;
    };
    if result.is_err() {
        task.failed.add(step.at.server);
        return;
    }
    if run.is_stale {
        return;
    }
    task.run = Some(Run {
        is_read: false,
        ..run
    });
    let src = backing.repair.addresses(step.task, run.len);
    let step = Step { at: to, ..*step };
    let token = backing.requests.add(Op::Repair(step));
    // SAFETY: memory of this task, which begins nothing else before the answer.
    unsafe { backing.net.write(token, to, &src) };
}

/// A run was written to its new server, or not.
pub(crate) fn written(m: &mut Memory, step: &Step, result: Result<(), RequestError>) {
    let backing = &mut m.backing;
    let Some(task) = backing.repair.tasks[step.task].as_mut() else {
        return;
    };
    let Some(run) = task.run.take() else {
        return;
    };
    let is_there = backing.slots.target(task.fill, run.page).is_some();
    if result.is_err() || !is_there {
        backing.slots.give_up_fill(task.fill);
        backing.repair.tasks[step.task] = None;
        return backing.repair.pause();
    }
    backing.slots.filled(task.fill, run.page, run.len);
    task.from = run.page + run.len;
    task.failed = Elsewhere::default();
    if let Some((_, pages)) = &mut backing.repair.began {
        *pages += u64::from(run.len);
    }
    let repaired = &m.report.stats.repaired_pages;
    repaired.fetch_add(u64::from(run.len), Relaxed);
}

/// Says so when everything has its replicas.
fn finish(m: &mut Memory, now: u64) {
    if !m.backing.repair.is_idle() {
        return;
    }
    if let Some(region) = m.backing.repair.buffer.take() {
        region.unmap();
    }
    let Some((began, pages)) = m.backing.repair.began else {
        return;
    };
    if m.backing.slots.degraded().0 > 0 {
        m.backing.repair.look_ns = now + IDLE_LOOK_NS;
        return;
    }
    m.backing.repair.began = None;
    let (mib, who) = ((pages * PAGE_SIZE as u64) >> 20, program());
    let copies = m.backing.slots.copies();
    let ms = now.saturating_sub(began) / 1_000_000;
    m.report.say(
        INFO,
        &format!(
            "{who} has {copies} copies of each page on servers again: {mib} MiB were copied in \
             {ms} ms"
        ),
    );
}
