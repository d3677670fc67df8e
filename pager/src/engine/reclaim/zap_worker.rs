//! Zaps by another task than the engine, see `zap`, and tells which reports are about
//! them.
//!
//! The kernel holds a thread that zaps until the report has been read. So it is a task
//! beside the engine that zaps, see [`Task`].

mod task;

pub(crate) use task::ZapTask;

use crate::engine::Engine;
use crate::engine::calls::engine_call::Question;
use crate::engine::fork::LEAVE;
use crate::engine::kernel::Kernel;
use crate::sys::mem::Region;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Relaxed, Release};
use rustix::io::Errno;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The pages are taken away.
    Zap,
    /// The pages become the program's own, as writing to them would make them.
    Unshare,
    /// The task becomes what the program is, see `credentials`.
    Follow,
}

/// The program is about to end: nothing is begun any more that would outlive it.
static LEAVING: AtomicBool = AtomicBool::new(false);
static QUESTION: Question = Question::new(LEAVE);

/// Ends the process that zaps, which would be reaped by another than the engine if it
/// outlived the program. Called by a thread of the program that is about to end it, with
/// signals blocked.
pub fn leave() {
    LEAVING.store(true, Release);
    // Without an engine there is none.
    QUESTION.turn().ask();
}

/// In a process that was just forked.
pub(crate) fn begin_anew() {
    LEAVING.store(false, Relaxed);
    QUESTION.begin_anew();
}

impl Engine {
    /// Answers who asks.
    pub(crate) fn answer_leave(&mut self) {
        QUESTION.answer(|| self.zapper.iter_mut().for_each(Zapper::end));
    }
}

/// A task beside the engine that does what is asked of it, one thing at a time.
pub(crate) trait Task: Debug {
    /// Asks for something. What the kernel refuses to do shows in the pages.
    ///
    /// # Errors
    /// The kernel's, where nobody can be started to do it.
    fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno>;
    /// Whether what was asked is done.
    fn is_done(&self) -> bool;
    /// What was asked is done, and known to be.
    fn rest(&mut self);
    /// Waits until what was asked is done, which is false then, or waits for its report to
    /// be read.
    fn is_to_be_read(&mut self) -> bool;
    /// Forgets a task that has ended; what it was asked to do counts as done.
    fn look_after(&mut self);
    /// Has it run on the engine's CPU.
    fn stay_with(&mut self, cpu: Option<u32>);
    /// Has it become what the program is, or end. Called while it has nothing to do.
    fn follow(&mut self);
    /// Ends one that has nothing to do.
    fn end(&mut self);
    /// Its stack.
    fn stack(&self) -> Option<Region>;
}

/// The task that zaps, and the zap under way.
#[derive(Debug)]
pub(crate) struct Zapper {
    task: Box<dyn Task>,
    /// The range, while a zap is under way.
    now: Range<usize>,
    /// Reports within the range since the zap began.
    seen: Vec<Range<usize>>,
}

impl Zapper {
    /// One whose task begins when it is asked first.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(kernel: &dyn Kernel) -> Result<Zapper, Errno> {
        Ok(Zapper {
            task: kernel.zap_task()?,
            now: 0..0,
            seen: Vec::new(),
        })
    }

    /// Memory that is the engine's own.
    pub(crate) fn stack(&self) -> Option<Region> {
        self.task.stack()
    }

    /// Asks for something, see [`Task::ask`].
    ///
    /// # Errors
    /// The kernel's, where nobody can be started to do it.
    pub(crate) fn ask(&mut self, what: What, range: &Range<usize>) -> Result<(), Errno> {
        self.task.ask(what, range)?;
        if what == What::Zap {
            self.now = range.clone();
            self.seen.clear();
        }
        Ok(())
    }

    /// Whether what was asked is done.
    pub(crate) fn is_done(&self) -> bool {
        self.task.is_done()
    }

    /// What was asked is done, and known to be.
    pub(crate) fn rest(&mut self) {
        self.task.rest();
    }

    /// Waits until the zap is done, which is false then, or waits for its report to be
    /// read.
    pub(crate) fn is_to_be_read(&mut self) -> bool {
        self.task.is_to_be_read()
    }

    /// Forgets a task that has ended.
    pub(crate) fn look_after(&mut self) {
        self.task.look_after();
    }

    /// Has the task run where the engine does. The two take turns, and to wake one that
    /// sleeps on another CPU takes longer than a zap.
    pub(crate) fn stay_with(&mut self, cpu: Option<u32>) {
        self.task.stay_with(cpu);
    }

    /// Has the task become what the program is, or end.
    pub(crate) fn follow(&mut self) {
        self.task.follow();
    }

    fn end(&mut self) {
        self.task.end();
    }

    /// Whether a report may be about the zap under way. Which of them were is seen
    /// when it is done.
    pub(crate) fn is_own(&mut self, range: &Range<usize>) -> bool {
        let own = self.now.start <= range.start && range.end <= self.now.end;
        if own {
            self.seen.push(range.clone());
        }
        own
    }

    /// The zap is over: what of its reports was the program's.
    pub(crate) fn foreign(&mut self) -> Vec<Range<usize>> {
        let range = core::mem::replace(&mut self.now, 0..0);
        foreign(core::mem::take(&mut self.seen), range)
    }
}

