//! The session table: a file to which each change is appended before it counts.
//!
//! A page says what the table is, the next where its records begin. A process that is killed
//! at any point leaves records that are whole, and at most one that is not, at the end. When
//! the records have grown to several times what they amount to, they are written anew behind the
//! old ones, and the second page is told to begin there: 16 bytes, written at once.

use super::record::{ALIGN, HEAD, MAX_BODY, Record, checksum};
use super::state::State;
use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};
use rustix::io::{pread, pwrite};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

/// The layout of the table and of the files beside it.
const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TMEMSESS";

/// Where it is said where the records begin.
const START: u64 = 4096;

/// Where the first records begin.
const FIRST: u64 = 8192;

/// Room is taken ahead in steps of so many bytes, so that what frees memory can be noted when
/// there is none left.
const AHEAD: u64 = 256 << 10;

/// So much of it is for that alone.
const SPARE: u64 = 64 << 10;

/// Records are not written anew before they take so much.
const SMALL: u64 = 1 << 20;

/// Nor before they take so many times what they amount to.
const GROWTH: u64 = 4;

/// What a table says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The server's, by which clients know it.
    pub(crate) instance: [u8; 16],
    /// Pages of each slab.
    pub(crate) slab_pages: u32,
}

/// Why a table cannot be used.
#[derive(Debug, Error)]
pub enum TableError {
    /// It is none.
    #[error("it is not a session table of tmem-memserver")]
    Foreign,
    /// Another release has written it.
    #[error("it has version {0}, and this is version {VERSION}")]
    Version(u32),
    /// It is damaged.
    #[error("it is damaged at byte {0}")]
    Damaged(u64),
    /// The system failed.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for TableError {
    fn from(error: rustix::io::Errno) -> TableError {
        TableError::System(error.into())
    }
}

/// The table, and what its records amount to.
#[derive(Debug)]
pub(crate) struct Table {
    file: OwnedFd,
    identity: Identity,
    state: State,
    start: u64,
    end: u64,
    /// The file has room up to here.
    room: u64,
    /// Records that are as large as this are written anew.
    most: u64,
    /// A change could not be noted that has happened, or the table was loaded: the records must
    /// be written anew before others are appended.
    is_stale: bool,
}

impl Table {
    /// An empty table in an empty file.
    pub(crate) fn create(file: OwnedFd, identity: Identity) -> io::Result<Table> {
        ftruncate(&file, 0)?;
        let mut page = MAGIC.to_vec();
        page.extend(VERSION.to_le_bytes());
        page.extend(identity.slab_pages.to_le_bytes());
        page.extend(identity.instance);
        page.extend(checksum(0, &page));
        write_all(&file, &page, 0)?;
        write_all(&file, &start_bytes(FIRST), START)?;
        Ok(Table {
            file,
            identity,
            state: State::default(),
            start: FIRST,
            end: FIRST,
            room: FIRST,
            most: SMALL,
            is_stale: false,
        })
    }

    /// The table in a file; `None` where it was not begun, or not begun to the end.
    pub(crate) fn load(file: OwnedFd) -> Result<Option<Table>, TableError> {
        let len = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let mut head = [0; 40];
        let got = read(&file, &mut head, 0)?;
        let mut start = [0; 16];
        let told = read(&file, &mut start, START)?;
        let is_begun = head[..8] == MAGIC && told == start.len() && start != [0; 16];
        if !is_begun {
            let is_empty = head[..got].iter().all(|b| *b == 0);
            let most = got.min(MAGIC.len());
            return match head[..most] == MAGIC[..most] || is_empty {
                true => Ok(None),
                false => Err(TableError::Foreign),
            };
        }
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(8) != VERSION {
            return Err(TableError::Version(word(8)));
        }
        if checksum(0, &head[..32]) != head[32..] {
            return Err(TableError::Damaged(0));
        }
        let mut instance = [0; 16];
        instance.copy_from_slice(&head[16..32]);
        let identity = Identity {
            instance,
            slab_pages: word(12),
        };
        let mut at = [0; 8];
        at.copy_from_slice(&start[..8]);
        let first = u64::from_le_bytes(at);
        if start_bytes(first) != start || first < FIRST || first > len.max(FIRST) {
            return Err(TableError::Damaged(START));
        }
        let mut table = Table {
            file,
            identity,
            state: State::default(),
            start: first,
            end: first,
            room: len.max(first),
            most: SMALL,
            // A record that is not whole may stand at the end.
            is_stale: true,
        };
        table.replay(len)?;
        Ok(Some(table))
    }

