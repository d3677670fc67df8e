//! The socket of one connection: reads and writes of several pieces of memory.

use crate::client::Client;
use crate::serve::wipe::wipe;
use crate::store::sessions::Disconnect;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tmem_wire::{Header, NOTICE_ID, Op, Status};

/// Bytes that the kernel keeps for a client beyond those under way to it: enough for the
/// time until the thread that has more of them runs.
const UNSENT: i32 = 256 << 10;

/// A socket, which other threads can cut.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    /// Where it comes from.
    client: Client,
    cut: AtomicBool,
    ending: AtomicBool,
    /// The client takes messages that it has not asked for.
    hears: AtomicBool,
    /// What it is to be told, a bit for each, and is not yet.
    notices: AtomicU32,
    /// Held while messages are sent, each to its end.
    sending: Mutex<()>,
    /// The client is on the same machine.
    is_local: bool,
    /// It comes through a relay, from another kind of connection.
    is_relayed: bool,
}

/// A piece of memory to send from or receive into.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Piece(libc::iovec);

// SAFETY: it is an address and a length; whoever has it used vouches for the
// memory.
unsafe impl Send for Piece {}

impl Piece {
    pub(crate) fn new(base: *const u8, len: usize) -> Piece {
        Piece(libc::iovec {
            iov_base: base.cast_mut().cast(),
            iov_len: len,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Without its first `n` bytes, which it must have.
    pub(crate) fn skip(&self, n: usize) -> Piece {
        Piece::new(self.0.iov_base.cast::<u8>().wrapping_add(n), self.len() - n)
    }
}

impl Disconnect for Socket {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        // An error means that the connection is gone already.
        let _ = self.shutdown(libc::SHUT_RDWR);
    }

    fn is_dead(&self) -> bool {
        let gone = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        self.is_cut() || self.poll(libc::POLLRDHUP, 0).is_ok_and(|r| r & gone != 0)
    }
}

impl Socket {
    /// Takes over an accepted connection.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        let is_local = stream.local_addr()?.ip() == peer.ip();
        let socket = Socket {
            socket: stream.into(),
            client: Client::at(Some(peer)),
            cut: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            notices: AtomicU32::new(0),
            sending: Mutex::new(()),
            is_local,
            is_relayed: false,
        };
        // A machine that vanished is noticed after half a minute or so.
        socket.option(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        socket.option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 10)?;
        socket.option(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5)?;
        socket.option(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4)?;
        // What a client does not read waits in its slabs, and not in the kernel.
        socket.option(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT)?;
        if is_local {
            socket.spare_loopback();
        }
        Ok(socket)
    }

    /// Takes over an end of a pair, whose other end is relayed from and to a
    /// client.
    pub(crate) fn relayed(stream: UnixStream, client: Client) -> Socket {
        Socket {
            socket: stream.into(),
            client,
            cut: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            notices: AtomicU32::new(0),
            sending: Mutex::new(()),
            is_local: false,
            is_relayed: true,
        }
    }

    /// Whether requests and answers come through a relay.
    pub(crate) fn is_relayed(&self) -> bool {
        self.is_relayed
    }

    /// Where it comes from.
    pub(crate) fn client(&self) -> Client {
        self.client
    }

    /// Has its thread say goodbye and end it, once it has answered what it is at.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        // An error means that the connection is gone already.
        let _ = self.shutdown(libc::SHUT_RD);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// The processor that the client runs on, if that is on this machine: what
    /// is sent over loopback is received by the processor of the sender.
    pub(crate) fn client_processor(&self) -> Option<usize> {
        if !self.is_local {
            return None;
        }
        let mut cpu: libc::c_int = 0;
        let mut len = size_of_val(&cpu) as libc::socklen_t;
        let to = (&raw mut cpu).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_INCOMING_CPU);
        // SAFETY: room for the answer, as long as said.
        let asked = unsafe { libc::getsockopt(self.fd(), level, name, to, &raw mut len) };
        usize::try_from(cpu).ok().filter(|_| asked == 0)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Whether the client's machine has answered nothing for so long, although
    /// it should have. A client that only does not read is not lost: its
    /// machine answers for it.
    pub(crate) fn is_lost(&self, patience: Duration) -> bool {
        // SAFETY: all zeros is a value of it.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let to = (&raw mut info).cast();
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        // SAFETY: room for the answer, as long as said.
        let asked = unsafe { libc::getsockopt(self.fd(), level, name, to, &raw mut len) };
        let unanswered = info.tcpi_retransmits > 0 || info.tcpi_probes > 3;
        let silence = Duration::from_millis(info.tcpi_last_ack_recv.into());
        asked == 0 && unanswered && silence > patience
    }

    /// Receives into the pieces; 0 at the end of the stream. `None` when
    /// nothing is there and `wait` is false.
    ///
    /// # Safety
    /// The pieces must be memory that may be written.
    pub(crate) unsafe fn receive(
        &self,
        pieces: &mut [Piece],
        wait: bool,
    ) -> io::Result<Option<usize>> {
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        let n = if let [Piece(one)] = pieces {
            // SAFETY: the caller vouches for the piece.
            retry(|| unsafe { libc::recv(self.fd(), one.iov_base, one.iov_len, flags) })
        } else {
            let mut message = message(pieces);
            // SAFETY: the caller vouches for the pieces.
            retry(|| unsafe { libc::recvmsg(self.fd(), &mut message, flags) })
        };
        match n {
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Receives up to `len` bytes and throws them away; 0 at the end.
    pub(crate) fn skip(&self, len: usize) -> io::Result<usize> {
        if self.is_relayed {
            // Only TCP throws away by itself.
            let mut waste = [0u8; 16 << 10];
            let (to, len) = (waste.as_mut_ptr(), len.min(waste.len()));
            // SAFETY: room for so many bytes.
            let n = retry(|| unsafe { libc::recv(self.fd(), to.cast(), len, 0) });
            wipe(&mut waste);
            return n;
        }
        // SAFETY: with MSG_TRUNC the kernel writes nothing.
        retry(|| unsafe { libc::recv(self.fd(), std::ptr::null_mut(), len, libc::MSG_TRUNC) })
    }

    /// The client takes messages that it has not asked for, from now on.
    pub(crate) fn hears_notices(&self) {
        self.hears.store(true, Ordering::Release);
    }

    /// Tells the client something that it has not asked for, if it takes that: at once, or
    /// behind what is being sent.
    pub(crate) fn notify(&self, notice: u32) {
        if self.hears.load(Ordering::Acquire) {
            self.notices.fetch_or(1 << notice, Ordering::AcqRel);
            self.send_notices();
        }
    }

    /// Sends what the client is to be told, unless another thread is sending, which does so then,
    /// or the client takes nothing at the moment.
    fn send_notices(&self) {
        while self.notices.load(Ordering::Acquire) != 0 {
            let Ok(_sending) = self.sending.try_lock() else {
                return;
            };
            let notices = self.notices.swap(0, Ordering::AcqRel);
            for notice in (0..u32::BITS).filter(|bit| notices & (1 << bit) != 0) {
                let header = Header {
                    page: notice,
                    ..Header::request(Op::Notice, NOTICE_ID).reply(Status::Ok, 0)
                };
                let bytes = header.encode();
                let (from, flags) = (
                    bytes.as_ptr().cast(),
                    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                );
                // SAFETY: so many bytes are read.
                let sent = retry(|| unsafe { libc::send(self.fd(), from, bytes.len(), flags) });
                match sent {
                    Ok(n) if n == bytes.len() => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        // With the next answer.
                        self.notices.fetch_or(1 << notice, Ordering::AcqRel);
                        return;
                    }
                    // A part of a message is worse than none: the client comes again.
                    _ => self.cut(),
                }
            }
        }
    }

    /// Sends all the pieces, waiting while the client does not take them.
    ///
    /// # Safety
    /// The pieces must be memory that may be read.
    pub(crate) unsafe fn send(&self, pieces: &mut [Piece]) -> io::Result<()> {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: by the caller.
        let sent = unsafe { self.send_all(pieces) };
        drop(sending);
        self.send_notices();
        sent
    }

    /// # Safety
    /// As [`Socket::send`].
    unsafe fn send_all(&self, mut pieces: &mut [Piece]) -> io::Result<()> {
        while !pieces.is_empty() {
            let batch = pieces.len().min(libc::UIO_MAXIOV as usize);
            let message = message(&mut pieces[..batch]);
            // SAFETY: the caller vouches for the pieces.
            let mut n =
                retry(|| unsafe { libc::sendmsg(self.fd(), &message, libc::MSG_NOSIGNAL) })?;
            let mut whole = 0;
            while whole < pieces.len() && n >= pieces[whole].len() {
                n -= pieces[whole].len();
                whole += 1;
            }
            pieces = &mut pieces[whole..];
            if let Some(first) = pieces.first_mut() {
                *first = first.skip(n);
            }
        }
        Ok(())
    }

    /// Waits until something can be received, or the deadline has passed.
    pub(crate) fn wait(&self, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ms = left.as_micros().div_ceil(1000).min(60_000) as i32;
            if self.poll(libc::POLLIN, ms)? != 0 {
                return Ok(());
            }
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Ends the connection so that what was sent still arrives: the other
    /// side's bytes are thrown away until it has closed, or the deadline.
    pub(crate) fn linger(&self, deadline: Instant) {
        if self.shutdown(libc::SHUT_WR).is_err() {
            return;
        }
        while self.wait(deadline).is_ok() && Instant::now() < deadline {
            if !self.skip(1 << 20).is_ok_and(|n| n > 0) {
                return;
            }
        }
    }

    fn poll(&self, events: libc::c_short, ms: i32) -> io::Result<libc::c_short> {
        let mut fd = libc::pollfd {
            fd: self.fd(),
            events,
            revents: 0,
        };
        // SAFETY: one descriptor, as said.
        retry(|| unsafe { libc::poll(&mut fd, 1, ms) as isize })?;
        Ok(fd.revents)
    }

    /// There is no network to share with a client on this machine, and no rate to find
    /// out: of all kinds of congestion control what does least serves best.
    fn spare_loopback(&self) {
        // It works without.
        let _ = self.set(libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno");
    }

    fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        self.set(level, name, &value.to_ne_bytes())
    }

    fn set(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        let (at, size) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
        // SAFETY: so many bytes are read.
        retry(|| unsafe { libc::setsockopt(self.fd(), level, name, at, size) as isize })?;
        Ok(())
    }

    fn shutdown(&self, how: i32) -> io::Result<()> {
        // SAFETY: the call takes no memory.
        retry(|| unsafe { libc::shutdown(self.fd(), how) as isize })?;
        Ok(())
    }

    fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

fn message(pieces: &mut [Piece]) -> libc::msghdr {
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr().cast();
    message.msg_iovlen = pieces.len();
    message
}

/// Makes a system call, again when a signal interrupted it.
pub(crate) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(n) = usize::try_from(call()) {
            return Ok(n);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
