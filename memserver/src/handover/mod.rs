//! A server that goes on with what another process has: its socket, its memory, its sessions.
//!
//! The process that runs listens on a local socket whose name has its user and its address. One
//! that is started with `--takeover` asks there. The old one stops, without a word to clients,
//! and sends its descriptors; the new one takes up what is in them and says that it is ready;
//! the old one answers with a last word and ends. Until that last word the old one goes on where
//! anything fails, and the new one changes nothing.

mod give;
mod take;

pub(crate) use give::give;
pub(crate) use take::{Taken, take};

use crate::store::files::Opened;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixStream};
use std::time::Duration;

/// What the new process says first; another layout of what is sent has another number.
const ASK: &[u8; 16] = b"tmem takeover 1\n";

/// What the old one sends with its descriptors.
const GIVE: &[u8; 16] = b"tmem handover 1\n";

/// What the new one says when it could go on.
const READY: &[u8; 16] = b"tmem ready      ";

/// The old one's last word.
const LAST: &[u8; 16] = b"tmem go         ";

/// How long either waits for the other. Clients wait meanwhile, and give up after 5 seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a process is handed.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The socket that it listens on.
    pub(crate) listener: Option<TcpListener>,
    /// The memory of another server that has ended.
    pub(crate) files: Option<Opened>,
}

/// The name of the local socket of a server that listens there.
fn name(addr: SocketAddr) -> io::Result<unix::SocketAddr> {
    let uid = geteuid().as_raw();
    unix::SocketAddr::from_abstract_name(format!("tmem-memserver {uid} {addr}"))
}

/// The number of the process on the other side, if it is one of the same user, or of root.
fn trusted(stream: &UnixStream) -> Option<i32> {
    let own = geteuid();
    let peer = socket_peercred(stream).ok()?;
    (peer.uid == own || peer.uid.is_root()).then(|| peer.pid.as_raw_nonzero().get())
}

/// Waits for a word.
fn hears(mut stream: &UnixStream, word: &[u8; 16]) -> bool {
    let mut got = [0; 16];
    stream.read_exact(&mut got).is_ok() && got == *word
}
