//! Carries the stream of one client between its RDMA connection and a socket,
//! on whose other end it is served like a client over TCP.
//!
//! Whoever falls behind makes the other wait: a message is only taken off the
//! device's queue for good once its bytes have gone into the socket, and bytes
//! are only taken out of the socket when there is a buffer to send them from.

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

/// Receives that are posted: twice as many as the client may count on, so that
/// it still can while some are being used up.
const RECEIVES: usize = 2 * RDMA_RECEIVES;

/// Messages under way to the client: as many as it has receives at least.
const SENDS: usize = RDMA_RECEIVES;

/// How many buffers a connection has.
const BUFFERS: usize = RECEIVES + SENDS;

/// What may be under way of a connection. Reads are those of the client.
pub(crate) const LIMITS: Limits = Limits {
    // One more asks whether the client is there.
    sends: SENDS as u32 + 1,
    receives: RECEIVES as u32,
    inline: 128,
    reads: 16,
};

/// How long a client that is told to go may take to receive the last words.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may be silent before it is asked whether its machine is
/// there, as TCP does.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The id of that question, which no buffer has.
const ASK: u64 = u64::MAX;

/// Carries one client's bytes.
pub(crate) struct Relay {
    // It goes before the buffers, which its device uses.
    connection: Connection,
    buffers: Buffer,
    stream: UnixStream,
    /// Buffers with bytes for the socket, and how far these have gone.
    arrived: VecDeque<Arrived>,
    /// Buffers to send from.
    free: Vec<usize>,
    completions: Vec<Completion>,
    heard: Instant,
    asking: bool,
    /// All of the socket's bytes have been taken.
    drained: bool,
    state: State,
}

struct Arrived {
    buffer: usize,
    from: usize,
    to: usize,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The server has ended it; until then its last words may be sent.
    Ending(Instant),
    /// The client has ended it; what it sent before is still for the server.
    Closed,
    /// It broke.
    Broken,
}

impl Relay {
    /// Memory for the messages of a connection, with all receives posted: for
    /// these are the first of its buffers.
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

    /// Pumps until either end is gone. When the connection broke, `socket`, the
    /// other end of the socket, is cut.
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
                // It may have sent something since the look at the top.
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
            // What came before that has no event.
            if !self.complete()? {
                self.sleep();
            }
        }
    }

    /// Takes what the device has done; whether it was anything.
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

    /// Gives to the socket what has arrived; whether it took anything.
    fn deliver(&mut self) -> Result<bool, Error> {
        let mut any = false;
        while let Some(first) = self.arrived.front_mut() {
            // The device does not say more than the buffer has.
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

    /// Sends what the socket has; whether there was anything.
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

    /// The server has nothing more to say.
    fn drained(&mut self) {
        self.drained = true;
        self.end();
    }

    /// What is left to be sent has a moment from now on.
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

    /// Follows what happened to the connection.
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

    /// Asks whether a silent client's machine is there, by writing nothing to
    /// it: the device answers, or the connection breaks.
    fn ask(&mut self) -> Result<(), Error> {
        let silent = self.heard.elapsed() >= KEEPALIVE;
        // What is being sent asks as well.
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
