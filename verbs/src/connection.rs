//! A connection.

use crate::abi::{ConnParam, RecvWr, SendWr};
use crate::completion::{Completion, Kind, Status};
use crate::device;
use crate::error::Error;
use crate::event::Event;
use crate::limits::Limits;
use crate::manager::Endpoint;
use crate::memory::{Domain, Piece};
use crate::pair::Pair;
use crate::queue::{CompletionChannel, CompletionQueue};
use crate::work::Work;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::Arc;

/// One end of a reliable connection. Dropping it ends the connection for both.
pub struct Connection {
    // Fields are dropped in this order: the queue pair uses the queues, the queues use the
    // channel, and all use the endpoint's device.
    pub(crate) pair: Pair,
    sends: CompletionQueue,
    receives: CompletionQueue,
    completions: CompletionChannel,
    domain: Arc<Domain>,
    pub(crate) endpoint: Endpoint,
    limits: Limits,
    pub(crate) private: Vec<u8>,
    disconnected: bool,
    /// Room for the C form of works that are posted. Its pointers are only valid while posting.
    works: Vec<SendWr>,
    posts: Vec<RecvWr>,
}

// SAFETY: the pointers in `works` and `posts` are used while posting only; all
// else is Send by itself.
unsafe impl Send for Connection {}

impl Connection {
    /// The queues of an end whose device is known.
    pub(crate) fn build(endpoint: Endpoint, limits: &Limits) -> Result<Connection, Error> {
        let library = endpoint.library();
        let context = endpoint.context().ok_or(Error::NoDevice)?;
        // SAFETY: the endpoint has the device open, and so has the domain; all
        // that is made here goes before the endpoint, as the order of the
        // fields says, and before that as the order of these lines does.
        unsafe {
            let attr = device::query(library, context)?;
            let mut limits = limits.clip(&attr);
            let domain = Domain::new(library, context)?;
            let completions = CompletionChannel::new(library, context)?;
            let sends = CompletionQueue::new(&completions, context, limits.sends)?;
            let receives = CompletionQueue::new(&completions, context, limits.receives)?;
            let pieces = u32::try_from(attr.max_sge).unwrap_or(1);
            let pair = Pair::new(&endpoint, &domain, &sends, &receives, pieces, &mut limits)?;
            Ok(Connection {
                pair,
                sends,
                receives,
                completions,
                domain: Arc::new(domain),
                endpoint,
                limits,
                private: Vec::new(),
                disconnected: false,
                works: Vec::new(),
                posts: Vec::new(),
            })
        }
    }

    /// The parameters of both ends when they connect.
    pub(crate) fn param(&self, private: &[u8]) -> ConnParam {
        ConnParam {
            private_data: private.as_ptr().cast(),
            // Longer ones were refused before.
            private_data_len: private.len() as u8,
            responder_resources: self.limits.reads,
            initiator_depth: self.limits.reads,
            flow_control: 1,
            // The most there is; a receiver that is not ready is waited for
            // without end, as its end is told by the connection's.
            retry_count: 7,
            rnr_retry_count: 7,
            srq: 0,
            qp_num: 0,
        }
    }

    /// The protection domain, which is this connection's own.
    #[must_use]
    pub fn domain(&self) -> Arc<Domain> {
        Arc::clone(&self.domain)
    }

