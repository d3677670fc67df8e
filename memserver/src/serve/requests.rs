//! What a client asks for once it was greeted.

use crate::rdma::one_sided;
use crate::serve::compressed;
use crate::serve::connection::{Conn, End};
use crate::store::session::Session;
use crate::store::sessions::{Disconnect, bytes};
use crate::store::slab::Slab;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_wire::{Header, MAX_RUN, Op, SessionId, Status, decode_slab_list};

/// How long a GRANT waits for the memory of clients that are gone.
const ROOM: Duration = Duration::from_secs(2);

impl Conn {
    /// Does what the client asks, one request after another, until the connection ends.
    pub(crate) fn serve(&mut self, session: &Arc<Session>) -> Result<(), End> {
        loop {
            if self.out.is_full() {
                self.out.flush(&self.socket)?;
            }
            let header = self.request()?;
            if self.socket.is_cut() || self.socket.is_ending() {
                return Err(End::Broken);
            }
            if header.op != Op::Read && self.out.has_pages() {
                // They are sent as they were when they were asked for.
                self.out.flush(&self.socket)?;
            }
            let leaves = header.op == Op::Leave;
            if self.leaving.load(Ordering::Relaxed) != leaves {
                self.leaving.store(leaves, Ordering::Relaxed);
            }
            let begun = self.shared.latency.begin();
            match header.op {
                Op::Read => self.read(&header, session)?,
                Op::Write => self.write(&header, session)?,
                _ => self.other(&header, session)?,
            }
            self.shared.latency.end(header.op, begun);
        }
    }

    fn read(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        self.skip(header.len as usize)?;
        let slab = match header.len {
            0 => self.slab(header, session),
            _ => Err(Status::BadRequest),
        };
        match slab {
            Ok(slab) => {
                let read = &self.shared.pages_read;
                read.fetch_add(u64::from(header.count), Ordering::Relaxed);
                let rations = &self.shared.rations;
                if !header.packed || !self.out.packed(header, &slab, rations) {
                    self.out.pages(header, slab);
                }
            }
            Err(status) => self.out.refusal(header, status),
        }
        Ok(())
    }

    fn write(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        let writing = session.writing.read();
        let _writing = writing.unwrap_or_else(PoisonError::into_inner);
        let slab = self.slab(header, session).and_then(|slab| {
            if slab.is_shared() {
                return Err(Status::Shared);
            }
            Ok(slab)
        });
        match slab {
            Ok(slab) => {
                let to = slab.page(header.page);
                let len = bytes(header.count);
                if header.packed {
                    // SAFETY: the run lies within the slab, which is held.
                    if !unsafe { compressed::receive(self, header, to)? } {
                        self.out.refusal(header, Status::BadRequest);
                        return Ok(());
                    }
                } else {
                    // SAFETY: the run lies within the slab, which is held.
                    unsafe { self.payload(to, len)? };
                }
                slab.written(header.page, header.page + header.count);
                let written = &self.shared.pages_written;
                written.fetch_add(u64::from(header.count), Ordering::Relaxed);
                self.out.reply(header, Status::Ok, &[]);
            }
            Err(status) => {
                self.skip(header.len as usize)?;
                self.out.refusal(header, status);
            }
        }
        Ok(())
    }

    fn other(&mut self, header: &Header, session: &Session) -> Result<(), End> {
        let body = self.body(header)?;
        let answer = match header.op {
            Op::Ping => Ok(Vec::new()),
            Op::Release => decode_slab_list(&body)
                .map_err(|_| Status::BadRequest)
                .and_then(|list| session.release(&list))
                .map(|()| Vec::new()),
            _ if !body.is_empty() => Err(Status::BadRequest),
            Op::Grant => self
                .grant(header, session)
                .map(|list| tmem_wire::encode_slab_list(&list)),
            Op::Discard => self.slab(header, session).map(|slab| {
                slab.discard(header.page, header.page + header.count);
                Vec::new()
            }),
            Op::Share => self.share(session),
            Op::Keys => one_sided::key(self, header, session),
            Op::Stats => Ok(self.shared.stats().encode().to_vec()),
            Op::Leave => Ok(Vec::new()),
            Op::Bye => return Err(End::Bye(*header)),
            _ => Err(Status::BadRequest),
        };
        match answer {
            Ok(payload) => self.out.reply(header, Status::Ok, &payload),
            Err(status) => self.out.refusal(header, status),
        }
        Ok(())
    }

    /// Slabs, also of clients that are gone, where there are no others.
    fn grant(&self, header: &Header, session: &Session) -> Result<Vec<u32>, Status> {
        let patience = Instant::now() + ROOM;
        loop {
            let granted = session.grant(header.count);
            let again = matches!(granted, Err(Status::Full)) && Instant::now() < patience;
            if !again || !self.shared.sessions.make_room() {
                return granted;
            }
        }
    }

    fn share(&self, session: &Session) -> Result<Vec<u8>, Status> {
        let id = SessionId(random().map_err(|_| Status::Internal)?);
        let is_gone = || self.socket.is_ending() || self.socket.is_dead();
        let shared = self.shared.sessions.share(session, id, is_gone);
        if shared == Err(Status::Limit) {
            self.turned_away("a child: there are too many sessions that wait".to_owned());
        }
        shared.map(|()| id.0.to_vec())
    }

    /// The slab that a request addresses, if the whole run lies in it.
    fn slab(&self, header: &Header, session: &Session) -> Result<Arc<Slab>, Status> {
        let slab = session.slab(header.slab).ok_or(Status::NoSuchSlab)?;
        match header.count {
            0 => return Err(Status::BadRequest),
            1..=MAX_RUN => {}
            _ => return Err(Status::TooLarge),
        }
        let end = u64::from(header.page) + u64::from(header.count);
        if end > u64::from(self.shared.sessions.pool().slab_pages()) {
            return Err(Status::OutOfRange);
        }
        Ok(slab)
    }
}