/// Of the reports `seen`, those that are not about the zap of `range`. That one
/// is reported piece by piece, each mapping for itself; where a mapping was split
/// between its report and its zap, what was split off is reported once more. So
/// its reports begin with the range, each of the others begins within the one
/// before or at its end, and the last ends where it ends. Of several such rows
/// the longest is taken: to take the zap for the program's would lose what is
/// zapped.
fn foreign(mut seen: Vec<Range<usize>>, range: Range<usize>) -> Vec<Range<usize>> {
    // For each report the longest row that ends with it, and what comes before
    // it there.
    let mut rows: Vec<(usize, Option<usize>)> = Vec::new();
    for (i, report) in seen.iter().enumerate() {
        let first = (usize::from(report.start == range.start), None);
        let longest = (0..i)
            .filter(|&b| rows[b].0 > 0)
            .filter(|&b| seen[b].start < report.start && report.start <= seen[b].end)
            .map(|b| (rows[b].0 + 1, Some(b)))
            .fold(first, |best, row| if row.0 > best.0 { row } else { best });
        rows.push(longest);
    }
    let mut last = None;
    for i in (0..rows.len()).filter(|&i| rows[i].0 > 0) {
        let rank = |i: usize| (seen[i].end, rows[i].0);
        if last.is_none_or(|l| rank(i) > rank(l)) {
            last = Some(i);
        }
    }
    let mut own = Vec::new();
    while let Some(i) = last {
        own.push(i);
        last = rows[i].1;
    }
    // The last comes first here.
    for i in own {
        seen.remove(i);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_zaps_beside_a_zap_is_told_apart() {
        assert_eq!(foreign(vec(&[(0, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 3), (0, 8)]), 0..8), vec(&[(0, 3)]));
        assert_eq!(foreign(vec(&[(0, 8), (0, 8)]), 0..8), vec(&[(0, 8)]));
        assert_eq!(
            foreign(vec(&[(4, 5), (0, 3), (3, 8)]), 0..8),
            vec(&[(4, 5)])
        );
        assert_eq!(
            foreign(vec(&[(0, 2), (0, 3), (3, 8)]), 0..8),
            vec(&[(0, 2)])
        );
        assert_eq!(foreign(vec(&[(0, 8), (3, 5)]), 0..8), vec(&[(3, 5)]));
        // The mapping was split in the meantime, once and twice.
        assert_eq!(foreign(vec(&[(0, 8), (3, 8)]), 0..8), vec(&[]));
        assert_eq!(foreign(vec(&[(0, 8), (3, 5), (5, 8)]), 0..8), vec(&[]));
        assert_eq!(
            foreign(vec(&[(0, 4), (2, 4), (0, 1), (4, 8)]), 0..8),
            vec(&[(0, 1)])
        );
        // A zap that was refused reports nothing.
        assert_eq!(foreign(vec(&[(2, 3)]), 0..8), vec(&[(2, 3)]));
    }

    fn vec(ranges: &[(usize, usize)]) -> Vec<Range<usize>> {
        ranges.iter().map(|(a, b)| *a..*b).collect()
    }
}