    /// How much may be under way at once.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The private data that the other end sent when the connection was made. The network may
    /// have added zero bytes at its end.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private
    }

    /// The other end's address.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.endpoint.peer()
    }

    /// Posts a receive: the next message goes to the piece.
    ///
    /// # Errors
    ///
    /// [`Error::Post`].
    pub fn post_receive(&mut self, id: u64, buf: &Piece) -> Result<(), Error> {
        self.post_receives(&[(id, *buf)])
    }

    /// Posts several receives at once, each with its id.
    ///
    /// # Errors
    ///
    /// [`Error::Post`], which says how many were posted.
    pub fn post_receives(&mut self, receives: &[(u64, Piece)]) -> Result<(), Error> {
        self.posts.clear();
        self.posts.extend(receives.iter().map(|(id, piece)| RecvWr {
            wr_id: *id,
            next: null_mut(),
            sg_list: &raw const piece.0,
            num_sge: 1,
        }));
        if self.posts.is_empty() {
            return Ok(());
        }
        let first = self.posts.as_mut_ptr();
        for next in 1..self.posts.len() {
            // SAFETY: both are inside the vector.
            unsafe { (*first.add(next - 1)).next = first.add(next) };
        }
        // SAFETY: linked in the order in which they are; the pieces are the
        // caller's, which are there.
        unsafe { self.pair.post_receives(first) }
    }

    /// Posts works, all at once.
    ///
    /// # Errors
    ///
    /// [`Error::Post`], which says how many were posted.
    pub fn post(&mut self, batch: &[Work]) -> Result<(), Error> {
        self.works.clear();
        let inline = self.limits.inline;
        self.works
            .extend(batch.iter().map(|work| work.c_form(inline)));
        if self.works.is_empty() {
            return Ok(());
        }
        let first = self.works.as_mut_ptr();
        for next in 1..self.works.len() {
            // SAFETY: both are inside the vector.
            unsafe { (*first.add(next - 1)).next = first.add(next) };
        }
        // SAFETY: linked in the order in which they are; the pieces are inside
        // the caller's works, which are there.
        unsafe { self.pair.post_works(first) }
    }

    /// Takes all completions that are there, those of works first; returns how
    /// many.
    ///
    /// # Errors
    ///
    /// [`Error::Call`]. The connection is broken then.
    pub fn poll(&mut self, out: &mut Vec<Completion>) -> Result<usize, Error> {
        let before = out.len();
        self.sends.poll(|wc| {
            out.push(Completion {
                id: wc.wr_id,
                kind: Kind::Work,
                status: Status::from_c(wc.status),
            });
        })?;
        self.receives.poll(|wc| {
            let status = Status::from_c(wc.status);
            // The length of a failed receive means nothing.
            let bytes = status.map_or(0, |()| wc.byte_len);
            out.push(Completion {
                id: wc.wr_id,
                kind: Kind::Receive(bytes),
                status,
            });
        })?;
        Ok(out.len() - before)
    }

    /// Asks for one completion event. Completions from before have none: poll once more before
    /// waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn arm(&mut self) -> Result<(), Error> {
        self.sends.arm()?;
        self.receives.arm()
    }

    /// Readable when there is a completion event.
    #[must_use]
    pub fn completion_fd(&self) -> RawFd {
        self.completions.fd()
    }

    /// Takes all completion events, so that the descriptor is not readable.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn clear_completion_events(&mut self) -> Result<(), Error> {
        self.completions
            .clear([&mut self.sends, &mut self.receives])
    }

    /// Readable when there is an [`Event`].
    #[must_use]
    pub fn event_fd(&self) -> RawFd {
        self.endpoint.events().fd()
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let Some(happened) = self.endpoint.events().next()? else {
            return Ok(None);
        };
        let event = Event::from_c(happened.kind(), happened.status());
        // What follows may need the event to be acknowledged.
        drop(happened);
        if event == Event::Disconnected {
            // Answers the other end, and flushes what is under way.
            self.disconnect();
        }
        Ok(Some(event))
    }

    /// Ends the connection: informs the other end, and flushes everything that is under way.
    pub fn disconnect(&mut self) {
        if self.disconnected {
            return;
        }
        self.disconnected = true;
        let disconnect = self.endpoint.library().manager.rdma_disconnect;
        // SAFETY: the id is there. It fails where there is no connection, or
        // none any more, and that is what is wanted.
        unsafe { disconnect(self.endpoint.raw()) };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
