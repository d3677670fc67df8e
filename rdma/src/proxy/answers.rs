//! What the device has done, and what the server says.

use super::{OWN, Proxy};
use crate::Error;
use crate::keys::Answer;
use crate::staging::{Place, Staging};
use crate::work::Done;
use std::io;
use tmem_verbs::{Completion, Kind, Status as Outcome};
use tmem_wire::{HEADER_LEN, Header, HelloReply, Op, RDMA_RECEIVES, Status};

impl Proxy {
    /// Takes a completion of the device. Returns `false` if it ends the connection.
    pub(super) fn completed(&mut self, completion: &Completion) -> Result<bool, Error> {
        if let Err(status) = completion.status {
            // What was received before it broke has been dealt with. A server
            // that goes says so, and what is under way is flushed.
            return match status {
                Outcome::Flushed => Ok(false),
                status => Err(status.into()),
            };
        }
        match (Done::of(completion.id), completion.kind) {
            (Done::Received(slot), Kind::Receive(len)) if slot < RDMA_RECEIVES => {
                let place = Staging::from_server(slot);
                let len = (len as usize).min(place.len);
                let filled = Place { len, ..place };
                self.staging.append_to(&mut self.from_server, filled);
                let id = Done::receive(slot);
                self.conn.post_receive(id, &self.staging.piece(place)?)?;
                self.hear_server()?;
            }
            (Done::Sent(slot), Kind::Work) => self.jobs.sent(slot),
            (Done::Pages(id), Kind::Work) => {
                for job in self.jobs.done(id) {
                    let len = if job.write { 0 } else { job.place.len as u32 };
                    let reply = job.header.reply(Status::Ok, len);
                    self.out.say(reply.encode().to_vec());
                    if job.write {
                        self.staging.give(job.place);
                    } else {
                        self.out.pages(job.place);
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Passes the server's messages on, those of which all has come.
    fn hear_server(&mut self) -> Result<(), Error> {
        let mut from = 0;
        while let Some(head) = self.from_server[from..].first_chunk::<HEADER_LEN>() {
            let header = Header::decode(head)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let end = from + HEADER_LEN + header.len as usize;
            let Some(message) = self.from_server.get(from..end) else {
                break;
            };
            let (whole, body) = (message.to_vec(), &message[HEADER_LEN..]);
            from = end;
            let ok = header.status == Status::Ok;
            match header.op {
                Op::Keys if header.id == OWN => {
                    // Whatever the answer is, the request that needs the key is taken again.
                    match self.keys.answered(self.asked.take(), header.status, body) {
                        Answer::Known | Answer::AskAgain => {}
                        Answer::Unreachable => self.through = true,
                        Answer::Refused(status) => self.refused = Some(status),
                    }
                    continue;
                }
                Op::Hello | Op::Auth if ok => {
                    // In a reply to AUTH a proof follows, which is the client's to look at.
                    let told = body.get(..HelloReply::LEN).unwrap_or(body);
                    self.slab_pages = HelloReply::decode(told).map_or(0, |r| r.slab_pages);
                }
                Op::Share => {
                    self.sharing = false;
                    self.keys.shared();
                }
                _ => {}
            }
            self.out.say(whole);
        }
        self.from_server.drain(..from);
        Ok(())
    }
}
