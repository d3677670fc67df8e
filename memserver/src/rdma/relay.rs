//! Relays the stream of one client between its RDMA connection and a socket. At the socket's
//! other end, the client is served as over TCP.
//!
//! The slower side makes the other wait: a receive is only posted again when its bytes have
//! gone into the socket, and bytes are only read from the socket when there is a buffer to
//! send them from.

use crate::serve::socket::Socket;
use crate::store::sessions::Disconnect;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tmem_verbs::{
    Buffer, Completion, Connection, Error, Event, Kind, Limits, Op, Part, Pieces, Work,
};
use tmem_wire::{RDMA_RECEIVES, RDMA_SEND};

/// How many receives are posted: twice as many as the client may count on, so that enough are
/// left while some are in use.
const RECEIVES: usize = 2 * RDMA_RECEIVES;

/// The most messages under way to the client: as many as it has receives, at least.
const SENDS: usize = RDMA_RECEIVES;

/// How many buffers a connection has.
const BUFFERS: usize = RECEIVES + SENDS;

/// How much may be under way on a connection. Reads are those of the client.
pub(crate) const LIMITS: Limits = Limits {
    // One more asks whether the client is there.
    sends: SENDS as u32 + 1,
    receives: RECEIVES as u32,
    inline: 128,
    reads: 16,
};

/// How long a client may take to receive the last messages.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may be silent before its machine is probed, as TCP does.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The id of the probe, which no buffer has.
const ASK: u64 = u64::MAX;

/// The relay of one client.
pub(crate) struct Relay {
    // It goes before the buffers, which its device uses.
    connection: Connection,
    buffers: Buffer,
    stream: UnixStream,
    /// Buffers with bytes for the socket, and how many of these are written.
    arrived: VecDeque<Arrived>,
    /// Buffers to send from.
    free: Vec<usize>,
    completions: Vec<Completion>,
    heard: Instant,
    asking: bool,
    /// All bytes of the socket have been read.
    drained: bool,
    state: State,
}

struct Arrived {
    buffer: usize,
    from: usize,
    to: usize,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The server has ended it. Its last messages may be sent until then.
    Ending(Instant),
    /// The client has ended it. The server still gets what it sent before.
    Closed,
    /// It broke.
    Broken,
}

impl Relay {
    /// Memory for the messages of a connection, with all receives posted into its first buffers.
    pub(crate) fn prepare(connection: &mut Connection) -> Result<Buffer, Error> {
        let buffers = Buffer::new(&connection.domain(), BUFFERS * RDMA_SEND)?;
        let receive = |n| Ok((n as u64, buffers.piece(n * RDMA_SEND, RDMA_SEND)?));
        let all: Result<Vec<_>, Error> = (0..RECEIVES).map(receive).collect();
        connection.post_receives(&all?)?;
        Ok(buffers)
    }

    /// A connection that is accepted, with all receives posted, and a socket
    /// that does not block.
    pub(crate) fn new(connection: Connection, buffers: Buffer, stream: UnixStream) -> Relay {
        Relay {
            connection,
            buffers,
            stream,
            arrived: VecDeque::new(),
            free: (RECEIVES..BUFFERS).collect(),
            completions: Vec::new(),
            heard: Instant::now(),
            asking: false,
            drained: false,
            state: State::Open,
        }
    }

    /// Relays until either end is gone. If the connection breaks, cuts `socket`, the other end of
    /// the socket.
    pub(crate) fn run(mut self, socket: &Socket) {
        // An error leaves nothing to do but to end.
        if self.relay().is_err() || self.state == State::Broken {
            socket.cut();
        }
        self.connection.disconnect();
    }

    fn relay(&mut self) -> Result<(), Error> {
        loop {
            let mut busy = self.complete()?;
            busy |= self.deliver()?;
            busy |= self.collect()?;
            self.events()?;
            self.ask()?;
            let is_over = match self.state {
                State::Open => false,
                State::Ending(until) => (self.drained && self.is_sent()) || Instant::now() >= until,
                // More bytes may have come since the check above.
                State::Closed => self.arrived.is_empty() && !self.complete()?,
                State::Broken => true,
            };
            if is_over {
                return Ok(());
            }
            if busy {
                continue;
            }
            self.connection.clear_completion_events()?;
            self.connection.arm()?;
            // Completions from before have no event.
            if !self.complete()? {
                self.sleep();
            }
        }
    }

    /// Takes the device's completions. Returns whether there were any.
    fn complete(&mut self) -> Result<bool, Error> {
        let mut completions = std::mem::take(&mut self.completions);
        completions.clear();
        self.connection.poll(&mut completions)?;
        for done in &completions {
            match (done.status, done.kind) {
                (Err(_), _) => self.failed()?,
                (Ok(()), Kind::Work) if done.id == ASK => self.asking = false,
                (Ok(()), Kind::Work) => self.free.push(done.id as usize),
                (Ok(()), Kind::Receive(len)) => self.arrived.push_back(Arrived {
                    buffer: done.id as usize,
                    from: 0,
                    to: len as usize,
                }),
            }
            self.heard = Instant::now();
        }
        let any = !completions.is_empty();
        self.completions = completions;
        Ok(any)
    }

