//! Handover of file descriptors from a parent's engine to the engine of its forked child.
//!
//! A program may give up rights before it forks: its user, root directory, mounts, network,
//! files and system calls. The child's engine could then not open what the parent's engine
//! has open. So the thread that forks creates a pair of sockets, and:
//!
//! - The parent's engine takes one end into its own file table. It sends the child `/proc`,
//!   the userfaultfd device, and new connections to servers.
//! - The child's engine keeps the other end, as the only inherited descriptor, and receives
//!   what was sent before the fork.
//! - If the child may not open its own files below `/proc`, it asks the parent's engine to
//!   open them. Under a seccomp filter, which may end the child for opening anything, it
//!   asks at once.
//! - The child tells when it goes on. If a child ends before, under such a filter, the
//!   parent's engine reports why.
//!
//! If a step fails, the child has to manage by itself.

use crate::ServerId;
use crate::engine::calls::doorbell::has_engine;
use crate::engine::memory::report::{ERROR, Report};
use crate::engine::threads::{Offered, THREADS};
use crate::net::{Dialled, Servers};
use crate::sys::channel::{self, Channel, End, NOTE};
use crate::sys::proc::{FILES, Proc};
use crate::sys::roots::{self, Root, open_in_proc};
use crate::sys::{confined, descriptors, now_ns, proc, say, thread};
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use tmem_wire::HelloReply;

/// How long a child waits for files that it has asked for, and the time between two checks.
const PATIENCE_NS: u64 = 10_000_000_000;
const NAP_MS: u32 = 100;

/// The first byte of a message, which says what it carries.
const PROC: u8 = 1;
const DEVICE: u8 = 2;
/// A connection. The bytes after the next one are the server and the address.
const CONNECTION: u8 = 3;
/// One of [`FILES`]. The next byte says which.
const FILE: u8 = 4;
/// A child's request for files, and the end of the answer.
const ASK: u8 = 5;
const END: u8 = 6;
/// A child goes on.
const BEGUN: u8 = 7;

impl Offered {
    fn set(&self, end: End) {
        self.inode.store(end.inode, Relaxed);
        self.fd.store(end.fd, Release);
    }

    fn get(&self) -> Option<End> {
        let fd = self.fd.load(Acquire);
        let inode = self.inode.load(Relaxed);
        (fd != Self::NONE).then_some(End { fd, inode })
    }

    fn take(&self) -> Option<End> {
        let end = self.get();
        self.fd.store(Self::NONE, Release);
        end
    }
}

/// How many naps a thread that forks takes until the engine has taken its end, and their
/// length.
const EARLY: u32 = 20_000;
const NAP_US: u64 = 20;

/// Creates the pair. Called by the thread that is about to fork, unless the child will use
/// the same file table.
pub(crate) fn offer() {
    // The child of a program that is not paged yet begins like any program, if it may.
    if !has_engine() && !crate::engine::calls::credentials::is_given_up() {
        return;
    }
    // Under a seccomp filter, a system call that the program itself does not make may end
    // it.
    let may = !confined::is_confined() || channel::may_be_made();
    if let Some([childs, parents]) = may.then(channel::pair).flatten() {
        THREADS.handover.childs.set(childs);
        if !has_engine() {
            THREADS.handover.forks.store(thread::id(), Relaxed);
        }
        THREADS.handover.parents.set(parents);
        let taken = || THREADS.handover.taken.load(Acquire) == parents.inode;
        for _ in 0..EARLY {
            if has_engine() || taken() || !crate::engine::alive::poke() {
                break;
            }
            thread::rest_us(NAP_US);
        }
    }
}

/// Serves children while the engine only watches the program: sends a new child what there
/// is, and answers requests.
pub(crate) fn answer_early(children: &mut Vec<Child>) {
    children.retain_mut(Child::answer);
    let Some(end) = THREADS
        .handover
        .parents
        .get()
        .filter(|end| THREADS.handover.taken.load(Relaxed) != end.inode)
    else {
        return;
    };
    if let Some(channel) = taken_from(THREADS.handover.forks.load(Relaxed), end) {
        let _ = channel.tell_sender();
        give_roots(&channel);
        children.push(Child::new(channel, 0, false));
    }
    THREADS.handover.taken.store(end.inode, Release);
}

