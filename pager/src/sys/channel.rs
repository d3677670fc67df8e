//! Sockets that carry file descriptors from one engine's file table to another's.

use super::fd::Fd;
use super::program;
use crate::filters;
use core::mem::MaybeUninit;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// Bytes of a message, besides its file descriptor.
pub const NOTE: usize = 8;

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub note: [u8; NOTE],
    /// The file descriptor that came with it.
    pub fd: Option<Fd>,
    /// The process that sent it, if known: see [`Channel::tell_sender`].
    pub pid: Option<u32>,
}

/// One end of a connection for messages.
#[derive(Debug)]
pub struct Channel(Fd);

impl Channel {
    /// Takes the descriptor of a socket that [`pair`] made from a thread of the program,
    /// which has another file table.
    ///
    /// # Errors
    /// Those of the kernel. `BADF` if the number now belongs to another file.
    pub fn taken_from(tid: u32, end: End) -> Result<Channel, Errno> {
        /// A single thread (Linux 6.9).
        const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0o200);
        let open = |id: u32, flags| {
            let pid = Pid::from_raw(id as i32).ok_or(Errno::SRCH)?;
            rustix::process::pidfd_open(pid, flags).map(Fd::from)
        };
        // Most programs have one file table for all threads.
        let of = open(tid, THREAD).or_else(|_| open(program::id(), PidfdFlags::empty()))?;
        let fd = rustix::process::pidfd_getfd(&of, end.fd, PidfdGetfdFlags::empty())?;
        let fd = Fd::from(fd).moved_up();
        match end.is(fd.as_fd()) {
            true => Ok(Channel(fd)),
            false => Err(Errno::BADF),
        }
    }

    /// Returns the end that the calling thread has inherited, if it is still open.
    pub fn inherited(end: End) -> Option<Channel> {
        // SAFETY: it is checked before it is used.
        let fd = unsafe { BorrowedFd::borrow_raw(end.fd) };
        let is_it = end.is(fd);
        is_it.then(|| Channel(end.into_fd()))
    }

    /// Takes a channel that came in a message.
    pub fn of(fd: Fd) -> Channel {
        Channel(fd.moved_up())
    }

    /// Returns the file descriptor, to be passed on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Returns the file descriptor's number.
    pub fn raw(&self) -> i32 {
        self.0.raw()
    }

    /// Makes later messages tell which process has sent them.
    ///
    pub fn tell_sender(&self) -> Result<(), Errno> {
        sockopt::set_socket_passcred(&self.0, true)
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    /// Those of the kernel. `PIPE` if the other end is closed.
    pub fn send(&self, note: &[u8; NOTE], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = [IoSlice::new(note)];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &parts, &mut control, flags).map(|_| ())
        })
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` if there is none yet, `PIPE` if there will be none.
    pub fn receive(&self) -> Result<Message, Errno> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut message = Message {
            note: [0; NOTE],
            fd: None,
            pid: None,
        };
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut message.note)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, flags)
        })?;
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(fds) => {
                    fds.for_each(|fd| message.fd = Some(Fd::from(fd)));
                }
                RecvAncillaryMessage::ScmCredentials(who) => {
                    message.pid = Some(who.pid.as_raw_nonzero().get() as u32);
                }
                _ => {}
            }
        }
        match got.bytes {
            NOTE => Ok(message),
            _ => Err(Errno::PIPE),
        }
    }

    /// Waits for up to `ms` milliseconds until there is something to receive.
    pub fn wait(&self, ms: u32) {
        let mut poll = [PollFd::new(&self.0, PollFlags::IN)];
        let time = Timespec {
            tv_sec: i64::from(ms / 1000),
            tv_nsec: i64::from(ms % 1000) * 1_000_000,
        };
        // The next receive shows what there is.
        let _ = rustix::event::poll(&mut poll, Some(&time));
    }
}

/// An end in the program's file table: its number, and what distinguishes it from another
/// file with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The number.
    pub fd: i32,
    /// The socket's inode.
    pub inode: u64,
}

impl End {
    fn of(fd: i32) -> Option<End> {
        // SAFETY: used for one call, which fails if it is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let inode = rustix::fs::fstat(borrowed).ok()?.st_ino;
        Some(End { fd, inode })
    }

    fn is(self, fd: BorrowedFd<'_>) -> bool {
        rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == self.inode)
    }

    fn into_fd(self) -> Fd {
        use rustix::fd::FromRawFd;
        // SAFETY: `inherited` and `close` have checked that it is this end.
        unsafe { Fd::from_raw_fd(self.fd) }
    }

    /// Closes the file with this number, without a check.
    pub fn close_unseen(self) {
        drop(self.into_fd());
    }

    /// Closes the end, unless the program has done so.
    pub fn close(self) {
        // SAFETY: it is checked before it is used.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        if self.is(fd) {
            drop(self.into_fd());
        }
    }
}

const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Creates a connection, with both ends in the calling thread's file table. Returns `None`
/// if the kernel refuses.
///
pub fn pair() -> Option<[End; 2]> {
    let (unix, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (a, b) = rustix::net::socketpair(unix, kind, SOCKET_FLAGS, None).ok()?;
    of_both(Fd::from(a), Fd::from(b))
}

/// Tells whether the program's seccomp filters allow one of its threads to make a channel.
pub fn may_be_made() -> bool {
    const SOCKETPAIR: u32 = 53;
    const FSTAT: u32 = 5;
    let kind = SocketType::SEQPACKET.as_raw() | SOCKET_FLAGS.bits();
    let family = u64::from(AddressFamily::UNIX.as_raw());
    let nowhere = (&raw const kind).addr() as u64;
    filters::allow(SOCKETPAIR, [family, kind.into(), 0, nowhere, 0, 0])
        && filters::allow(FSTAT, [0, nowhere, 0, 0, 0, 0])
}

fn of_both(a: Fd, b: Fd) -> Option<[End; 2]> {
    let ends = [End::of(a.raw())?, End::of(b.raw())?];
    core::mem::forget((a, b));
    Some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::thread;

    #[test]
    fn a_descriptor_arrives_with_its_note_and_who_sent_it() {
        let [a, b] = pair().unwrap().map(|end| Channel::inherited(end).unwrap());
        assert_eq!(a.receive().unwrap_err(), Errno::AGAIN);
        a.tell_sender().unwrap();
        let (sent, other) = rustix::pipe::pipe().unwrap();
        b.send(&[7; NOTE], Some(sent.as_fd())).unwrap();
        a.wait(1000);
        let message = a.receive().unwrap();
        assert_eq!(message.note, [7; NOTE]);
        assert_eq!(message.pid, Some(thread::leader()));
        rustix::io::write(&other, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(message.fd.unwrap(), &mut byte), Ok(1));
        drop(b);
        assert_eq!(a.receive().unwrap_err(), Errno::PIPE);
        assert_eq!(a.send(&[0; NOTE], None), Err(Errno::PIPE));
    }

    #[test]
    fn an_end_is_taken_from_a_thread_of_the_process_and_no_other_descriptor() {
        let [a, b] = pair().unwrap();
        let taken = Channel::taken_from(thread::id(), b).unwrap();
        Channel::inherited(a)
            .unwrap()
            .send(&[1; NOTE], None)
            .unwrap();
        assert_eq!(taken.receive().unwrap().note, [1; NOTE]);
        let wrong = End {
            inode: b.inode + 1,
            ..b
        };
        assert!(Channel::inherited(wrong).is_none());
        wrong.close();
        assert_eq!(
            Channel::taken_from(thread::id(), wrong).unwrap_err(),
            Errno::BADF
        );
        b.close();
    }
}
