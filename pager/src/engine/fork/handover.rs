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
//! A child of a child may be out of reach for its parent's engine, which has given up what
//! it needs to open files or to connect. An engine that is limited like this keeps its own
//! channel, and passes on what its children need: the channel of the child goes up to the
//! parent's engine, which answers in its place, or passes it on.
//!
//! If a step fails, the child has to manage by itself.

use crate::ServerId;
use crate::engine::calls::doorbell::has_engine;
use crate::engine::memory::report::{ERROR, Report};
use crate::engine::threads::{Offered, THREADS};
use crate::net::{Dialled, Servers};
use crate::sys::channel::{self, Channel, End, Message, NOTE};
use crate::sys::fd::Fd;
use crate::sys::proc::{FILES, Proc};
use crate::sys::roots::{self, Root, open_in_proc};
use crate::sys::{confined, descriptors, network, now_ns, proc, say, thread};
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use tmem_wire::HelloReply;

/// How long a child waits for files that it has asked for, and the time between two checks.
const PATIENCE_NS: u64 = 10_000_000_000;
const NAP_MS: u32 = 100;

/// The first byte of a message, which says what it carries.
const PROC: u8 = 1;
const DEVICE: u8 = 2;
/// A connection. The next byte is 1 if it was promised. The server and the address follow. An
/// answer without a connection means that there is none.
const CONNECTION: u8 = 3;
/// One of [`FILES`]. The next byte says which.
const FILE: u8 = 4;
/// A child's request for files, and the end of the answer.
const ASK: u8 = 5;
const END: u8 = 6;
/// A child goes on.
const BEGUN: u8 = 7;
/// A limited engine asks for a connection to a server for the child at the other end of the
/// channel that comes with it. The server is where a connection has it.
const DIAL: u8 = 8;
/// A limited engine asks to serve the child at the other end of the channel that comes with it.
const SERVE: u8 = 9;
/// The child has to ask again: another engine answers from now on.
const AGAIN: u8 = 10;
/// Another engine sends so many connections, or says that there is none.
const PROMISE: u8 = 11;
/// A file of the local tier. They come in order.
const SPILL: u8 = 12;
/// One end of a pipe, which the child and its children keep. When all have ended, the parent
/// sees the end of the file, and may write over what it has spilled.
const LEASE: u8 = 13;

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
    let alone = Help::default();
    children.retain_mut(|child| child.answer(&alone, &mut Vec::new()) == Presence::There);
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

/// How often a thread that ends a confined program looks whether all children have begun: for
/// about a tenth of a second.
const LOOKS: u32 = 4_000_000;

/// Waits a moment for children that have not begun, without any system call. Called by a
/// thread that is about to end a program with a filter of system calls: when such a child was ended
/// by the filter, the engine has to say so before it ends with the program.
pub fn await_children() {
    for _ in 0..LOOKS {
        if THREADS.handover.waiting.load(Acquire) == 0 {
            return;
        }
        core::hint::spin_loop();
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

    /// Answers requests of the child. Appends the channels of children that it cannot serve
    /// itself to `others`.
    fn answer(&mut self, help: &Help<'_>, others: &mut Vec<Channel>) -> Presence {
        loop {
            match self.channel.receive() {
                Ok(message) if message.note[0] == ASK => {
                    let opened = message.pid.is_some_and(|pid| self.open_files(pid));
                    if !opened && help.pass_on(&note(SERVE, 0), &self.channel) {
                        let _ = self.channel.send(&note(AGAIN, 0), None);
                        return Presence::PassedOn;
                    }
                    // If this fails, the child notices that the parent's end is closed.
                    let _ = self.channel.send(&note(END, 0), None);
                }
                Ok(message) if message.note[0] == BEGUN => self.waits = false,
                Ok(Message {
                    note, fd: Some(fd), ..
                }) => match note[0] {
                    SERVE => others.push(Channel::of(fd)),
                    DIAL => help.dial(&note, &Channel::of(fd)),
                    _ => {}
                },
                Ok(_) => {}
                Err(Errno::AGAIN) => return Presence::There,
                Err(_) => return Presence::Gone,
            }
        }
    }

    /// Sends those of [`FILES`] that can be opened. Returns whether all can.
    fn open_files(&self, pid: u32) -> bool {
        let mut all = true;
        for (which, file) in (0..).zip(FILES) {
            let path = format!("{pid}/{}", file.to_str().unwrap_or_default());
            match CString::new(path).map(|path| open_in_proc(&path)) {
                Ok(Ok(fd)) => drop(self.channel.send(&note(FILE, which), Some(fd.as_fd()))),
                _ => all = false,
            }
        }
        all
    }
}

/// What is left of a child's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// The child has its end.
    There,
    /// Another engine serves the child.
    PassedOn,
    /// The child has ended, or needs nothing any more.
    Gone,
}

