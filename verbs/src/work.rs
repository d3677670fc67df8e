//! Work for the sending queue.

use crate::abi::{self, SendWr};
use crate::error::Error;
use crate::memory::Piece;
use std::ffi::c_int;
use std::ptr::null_mut;

/// The most pieces of one work. Some devices may allow fewer.
pub const MAX_PIECES: usize = 4;

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The pieces' bytes go to the other end's next receive.
    Send,
    /// The pieces are filled from the other end's memory.
    Read {
        /// Where the bytes begin there.
        remote: u64,
        /// The key of the region there.
        key: u32,
    },
    /// The pieces' bytes go to the other end's memory, one after the other.
    Write {
        /// Where they go there.
        remote: u64,
        /// The key of the region there.
        key: u32,
    },
}

/// The local memory of one work: at most [`MAX_PIECES`] pieces.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    pieces: [Piece; MAX_PIECES],
    count: u8,
}

impl Pieces {
    /// These pieces.
    ///
    /// # Errors
    ///
    /// [`Error::Pieces`] if they are too many.
    pub fn new(given: &[Piece]) -> Result<Pieces, Error> {
        let mut pieces = [Piece(abi::Sge::default()); MAX_PIECES];
        pieces
            .get_mut(..given.len())
            .ok_or(Error::Pieces(given.len()))?
            .copy_from_slice(given);
        Ok(Pieces {
            pieces,
            count: given.len() as u8,
        })
    }

    /// The pieces.
    #[must_use]
    pub fn as_slice(&self) -> &[Piece] {
        &self.pieces[..usize::from(self.count)]
    }

    /// How many bytes all pieces have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.as_slice().iter().map(Piece::len).sum()
    }
}

impl From<Piece> for Pieces {
    fn from(piece: Piece) -> Pieces {
        let mut pieces = [Piece(abi::Sge::default()); MAX_PIECES];
        pieces[0] = piece;
        Pieces { pieces, count: 1 }
    }
}

/// Work for the sending queue. The works of a connection begin in the order in
/// which they are posted; the bytes of a send or write that is not inline have
/// to stay until it, or a signaled one posted later, completes.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The id of its completion.
    pub id: u64,
    /// The operation.
    pub op: Op,
    /// The local memory.
    pub pieces: Pieces,
    /// Whether it has a completion if it succeeds.
    pub signaled: bool,
    /// Whether it waits for the reads posted before it.
    pub fence: bool,
}

impl Work {
    /// The C form, which points to the pieces of this work.
    pub(crate) fn c_form(&self, inline: u32) -> SendWr {
        let (opcode, remote_addr, rkey) = match self.op {
            Op::Send => (abi::WR_SEND, 0, 0),
            Op::Read { remote, key } => (abi::WR_RDMA_READ, remote, key),
            Op::Write { remote, key } => (abi::WR_RDMA_WRITE, remote, key),
        };
        let mut send_flags = 0;
        if self.signaled {
            send_flags |= abi::SEND_SIGNALED;
        }
        if self.fence {
            send_flags |= abi::SEND_FENCE;
        }
        let outgoing = opcode != abi::WR_RDMA_READ;
        if outgoing && inline > 0 && self.pieces.bytes() <= inline as usize {
            send_flags |= abi::SEND_INLINE;
        }
        SendWr {
            wr_id: self.id,
            next: null_mut(),
            // `Piece` is an `Sge` and nothing else.
            sg_list: self.pieces.pieces.as_ptr().cast(),
            num_sge: c_int::from(self.pieces.count),
            opcode,
            send_flags,
            imm_data: 0,
            remote_addr,
            rkey,
            rest: [0; 9],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(length: u32) -> Piece {
        Piece(abi::Sge {
            addr: 4096,
            length,
            lkey: 7,
        })
    }

    fn work(op: Op, lengths: &[u32]) -> Work {
        let pieces: Vec<Piece> = lengths.iter().map(|length| piece(*length)).collect();
        Work {
            id: 1,
            op,
            pieces: Pieces::new(&pieces).unwrap(),
            signaled: false,
            fence: false,
        }
    }

    #[test]
    fn small_sends_and_writes_are_inline_and_reads_never() {
        let inline = |work: &Work, limit| work.c_form(limit).send_flags & abi::SEND_INLINE != 0;
        let write = Op::Write { remote: 0, key: 0 };
        assert!(inline(&work(Op::Send, &[60, 4]), 64));
        assert!(inline(&work(write, &[64]), 64));
        assert!(!inline(&work(Op::Send, &[60, 5]), 64));
        assert!(!inline(&work(Op::Read { remote: 0, key: 0 }, &[8]), 64));
        assert!(!inline(&work(Op::Send, &[]), 0));
    }

    #[test]
    fn more_pieces_than_fit_are_an_error() {
        let many = [piece(1); MAX_PIECES + 1];
        assert!(matches!(Pieces::new(&many), Err(Error::Pieces(count)) if count == many.len()));
        assert_eq!(Pieces::new(&many[1..]).unwrap().bytes(), MAX_PIECES);
        assert_eq!(Pieces::from(piece(9)).bytes(), 9);
    }
}
