//! What becomes of an engine's requests.

use super::{OWN, Proxy};
use crate::Error;
use crate::inbound::Request;
use crate::keys::Remote;
use crate::work::Job;
use tmem_wire::{
    ACCESS_READ, ACCESS_WRITE, HEADER_LEN, Header, Op, PAGE_SIZE, Status, decode_slab_list,
};

impl Proxy {
    /// Carries a request out, or returns it if it has to wait.
    pub(super) fn take(&mut self, request: Request) -> Result<Option<Request>, Error> {
        if matches!(request, Request::Read(_) | Request::Write(..)) && self.through {
            return Ok(self.lead_through(request));
        }
        match request {
            Request::Refused(header, status) => self.refuse(&header, status),
            Request::Read(header) => {
                let len = header.count as usize * PAGE_SIZE;
                match self.remote(&header, false) {
                    Ok(None) => return Ok(Some(request)),
                    Err(status) => self.refuse(&header, status),
                    Ok(Some(remote)) => {
                        let Some(place) = self.staging.take_read(len) else {
                            return Ok(Some(request));
                        };
                        let job = Job {
                            header,
                            place,
                            write: false,
                        };
                        self.jobs.pages(job, remote, &self.staging)?;
                    }
                }
            }
            Request::Write(header, place) => match self.remote(&header, true) {
                Ok(None) => return Ok(Some(request)),
                Err(status) => {
                    self.staging.give(place);
                    self.refuse(&header, status);
                }
                Ok(Some(remote)) => {
                    let job = Job {
                        header,
                        place,
                        write: true,
                    };
                    self.jobs.pages(job, remote, &self.staging)?;
                }
            },
            // The server cannot give back single pages of a slab that its device may
            // access. So it need not hear of it.
            Request::Other(header, _) if header.op == Op::Discard => {
                self.out.say(header.reply(Status::Ok, 0).encode().to_vec());
            }
            Request::Other(header, bytes) => {
                if header.op == Op::Share {
                    if !self.jobs.has_no_pages() {
                        return Ok(Some(Request::Other(header, bytes)));
                    }
                    self.sharing = true;
                }
                if let (Op::Release, Ok(slabs)) =
                    (header.op, decode_slab_list(&bytes[HEADER_LEN..]))
                {
                    self.keys.forget(&slabs);
                }
                self.bye |= header.op == Op::Bye;
                self.to_server.extend_from_slice(&bytes);
            }
        }
        Ok(None)
    }

    /// Passes a request for pages on to the server, or returns it if it has to wait.
    fn lead_through(&mut self, request: Request) -> Option<Request> {
        // Requests keep their order with the transfers of the device.
        if !self.jobs.has_no_pages() {
            return Some(request);
        }
        match request {
            Request::Read(header) => self.to_server.extend_from_slice(&header.encode()),
            Request::Write(header, place) => {
                self.to_server.extend_from_slice(&header.encode());
                self.staging.append_to(&mut self.to_server, place);
                self.staging.give(place);
            }
            other => return Some(other),
        }
        None
    }

    /// Where pages lie in the server's memory; `None` while the server is asked.
    fn remote(&mut self, header: &Header, write: bool) -> Result<Option<Remote>, Status> {
        if let Some(status) = self.refused.take() {
            return Err(status);
        }
        let end = u64::from(header.page) + u64::from(header.count);
        if end > u64::from(self.slab_pages) {
            return Err(Status::OutOfRange);
        }
        if let Some(remote) = self.keys.find(header.slab, header.page, write) {
            return Ok(Some(remote));
        }
        let ask = Header {
            slab: header.slab,
            page: if write { ACCESS_WRITE } else { ACCESS_READ },
            ..Header::request(Op::Keys, OWN)
        };
        self.to_server.extend_from_slice(&ask.encode());
        self.asked = Some((header.slab, write));
        Ok(None)
    }

    fn refuse(&mut self, header: &Header, status: Status) {
        self.out.say(header.reply(status, 0).encode().to_vec());
    }
}
