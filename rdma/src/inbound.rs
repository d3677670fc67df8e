//! Requests of the engine, read from its stream.

use crate::staging::{MAX_PAGES, Place, Staging};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use tmem_wire::{DecodeError, HEADER_LEN, Header, Op, Status};

/// Bytes that are read at a time.
const BUFFER: usize = 16 << 10;

/// The stream, and the request that is being read.
#[derive(Debug)]
pub(crate) struct Inbound {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    state: State,
    ended: bool,
}

#[derive(Debug)]
enum State {
    Header,
    /// A WRITE, of whose pages `got` bytes have come.
    Pages {
        header: Header,
        place: Option<Place>,
        got: usize,
    },
    /// The payload of a request that is refused.
    Skip {
        header: Header,
        left: usize,
        status: Status,
    },
    /// Another message, with the bytes that have come.
    Message {
        header: Header,
        bytes: Vec<u8>,
    },
    Whole(Request),
}

/// A request that was read completely.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read(Header),
    Write(Header, Place),
    /// To be answered with this status, without the server.
    Refused(Header, Status),
    /// Any other request, in its own bytes.
    Other(Header, Vec<u8>),
}

impl Inbound {
    pub(crate) fn new() -> Inbound {
        Inbound {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            from: 0,
            to: 0,
            state: State::Header,
            ended: false,
        }
    }

    /// Whether the stream has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether reading has to wait for room for pages.
    pub(crate) fn wants_room(&self) -> bool {
        matches!(self.state, State::Pages { place: None, .. })
    }

    /// The next request, if all of it has come and there is room for it.
    ///
    /// # Errors
    /// When the stream is no longer understood.
    pub(crate) fn next(
        &mut self,
        stream: &mut UnixStream,
        staging: &mut Staging,
    ) -> io::Result<Option<Request>> {
        loop {
            match std::mem::replace(&mut self.state, State::Header) {
                State::Whole(request) => return Ok(Some(request)),
                other => self.state = other,
            }
            if !self.step(stream, staging)? {
                return Ok(None);
            }
        }
    }

    /// Takes a request back, to return it once more.
    pub(crate) fn put_back(&mut self, request: Request) {
        self.state = State::Whole(request);
    }

    /// Reads some more. Returns `false` if that has to wait.
    fn step(&mut self, stream: &mut UnixStream, staging: &mut Staging) -> io::Result<bool> {
        let buffered = self.to - self.from;
        match &mut self.state {
            State::Header => {
                let Some(head) = self.buffer[self.from..self.to].first_chunk::<HEADER_LEN>() else {
                    return self.fill(stream);
                };
                let header = Header::decode(head).map_err(|e| malformed(&e))?;
                self.from += HEADER_LEN;
                self.state = begin(header);
            }
            State::Pages { header, place, got } => {
                let all = header.len as usize;
                let Some(room) = place.or_else(|| staging.take_write(all)) else {
                    return Ok(false);
                };
                *place = Some(room);
                let n = if buffered > 0 {
                    let n = (all - *got).min(buffered);
                    let rest = Place {
                        at: room.at + *got,
                        len: n,
                    };
                    staging.put(rest, &self.buffer[self.from..self.from + n]);
                    self.from += n;
                    n
                } else {
                    // Large requests are read into the memory that the device reads.
                    match read(|| staging.receive(room, *got, stream))? {
                        Some(0) => return Ok(self.end()),
                        Some(n) => n,
                        None => return Ok(false),
                    }
                };
                *got += n;
                if *got == all {
                    self.state = State::Whole(Request::Write(*header, room));
                }
            }
            State::Skip {
                header,
                left,
                status,
            } => {
                let n = buffered.min(*left);
                self.from += n;
                *left -= n;
                if *left == 0 {
                    self.state = State::Whole(Request::Refused(*header, *status));
                } else {
                    return self.fill(stream);
                }
            }
            State::Message { header, bytes } => {
                let missing = HEADER_LEN + header.len as usize - bytes.len();
                let n = buffered.min(missing);
                bytes.extend_from_slice(&self.buffer[self.from..self.from + n]);
                self.from += n;
                if n == missing {
                    let bytes = std::mem::take(bytes);
                    self.state = State::Whole(Request::Other(*header, bytes));
                } else {
                    return self.fill(stream);
                }
            }
            State::Whole(_) => {}
        }
        Ok(true)
    }

    fn fill(&mut self, stream: &mut UnixStream) -> io::Result<bool> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        match read(|| stream.read(&mut self.buffer[self.to..]))? {
            Some(0) => Ok(self.end()),
            Some(n) => {
                self.to += n;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn end(&mut self) -> bool {
        self.ended = true;
        false
    }
}

fn begin(header: Header) -> State {
    let fits = (1..=MAX_PAGES).contains(&header.count);
    let refuse = |status| State::Skip {
        header,
        left: header.len as usize,
        status,
    };
    match header.op {
        Op::Read if header.len != 0 || header.count == 0 => refuse(Status::BadRequest),
        Op::Read if fits => State::Whole(Request::Read(header)),
        Op::Read => refuse(Status::TooLarge),
        Op::Write if fits => State::Pages {
            header,
            place: None,
            got: 0,
        },
        Op::Write => refuse(Status::TooLarge),
        _ => State::Message {
            header,
            bytes: header.encode().to_vec(),
        },
    }
}

/// Reads available bytes. Returns how many, 0 at the end of the stream, or `None` if none
/// are available.
///
/// An engine ends with its program, and may leave bytes unread. The kernel reports that once,
/// as a reset, before it returns the last bytes of the engine.
fn read(mut receive: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    let mut was_reset = false;
    loop {
        match receive() {
            Ok(n) => return Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                if was_reset {
                    return Ok(Some(0));
                }
                was_reset = true;
            }
            Err(e) => return Err(e),
        }
    }
}

fn malformed(error: &DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_engine_that_leaves_something_unread_has_ended_like_any_other() {
        let (mut agent, mut engine) = UnixStream::pair().expect("a pair of sockets");
        agent.write_all(b"an answer").expect("room for it");
        engine.write_all(b"the last word").expect("room for it");
        drop(engine);

        let mut heard = [0; 64];
        assert_eq!(read(|| agent.read(&mut heard)).expect("data"), Some(13));
        assert_eq!(&heard[..13], b"the last word");
        assert_eq!(read(|| agent.read(&mut heard)).expect("the end"), Some(0));
    }

    #[test]
    fn a_stream_that_is_reset_over_and_over_has_ended() {
        let reset = || Err(io::ErrorKind::ConnectionReset.into());
        assert_eq!(read(reset).expect("the end"), Some(0));
    }
}