/// Takes an end from the file table of a thread of the program.
fn taken_from(tid: u32, end: End) -> Option<Channel> {
    say::inspected(|| Channel::taken_from(tid, end).ok())
}

fn give_roots(channel: &Channel) {
    // The child does without what cannot be sent.
    for (what, root) in [(PROC, Root::Proc), (DEVICE, Root::Device)] {
        if let Some(fd) = root.get() {
            let _ = channel.send(&note(what, 0), Some(fd));
        }
    }
}

/// Closes the pair. Called in the parent, by the thread that has forked.
pub(crate) fn withdraw() {
    for end in [&THREADS.handover.childs, &THREADS.handover.parents]
        .into_iter()
        .filter_map(Offered::take)
    {
        close(end);
    }
}

/// Closes an end in a thread of the program.
fn close(end: End) {
    match confined::is_confined() {
        false => end.close(),
        true => end.close_unseen(),
    }
}

/// Returns the end for the engine of a process that was just forked.
pub(crate) fn inherited() -> Option<End> {
    if let Some(end) = THREADS.handover.parents.take() {
        close(end);
    }
    THREADS.handover.childs.take()
}

/// Closes the program's copy of an end that the child's engine has taken.
pub fn taken_over(end: Option<End>) {
    if let Some(end) = end {
        close(end);
    }
}

/// A child that has not begun yet, as its parent's engine sees it.
#[derive(Debug)]
pub(crate) struct Child {
    channel: Channel,
    /// Distinguishes this child from an earlier one with the same descriptor number.
    pub(crate) serial: u64,
    /// The child waits for its engine, and has not told that it goes on.
    waits: bool,
}

impl Child {
    fn new(channel: Channel, serial: u64, waits: bool) -> Child {
        Child {
            channel,
            serial,
            waits,
        }
    }

    pub(crate) fn raw(&self) -> i32 {
        self.channel.raw()
    }

    /// Answers requests of the child. Returns whether the child still has its end.
    fn answer(&mut self) -> bool {
        loop {
            match self.channel.receive() {
                Ok(message) if message.note[0] == ASK => {
                    message.pid.into_iter().for_each(|pid| self.open_files(pid));
                    // If this fails, the child notices that the parent's end is closed.
                    let _ = self.channel.send(&note(END, 0), None);
                }
                Ok(message) if message.note[0] == BEGUN => self.waits = false,
                Ok(_) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Sends those of [`FILES`] that can be opened.
    fn open_files(&self, pid: u32) {
        for (which, file) in (0..).zip(FILES) {
            let path = format!("{pid}/{}", file.to_str().unwrap_or_default());
            if let Ok(path) = CString::new(path)
                && let Ok(fd) = open_in_proc(&path)
            {
                let _ = self.channel.send(&note(FILE, which), Some(fd.as_fd()));
            }
        }
    }
}

fn note(what: u8, which: u8) -> [u8; NOTE] {
    [what, which, 0, 0, 0, 0, 0, 0]
}

fn connection_note(dialled: &Dialled) -> [u8; NOTE] {
    let [s0, s1] = dialled.server.number().to_le_bytes();
    let [a0, a1, a2, a3] = (dialled.addr as u32).to_le_bytes();
    [CONNECTION, 0, s0, s1, a0, a1, a2, a3]
}

/// Children of forks that have not begun yet.
#[derive(Debug, Default)]
pub(crate) struct Children {
    children: Vec<Child>,
    /// Number of all children so far.
    serial: u64,
}

impl Children {
    /// Takes the parent's end of the pair, and sends the child a connection to each server
    /// that has a session for it. Called while `tid`, which forks, waits.
    pub(crate) fn hand_over(
        &mut self,
        net: &mut Servers,
        tid: u32,
        sessions: &[Option<HelloReply>],
    ) {
        let Some(end) = THREADS.handover.parents.get() else {
            return;
        };
        let Some(channel) = taken_from(tid, end) else {
            return;
        };
        proc::table_of(tid)
            .into_iter()
            .for_each(descriptors::note_table);
        let _ = channel.tell_sender();
        give_roots(&channel);
        for (server, _) in ServerId::all().zip(sessions).filter(|(_, s)| s.is_some()) {
            if let Some(dialled) = net.dial(server) {
                let note = connection_note(&dialled);
                // The child itself makes a connection that cannot be sent.
                let _ = channel.send(&note, Some(dialled.fd.as_fd()));
            }
        }
        self.serial += 1;
        let serial = self.serial;
        // A child without memory on servers may end before its engine has begun.
        let waits = sessions.iter().any(Option::is_some);
        self.children.push(Child::new(channel, serial, waits));
    }

    /// Answers children, and forgets those that have begun or ended.
    pub(crate) fn answer(&mut self, report: &Report) {
        let mut children = core::mem::take(&mut self.children);
        children.retain_mut(|child| {
            let is_there = child.answer();
            if !is_there && child.waits && confined::is_confined() {
                report.say(
                    ERROR,
                    "a forked child was ended before it could use its memory, probably by the \
                     program's filter of system calls, which holds for its pager too",
                );
            }
            is_there
        });
        self.children = children;
    }

    /// Iterates over the children that have not begun yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.children.iter()
    }
}

/// What a child's engine has received.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub(crate) channel: Option<Channel>,
    pub(crate) dialled: Vec<Dialled>,
}

impl Handed {
    /// Tells the parent's engine that the child goes on.
    pub(crate) fn begun(channel: Option<&Channel>) {
        if let Some(channel) = channel {
            // A parent that has ended need not be told.
            let _ = channel.send(&note(BEGUN, 0), None);
        }
    }

