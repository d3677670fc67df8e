//! The old process: hands over what it has.

use super::{ASK, GIVE, LAST, PATIENCE, READY, hears, name, trusted};
use crate::serve::shared::Shared;
use crate::store::files::Files;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::Level;

/// How long the name of a process that has just been taken over is waited for.
const NAME: Duration = Duration::from_secs(10);

/// Descriptors that are sent at most.
const MOST: usize = 5;

/// Offers what a server has to processes that ask, until one takes it or the server ends.
pub(crate) fn give(shared: &Arc<Shared>, files: &Files, tcp: &TcpListener, addr: SocketAddr) {
    let Some(listener) = listen(shared, addr) else {
        return;
    };
    while shared.wait(listener.as_fd()) {
        let asked = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) => continue,
        };
        let Some(process) = trusted(&asked) else {
            shared.warn("a process of another user asks to take this server over");
            continue;
        };
        match answer(shared, files, tcp, &asked, process) {
            Ok(()) => return,
            Err(error) => {
                let text = format!("no other process takes this server over: {error}");
                shared.config.say(Level::Error, &text);
            }
        }
    }
}

fn listen(shared: &Shared, addr: SocketAddr) -> Option<UnixListener> {
    let deadline = Instant::now() + NAME;
    loop {
        let bound = name(addr).and_then(|name| UnixListener::bind_addr(&name));
        match bound.and_then(|bound| bound.set_nonblocking(true).map(|()| bound)) {
            Ok(listener) => return Some(listener),
            Err(error) if Instant::now() >= deadline || shared.is_closing() => {
                let text = format!("this server cannot be taken over: {error}");
                shared.config.say(Level::Warn, &text);
                return None;
            }
            // The process that this one has taken over is about to end.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Hands everything to a process that asks. After an error this one goes on.
fn answer(
    shared: &Arc<Shared>,
    files: &Files,
    tcp: &TcpListener,
    stream: &UnixStream,
    process: i32,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let failed = |what: &str| Err(io::Error::other(what.to_owned()));
    if !hears(stream, ASK) {
        return failed("it is another version");
    }
    let stopped = shared.stop();
    send(files, tcp, stream)?;
    if !hears(stream, READY) {
        return failed("it has failed");
    }
    let mut stream = stream;
    stream.write_all(LAST)?;
    // From here on nothing of the files is this process's.
    shared.sessions.pool().close();
    files.leave();
    stopped.for_good(process);
    Ok(())
}

fn send(files: &Files, tcp: &TcpListener, stream: &UnixStream) -> io::Result<()> {
    files.descriptors(|of_files| {
        let mut all = vec![tcp.as_fd()];
        all.extend(of_files);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = sendmsg(
            stream,
            &[IoSlice::new(GIVE)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        match sent == GIVE.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    })
}
