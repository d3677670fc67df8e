//! The records of the session table, as bytes.
//!
//! A record is the length of its body and the complement of that (4 bytes each), a checksum (8
//! bytes), the body, and zeros up to a multiple of 8. So a length that is there is right, and a
//! record that was not written to its end is told from one that was changed. The checksum covers
//! the place of the record too, so that bytes of an older record are not taken for one. All
//! integers are little-endian.

use crate::client::Client;
use crate::store::name::SessionName;
use sha2::{Digest, Sha256};

/// Bytes before the body of a record.
pub(super) const HEAD: usize = 16;

/// Where records begin.
pub(super) const ALIGN: usize = 8;

/// The longest body: a session with as many slabs as there can be (2^24 of them), and some.
pub(super) const MAX_BODY: usize = 256 << 20;

/// A slab that a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The session's number for it.
    pub(crate) number: u32,
    /// Which slab of the server it is.
    pub(crate) slab: u32,
    /// Where the bits of its pages are.
    pub(crate) bits: u32,
}

/// A change of the sessions that there are, or of what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// There is a session.
    Session {
        name: SessionName,
        client: Client,
        /// Nobody has joined it, and it lives with this one.
        parent: Option<SessionName>,
        /// The number of its next slab.
        next: u32,
        slabs: Vec<Held>,
    },
    /// A session got slabs.
    Grant {
        name: SessionName,
        next: u32,
        slabs: Vec<Held>,
    },
    /// A session gave slabs back.
    Release {
        name: SessionName,
        numbers: Vec<u32>,
    },
    /// Somebody has joined a session that lived with its parent.
    Joined(SessionName),
    /// A session has ended.
    End(SessionName),
}

impl Record {
    /// The record as it stands at a place of the table.
    pub(super) fn encode(&self, at: u64) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Record::Session {
                name,
                client,
                parent,
                next,
                slabs,
            } => {
                body.push(1);
                body.extend(name.0);
                body.extend(client.to_bytes());
                body.extend(parent.map_or([0; 16], |p| p.0));
                body.extend(next.to_le_bytes());
                put_slabs(&mut body, slabs);
            }
            Record::Grant { name, next, slabs } => {
                body.push(2);
                body.extend(name.0);
                body.extend(next.to_le_bytes());
                put_slabs(&mut body, slabs);
            }
            Record::Release { name, numbers } => {
                body.push(3);
                body.extend(name.0);
                body.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            }
            Record::Joined(name) => {
                body.push(4);
                body.extend(name.0);
            }
            Record::End(name) => {
                body.push(5);
                body.extend(name.0);
            }
        }
        let len = body.len() as u32;
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend((!len).to_le_bytes());
        bytes.extend(checksum(at, &body));
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes
    }

    /// What the body of a record says; `None` when it says nothing known.
    pub(super) fn decode(body: &[u8]) -> Option<Record> {
        let (kind, body) = body.split_first()?;
        let (name, body) = body.split_first_chunk::<16>()?;
        let name = SessionName(*name);
        match (kind, body) {
            (1, body) => {
                let (client, body) = body.split_first_chunk::<16>()?;
                let (parent, body) = body.split_first_chunk::<16>()?;
                let (next, body) = body.split_first_chunk::<4>()?;
                Some(Record::Session {
                    name,
                    client: Client::from_bytes(*client),
                    parent: Some(SessionName(*parent)).filter(|p| p.0 != [0; 16]),
                    next: u32::from_le_bytes(*next),
                    slabs: get_slabs(body)?,
                })
            }
            (2, body) => {
                let (next, body) = body.split_first_chunk::<4>()?;
                Some(Record::Grant {
                    name,
                    next: u32::from_le_bytes(*next),
                    slabs: get_slabs(body)?,
                })
            }
            (3, body) => Some(Record::Release {
                name,
                numbers: words(body)?.collect(),
            }),
            (4, []) => Some(Record::Joined(name)),
            (5, []) => Some(Record::End(name)),
            _ => None,
        }
    }
}

/// The checksum of a body at a place of the table.
pub(super) fn checksum(at: u64, body: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(at.to_le_bytes());
    hash.update(body);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hash.finalize()[..8]);
    sum
}

fn put_slabs(body: &mut Vec<u8>, slabs: &[Held]) {
    let words = |h: &Held| [h.number, h.slab, h.bits];
    body.extend(slabs.iter().flat_map(words).flat_map(u32::to_le_bytes));
}

fn get_slabs(body: &[u8]) -> Option<Vec<Held>> {
    if !body.len().is_multiple_of(12) {
        return None;
    }
    let mut words = words(body)?;
    let mut slabs = Vec::with_capacity(body.len() / 12);
    while let (Some(number), Some(slab), Some(bits)) = (words.next(), words.next(), words.next()) {
        slabs.push(Held { number, slab, bits });
    }
    Some(slabs)
}

fn words(body: &[u8]) -> Option<impl Iterator<Item = u32>> {
    let word = |c: &[u8]| u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
    let whole = body.len().is_multiple_of(4);
    whole.then(|| body.chunks_exact(4).map(word))
}