/// What an engine answers its children with.
#[derive(Clone, Copy, Debug, Default)]
struct Help<'a> {
    net: Option<&'a Servers>,
    /// The channel to its own parent's engine, if it is limited.
    up: Option<&'a Channel>,
}

impl Help<'_> {
    /// Has the parent's engine do something for the child at the other end of a channel.
    /// Returns whether it was asked.
    fn pass_on(&self, note: &[u8; NOTE], channel: &Channel) -> bool {
        let send = |up: &Channel| up.send(note, Some(channel.as_fd())).is_ok();
        self.up.is_some_and(send)
    }

    /// Sends a connection for a child of a limited child.
    fn dial(&self, note: &[u8; NOTE], channel: &Channel) {
        if self.pass_on(note, channel) {
            return;
        }
        let server = ServerId::new(u16::from_le_bytes([note[2], note[3]]));
        let dialled = self.net.and_then(|net| net.dial(server));
        // A child that has ended needs none.
        let _ = match dialled {
            Some(dialled) => {
                channel.send(&connection_note(&dialled, true), Some(dialled.fd.as_fd()))
            }
            None => channel.send(&[CONNECTION, 1, note[2], note[3], 0, 0, 0, 0], None),
        };
    }
}

fn note(what: u8, which: u8) -> [u8; NOTE] {
    [what, which, 0, 0, 0, 0, 0, 0]
}

fn connection_note(dialled: &Dialled, was_promised: bool) -> [u8; NOTE] {
    let [s0, s1] = dialled.server.number().to_le_bytes();
    let [a0, a1, a2, a3] = (dialled.addr as u32).to_le_bytes();
    [CONNECTION, was_promised.into(), s0, s1, a0, a1, a2, a3]
}

/// Children of forks that have not begun yet.
#[derive(Debug, Default)]
pub(crate) struct Children {
    children: Vec<Child>,
    /// Number of all children so far.
    serial: u64,
    /// The channel to the parent's engine, if this engine is limited.
    up: Option<Channel>,
    /// Pipes whose other ends are with children that read this process's spill files.
    readers: Vec<Fd>,
    /// Ends that this process keeps as long as it may read its parent's.
    leases: Vec<Fd>,
    /// Such a child could not be given a pipe.
    has_unknown_reader: bool,
}

impl Children {
    /// Takes the parent's end of the pair, and sends the child a connection to each server
    /// that has a session for it. `evicted` says that the child has memory elsewhere. Called while
    /// `tid`, which forks, waits.
    pub(crate) fn hand_over(
        &mut self,
        net: &mut Servers,
        tid: u32,
        sessions: &[Option<HelloReply>],
        evicted: bool,
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
        let mut promised = 0;
        for (server, _) in ServerId::all().zip(sessions).filter(|(_, s)| s.is_some()) {
            let [s0, s1] = server.number().to_le_bytes();
            let help = Help {
                net: None,
                up: self.up.as_ref(),
            };
            if help.pass_on(&[DIAL, 0, s0, s1, 0, 0, 0, 0], &channel) {
                promised += 1;
            } else if let Some(dialled) = net.dial(server) {
                let note = connection_note(&dialled, false);
                // The child itself makes a connection that cannot be sent.
                let _ = channel.send(&note, Some(dialled.fd.as_fd()));
            }
        }
        if promised > 0 {
            let _ = channel.send(&note(PROMISE, promised), None);
        }
        self.hand_over_files(net, &channel);
        // A child without memory elsewhere may end before its engine has begun.
        self.add(channel, evicted);
    }

    /// Sends a child the files of the local tier. A child that lacks one says so, and ends.
    fn hand_over_files(&mut self, net: &Servers, channel: &Channel) {
        let mut is_any = false;
        for fd in net.local_files() {
            is_any = true;
            let _ = channel.send(&note(SPILL, 0), Some(fd));
        }
        if !is_any {
            return;
        }
        for lease in &self.leases {
            let _ = channel.send(&note(LEASE, 0), Some(lease.as_fd()));
        }
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        match rustix::pipe::pipe_with(flags) {
            Ok((reader, lease)) => {
                let lease = Fd::from(lease);
                let _ = channel.send(&note(LEASE, 0), Some(lease.as_fd()));
                self.readers.push(Fd::from(reader).moved_up());
            }
            // Files that a child may read are then never written over.
            Err(_) => self.has_unknown_reader = true,
        }
    }