    /// Something was not done: the client has ended the connection, or it broke.
    fn failed(&mut self) -> Result<(), Error> {
        self.events()?;
        if self.state != State::Closed {
            self.state = State::Broken;
        }
        Ok(())
    }

    /// Writes what has arrived to the socket. Returns whether it took anything.
    fn deliver(&mut self) -> Result<bool, Error> {
        let mut any = false;
        while let Some(first) = self.arrived.front_mut() {
            // The device does not report more bytes than the buffer has.
            let len = first.to.min(RDMA_SEND) - first.from;
            let here = Part::Here(first.buffer * RDMA_SEND + first.from, len);
            let taken = if len == 0 {
                Ok(0)
            } else {
                self.buffers.send(&self.stream, &[here])
            };
            match taken {
                Ok(n) if n < len => first.from += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // All of it, or nobody is there to take it.
                _ => {
                    let buffer = first.buffer;
                    self.arrived.pop_front();
                    self.receive_again(buffer)?;
                }
            }
            any = true;
        }
        Ok(any)
    }

    fn receive_again(&mut self, buffer: usize) -> Result<(), Error> {
        if self.state == State::Closed {
            return Ok(());
        }
        let piece = self.buffers.piece(buffer * RDMA_SEND, RDMA_SEND)?;
        self.connection.post_receive(buffer as u64, &piece)
    }

    /// Sends the socket's bytes to the client. Returns whether there were any.
    fn collect(&mut self) -> Result<bool, Error> {
        let mut any = false;
        while let (false, Some(&buffer)) = (self.drained, self.free.last()) {
            let at = buffer * RDMA_SEND;
            match self.buffers.receive(at, RDMA_SEND, &self.stream) {
                Ok(0) => self.drained(),
                // Nobody is there to receive it.
                Ok(_) if self.state == State::Closed => {}
                Ok(n) => {
                    self.free.pop();
                    let piece = self.buffers.piece(at, n)?;
                    self.send(buffer as u64, Op::Send, piece.into())?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.drained(),
            }
            any = true;
        }
        Ok(any)
    }

    /// The server sends nothing more.
    fn drained(&mut self) {
        self.drained = true;
        self.end();
    }

    /// The remaining bytes have a limited time from now on.
    fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending(Instant::now() + LINGER);
        }
    }

    fn is_sent(&self) -> bool {
        self.free.len() == SENDS
    }

    fn send(&mut self, id: u64, op: Op, pieces: Pieces) -> Result<(), Error> {
        self.connection.post(&[Work {
            id,
            op,
            pieces,
            signaled: true,
            fence: false,
        }])
    }

    /// Handles the events of the connection.
    fn events(&mut self) -> Result<(), Error> {
        while let Some(event) = self.connection.next_event()? {
            match event {
                Event::Disconnected => self.state = State::Closed,
                Event::Failed(_) | Event::DeviceRemoval => self.state = State::Broken,
                _ => {}
            }
        }
        Ok(())
    }

    /// Probes a silent client's machine by an RDMA write of no bytes: its device answers, or the
    /// connection breaks.
    fn ask(&mut self) -> Result<(), Error> {
        let silent = self.heard.elapsed() >= KEEPALIVE;
        // Messages under way probe it as well.
        if silent && !self.asking && self.is_sent() && self.state == State::Open {
            self.asking = true;
            let nowhere = Op::Write { remote: 0, key: 0 };
            self.send(ASK, nowhere, Pieces::new(&[])?)?;
        }
        Ok(())
    }

    /// Waits until there is something to do.
    fn sleep(&mut self) {
        let takes = !self.free.is_empty() && !self.drained;
        let wants = |yes: bool, event| if yes { event } else { 0 };
        let stream = wants(takes, libc::POLLIN) | wants(!self.arrived.is_empty(), libc::POLLOUT);
        // It also wakes for its end, which is known once it is being ended.
        let known = stream == 0 && self.state != State::Open;
        let socket = if known { -1 } else { self.stream.as_raw_fd() };
        let fd = |fd, events| libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        let mut fds = [
            fd(self.connection.completion_fd(), libc::POLLIN),
            fd(self.connection.event_fd(), libc::POLLIN),
            fd(socket, stream),
        ];
        let longest = match self.state {
            State::Ending(until) => until.saturating_duration_since(Instant::now()),
            _ => KEEPALIVE
                .saturating_sub(self.heard.elapsed())
                .max(KEEPALIVE / 10),
        };
        let ms = longest.as_millis() as i32 + 1;
        // SAFETY: three descriptors, as said. Whatever it returns, the loop looks.
        unsafe { libc::poll(fds.as_mut_ptr(), 3, ms) };
        if fds[2].revents & libc::POLLHUP != 0 {
            // Also while the client takes nothing that could be read.
            self.end();
        }
    }
}