    /// Receives what was sent before the fork.
    pub(crate) fn receive(end: Option<End>) -> Handed {
        let mut handed = Handed {
            channel: end.and_then(Channel::inherited),
            dialled: Vec::new(),
        };
        while let Some(Ok(message)) = handed.channel.as_ref().map(Channel::receive) {
            let [what, _, s0, s1, a0, a1, a2, a3] = message.note;
            let Some(fd) = message.fd else { continue };
            match what {
                PROC => Root::Proc.keep(fd),
                DEVICE => Root::Device.keep(fd),
                CONNECTION => handed.dialled.push(Dialled {
                    server: ServerId::new(u16::from_le_bytes([s0, s1])),
                    addr: u32::from_le_bytes([a0, a1, a2, a3]) as usize,
                    fd,
                }),
                _ => {}
            }
        }
        roots::open_missing();
        handed
    }

    /// Returns the child's open files below `/proc`. Under a seccomp filter the parent's
    /// engine opens them, otherwise the child tries first. A process that others may not
    /// inspect may not open these files either, so it allows inspection for a moment.
    pub(crate) fn proc(&self) -> Result<Proc, Errno> {
        confined::open_nothing(false);
        if confined::is_confined()
            && let Some(proc) = self.ask()
        {
            confined::open_nothing(true);
            return Ok(proc);
        }
        let error = match Proc::open() {
            Ok(proc) => return Ok(proc),
            Err(error) => error,
        };
        if let Some(proc) = self.ask() {
            return Ok(proc);
        }
        if !matches!(
            dumpable_behavior(),
            Ok(DumpableBehavior::NotDumpable | DumpableBehavior::DumpableReadableOnlyByRoot)
        ) {
            return Err(error);
        }
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        let proc = Proc::open().ok().or_else(|| self.ask());
        // This restores what the program had set.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        proc.ok_or(error)
    }

    /// Has the parent's engine open the files.
    fn ask(&self) -> Option<Proc> {
        let channel = self.channel.as_ref()?;
        channel.send(&note(ASK, 0), None).ok()?;
        let mut files = FILES.map(|_| None);
        let until = now_ns() + PATIENCE_NS;
        while now_ns() < until {
            match channel.receive() {
                Ok(message) if message.note[0] == END => break,
                Ok(message) => {
                    if let Some(place) = files.get_mut(usize::from(message.note[1])) {
                        *place = message.fd;
                    }
                }
                Err(Errno::AGAIN) => channel.wait(NAP_MS),
                Err(_) => return None,
            }
        }
        Proc::of(files)
    }
}