    /// Whether children that had this process's spill files have ended since, all of them.
    pub(crate) fn have_left_files(&mut self) -> bool {
        if self.readers.is_empty() || self.has_unknown_reader {
            return false;
        }
        let has_ended = |fd: &Fd| matches!(rustix::io::read(fd, &mut [0; 1]), Ok(0));
        self.readers.retain(|reader| !has_ended(reader));
        self.readers.is_empty()
    }

    /// Keeps what the parent's engine has sent for as long as this process lives.
    pub(crate) fn keep(&mut self, leases: Vec<Fd>) {
        self.leases = leases;
    }

    fn add(&mut self, channel: Channel, waits: bool) {
        self.serial += 1;
        self.children.push(Child::new(channel, self.serial, waits));
        self.note_waiting();
    }

    fn note_waiting(&self) {
        let waiting = self.children.iter().filter(|child| child.waits).count();
        THREADS.handover.waiting.store(waiting as u32, Release);
    }

    /// Keeps the channel to the parent's engine, which this engine has to ask for what its own
    /// children need.
    pub(crate) fn pass_on_to(&mut self, up: Option<Channel>) {
        self.up = up;
    }

    /// Answers children, and forgets those that have begun or ended.
    pub(crate) fn answer(&mut self, report: &Report, net: &Servers) {
        let mut children = core::mem::take(&mut self.children);
        let mut others = Vec::new();
        let help = Help {
            net: Some(net),
            up: self.up.as_ref(),
        };
        children.retain_mut(|child| {
            let presence = child.answer(&help, &mut others);
            if presence == Presence::Gone && child.waits && confined::is_confined() {
                report.say(
                    ERROR,
                    "a forked child was ended before it could use its memory, probably by the \
                     program's filter of system calls, which holds for its pager too",
                );
            }
            presence == Presence::There
        });
        self.children = children;
        for channel in others {
            let _ = channel.tell_sender();
            self.add(channel, true);
        }
        self.note_waiting();
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
    /// Files of the local tier, in order.
    pub(crate) files: Vec<Fd>,
    pub(crate) leases: Vec<Fd>,
    /// The parent's engine had to open files.
    has_asked: Cell<bool>,
}

impl Handed {
    /// Tells the parent's engine that the child goes on.
    pub(crate) fn begun(channel: Option<&Channel>) {
        if let Some(channel) = channel {
            // A parent that has ended need not be told.
            let _ = channel.send(&note(BEGUN, 0), None);
        }
    }

    /// Tells whether this engine can perhaps not do for its own children what its parent's
    /// engine has done for it.
    pub(crate) fn is_limited(&self) -> bool {
        confined::is_confined() || self.has_asked.get() || network::is_left()
    }

    /// Receives what was sent before the fork, and what was promised.
    pub(crate) fn receive(end: Option<End>) -> Handed {
        let mut handed = Handed {
            channel: end.and_then(Channel::inherited),
            ..Handed::default()
        };
        let (mut promised, until) = (0, now_ns() + PATIENCE_NS);
        while let Some(channel) = &handed.channel {
            let message = match channel.receive() {
                Ok(message) => message,
                Err(Errno::AGAIN) if promised > 0 && now_ns() < until => {
                    channel.wait(NAP_MS);
                    continue;
                }
                Err(_) => break,
            };
            let [what, which, s0, s1, a0, a1, a2, a3] = message.note;
            match what {
                PROMISE => promised += i32::from(which),
                CONNECTION => promised -= i32::from(which),
                _ => {}
            }
            let Some(fd) = message.fd else { continue };
            match what {
                PROC => Root::Proc.keep(fd),
                DEVICE => Root::Device.keep(fd),
                SPILL => handed.files.push(fd.moved_up()),
                LEASE => handed.leases.push(fd.moved_up()),
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
        self.has_asked.set(true);
        channel.send(&note(ASK, 0), None).ok()?;
        let mut files = FILES.map(|_| None);
        let until = now_ns() + PATIENCE_NS;
        while now_ns() < until {
            match channel.receive() {
                Ok(message) if message.note[0] == END => break,
                Ok(message) if message.note[0] == AGAIN => {
                    channel.send(&note(ASK, 0), None).ok()?;
                }
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
