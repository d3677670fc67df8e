//! The memory of the tier: address space in pieces, in which segments have memory.

use super::log::SEGMENT;
use crate::sys::area::Area;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use alloc::vec::Vec;

/// Segments of a piece of address space.
const PER_PIECE: usize = 64;

/// The memory of segments. Each has a number, which says where it lies.
#[derive(Debug)]
pub(super) struct Segments {
    space: &'static Space,
    pieces: Vec<Area>,
    /// Numbers that were used before and are free, and the first that was never used.
    spare: Vec<u32>,
    fresh: u32,
}

impl Segments {
    pub(super) fn new(space: &'static Space) -> Segments {
        Segments {
            space,
            pieces: Vec::new(),
            spare: Vec::new(),
            fresh: 0,
        }
    }

    /// Returns the same segments in a forked child, which has copies of their memory.
    ///
    /// # Safety
    /// The other value is not used in this process any more.
    pub(super) unsafe fn inherited(&self) -> Segments {
        Segments {
            space: self.space,
            // SAFETY: by the caller.
            pieces: self
                .pieces
                .iter()
                .map(|piece| unsafe { piece.inherited() })
                .collect(),
            spare: self.spare.clone(),
            fresh: self.fresh,
        }
    }

    /// Returns its address space.
    pub(super) fn regions(&self) -> impl Iterator<Item = Region> {
        self.pieces.iter().map(Area::region)
    }

    /// Takes memory for a segment, which is all zeros. Returns `None` if there is no address
    /// space.
    pub(super) fn take(&mut self) -> Option<u32> {
        let number = match self.spare.pop() {
            Some(number) => number,
            None => {
                if self.fresh as usize == self.pieces.len() * PER_PIECE {
                    let piece = Area::for_children_too(self.space, PER_PIECE * SEGMENT).ok()?;
                    self.pieces.push(piece);
                }
                self.fresh += 1;
                self.fresh - 1
            }
        };
        // All of it at once: the memory in use is known then.
        let (piece, at) = place(number);
        self.pieces[piece].populate(at, SEGMENT);
        Some(number)
    }

    /// Gives the memory of a segment back to the kernel.
    pub(super) fn give_back(&mut self, number: u32) {
        let (piece, at) = place(number);
        self.pieces[piece].give_back(at, SEGMENT);
        self.spare.push(number);
    }

    /// Returns `len` bytes of a segment.
    pub(super) fn bytes(&self, number: u32, offset: usize, len: usize) -> &[u8] {
        let (piece, at) = place(number);
        self.pieces[piece].bytes(at + offset, len)
    }

    /// Returns `len` bytes of a segment, to be changed.
    pub(super) fn bytes_mut(&mut self, number: u32, offset: usize, len: usize) -> &mut [u8] {
        let (piece, at) = place(number);
        self.pieces[piece].bytes_mut(at + offset, len)
    }
}

/// The piece that a segment is in, and its offset there.
fn place(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / PER_PIECE, number % PER_PIECE * SEGMENT)
}
