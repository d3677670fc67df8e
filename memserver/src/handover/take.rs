//! The new process: takes over what another has.

use super::{ASK, GIVE, Inherited, LAST, PATIENCE, READY, hears, name, trusted};
use crate::store::files::Opened;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Descriptors that are received at most: the socket, three files, a folder.
const MOST: usize = 5;

/// What another process has, and waits to be told that this one goes on with it.
#[derive(Debug)]
pub(crate) struct Taken(UnixStream);

/// Asks the process that listens at one of these addresses for what it has, which has its files
/// in a folder or not; `None` where there is none.
///
/// # Errors
/// Where it does not answer, or not as one should.
pub(crate) fn take(
    addrs: &[SocketAddr],
    in_folder: bool,
) -> io::Result<Option<(Inherited, Taken)>> {
    let found = addrs.iter().find_map(|addr| {
        let name = name(*addr).ok()?;
        UnixStream::connect_addr(&name).ok()
    });
    let Some(stream) = found else {
        return Ok(None);
    };
    if trusted(&stream).is_none() {
        return Err(io::Error::other("it belongs to another user"));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    (&stream).write_all(ASK)?;
    let mut descriptors = receive(&stream)?.into_iter();
    let mut next = || {
        let missing = || io::Error::other("it has sent too little");
        descriptors.next().ok_or_else(missing)
    };
    let listener = TcpListener::from(next()?);
    let (table, bits, pages) = (next()?, next()?, next()?);
    let lock = descriptors.next();
    let wrong = match (&lock, in_folder) {
        (Some(_), false) => Some("its memory is in a folder: give the same --backing"),
        (None, true) => Some("its memory is in no folder: leave --backing out, or restart it"),
        _ => None,
    };
    if let Some(text) = wrong {
        return Err(io::Error::other(text));
    }
    let files = Opened {
        table,
        bits,
        pages,
        lock,
    };
    let inherited = Inherited {
        listener: Some(listener),
        files: Some(files),
    };
    Ok(Some((inherited, Taken(stream))))
}

impl Taken {
    /// This process goes on; the other ends.
    ///
    /// # Errors
    /// Where the other goes on: nothing may be changed.
    pub(crate) fn go_on(self) -> io::Result<()> {
        (&self.0).write_all(READY)?;
        match hears(&self.0, LAST) {
            true => Ok(()),
            false => Err(io::Error::other("it goes on itself")),
        }
    }
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut word = [0; GIVE.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut word)];
    let got = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(all) => Some(all),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    if got.bytes != GIVE.len() || word != *GIVE {
        return Err(io::Error::other("it does not hand itself over"));
    }
    Ok(descriptors)
}
