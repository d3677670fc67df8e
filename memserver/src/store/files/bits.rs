//! The bits that say which pages of a slab a session has stored, in a file that outlives the
//! server.
//!
//! The file is mapped, and a bit is set or cleared there and then: a server that is killed
//! leaves each as it was.

use crate::store::map::Mapping;
use rustix::fs::{FallocateFlags, fallocate};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bits of all slabs that sessions hold.
#[derive(Debug)]
pub(crate) struct Bits {
    file: OwnedFd,
    map: Mapping,
    /// Words of each place.
    words: usize,
    places: u32,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// This place and those after it were never taken.
    fresh: u32,
    back: Vec<u32>,
}

/// The place of one slab's bits, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    bits: Arc<Bits>,
    number: u32,
}

impl Bits {
    /// Maps a file with as many places as said, each for the bits of `pages` pages. Those of `taken` are in use.
    pub(crate) fn new(
        file: OwnedFd,
        places: u32,
        pages: u32,
        taken: impl Iterator<Item = u32>,
    ) -> io::Result<Arc<Bits>> {
        let words = pages.div_ceil(64) as usize;
        let len = words * 8 * places as usize;
        let map = Mapping::of_file(&file, len)?;
        let mut taken: Vec<u32> = taken.collect();
        taken.sort_unstable();
        let fresh = taken.last().map_or(0, |last| last + 1);
        let back = (0..fresh).filter(|place| taken.binary_search(place).is_err());
        let free = Free {
            fresh,
            back: back.collect(),
        };
        Ok(Arc::new(Bits {
            file,
            map,
            words,
            places,
            free: Mutex::new(free),
        }))
    }

    /// The file.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place whose bits are clear; none when there is no room.
    pub(crate) fn take(self: &Arc<Bits>) -> Option<Place> {
        let number = {
            let mut free = self.free();
            match free.back.pop() {
                Some(number) => number,
                None if free.fresh < self.places => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return None,
            }
        };
        let place = self.restore(number);
        let len = self.words as u64 * 8;
        let at = u64::from(number) * len;
        // Memory that is not there could not be had when a bit is set.
        fallocate(&self.file, FallocateFlags::empty(), at, len).ok()?;
        let clear = |w: &AtomicU64| w.store(0, Ordering::Release);
        place.words().iter().for_each(clear);
        Some(place)
    }

    /// A place that was in use.
    pub(crate) fn restore(self: &Arc<Bits>, number: u32) -> Place {
        Place {
            bits: self.clone(),
            number,
        }
    }
}

impl Place {
    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its bits, 64 in each word.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let words = self.bits.words;
        let at = self.number as usize * words;
        // SAFETY: the place lies within the mapping, which `bits` keeps, and is reached as
        // atomics only.
        unsafe { std::slice::from_raw_parts(self.bits.map.at(at * 8).cast::<AtomicU64>(), words) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bits.free().back.push(self.number);
    }
}