    /// What it says of itself.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// What the records amount to.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The file.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Takes in the records of the file, up to its end at `len` or one that is not whole.
    fn replay(&mut self, len: u64) -> Result<(), TableError> {
        loop {
            let at = self.end;
            let mut head = [0; HEAD];
            let got = read(&self.file, &mut head, at)?;
            let word = |at: usize| {
                head.iter()
                    .skip(at)
                    .take(4)
                    .rev()
                    .fold(0, |n, b| n << 8 | u32::from(*b))
            };
            let size = word(0);
            if got < ALIGN {
                return Ok(());
            }
            if head[..ALIGN] == [0; ALIGN] {
                return self.nothing_after(at, len);
            }
            if size != !word(4) || size as usize > MAX_BODY {
                return Err(TableError::Damaged(at));
            }
            let next = at + (HEAD + size as usize).next_multiple_of(ALIGN) as u64;
            if next > len {
                // Somebody has cut the file.
                return Ok(());
            }
            let mut body = vec![0; size as usize];
            read(&self.file, &mut body, at + HEAD as u64)?;
            if checksum(at, &body) != head[ALIGN..] {
                // It was being written: nothing is behind it.
                return self.nothing_after(next, len);
            }
            let record = Record::decode(&body).ok_or(TableError::Damaged(at))?;
            if !self.state.apply(&record) {
                return Err(TableError::Damaged(at));
            }
            self.end = next;
        }
    }

    /// Fails unless the file has only zeros from `from` on: where something is, what is
    /// before it was written to its end once, and is damaged now.
    fn nothing_after(&self, from: u64, len: u64) -> Result<(), TableError> {
        let mut at = from;
        let mut piece = vec![0; 64 << 10];
        while at < len {
            let got = read(&self.file, &mut piece, at)?;
            if got == 0 {
                break;
            }
            if piece[..got].iter().any(|b| *b != 0) {
                return Err(TableError::Damaged(self.end));
            }
            at += got as u64;
        }
        Ok(())
    }

    /// Notes a change that is about to happen, or for [`Record::Release`], [`Record::Joined`]
    /// and [`Record::End`] one that happens in any case.
    ///
    /// # Errors
    /// Where it is not noted: it must not happen, if it can be helped.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        if !self.state.apply(record) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let undone = match record {
            Record::Session { name, .. } => Some(Record::End(*name)),
            Record::Grant { name, slabs, .. } => Some(Record::Release {
                name: *name,
                numbers: slabs.iter().map(|h| h.number).collect(),
            }),
            _ => None,
        };
        let written = self.write(record, undone.is_none());
        match (&written, undone) {
            (Err(_), Some(undone)) => {
                self.state.apply(&undone);
            }
            (Err(_), None) => self.is_stale = true,
            _ => {}
        }
        written
    }

    fn write(&mut self, record: &Record, frees: bool) -> io::Result<()> {
        if self.is_stale {
            // With this change, as the state has it.
            return self.renew();
        }
        let bytes = record.encode(self.end);
        let end = self.end + bytes.len() as u64;
        let spare = if frees { 0 } else { SPARE };
        if end + spare > self.room {
            let more = fallocate(
                &self.file,
                FallocateFlags::empty(),
                self.room,
                end + AHEAD - self.room,
            );
            match more {
                Ok(()) => self.room = end + AHEAD,
                Err(_) if end <= self.room && frees => {}
                Err(error) => return Err(error.into()),
            }
        }
        write_all(&self.file, &bytes, self.end).inspect_err(|_| {
            // What of it is there must not stand behind the next.
            let cut = ftruncate(&self.file, self.end);
            self.room = if cut.is_ok() { self.end } else { self.room };
        })?;
        self.end = end;
        if self.end - self.start > self.most {
            // It goes on as it is where that fails.
            self.most = self.most.saturating_mul(2);
            let _ = self.renew();
        }
        Ok(())
    }

    /// Writes the records anew: as few as amount to the same.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let start = self.room.max(self.end).next_multiple_of(4096);
        let mut bytes = Vec::new();
        for record in self.state.records() {
            bytes.extend(record.encode(start + bytes.len() as u64));
        }
        let end = start + bytes.len() as u64;
        let written = fallocate(
            &self.file,
            FallocateFlags::empty(),
            start,
            end + AHEAD - start,
        )
        .map_err(io::Error::from)
        .and_then(|()| write_all(&self.file, &bytes, start))
        .and_then(|()| write_all(&self.file, &start_bytes(start), START));
        if let Err(error) = written {
            let _ = ftruncate(&self.file, self.room);
            return Err(error);
        }
        // What was before takes no room any more. It is not read, also where it stays.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.file, punch, FIRST, start - FIRST);
        (self.start, self.end, self.room) = (start, end, end + AHEAD);
        self.most = SMALL.max((end - start).saturating_mul(GROWTH));
        self.is_stale = false;
        Ok(())
    }
}

/// What the second page says: where the records begin, and its checksum.
fn start_bytes(start: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&start.to_le_bytes());
    bytes[8..].copy_from_slice(&checksum(START, &start.to_le_bytes()));
    bytes
}

fn write_all(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| pwrite(&file, bytes, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                bytes = &bytes[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

/// Reads as much as there is.
fn read(file: impl AsFd, to: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < to.len() {
        let rest = &mut to[done..];
        match rustix::io::retry_on_intr(|| pread(&file, &mut *rest, at + done as u64))? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
