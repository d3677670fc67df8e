//! What systemd, or another service manager of the same protocols, passes to a service and is
//! told by it.

use crate::handover::Inherited;
use crate::store::files::Opened;
use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};
use std::collections::HashMap;
use std::env;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The first descriptor that is passed.
const FIRST: i32 = 3;

/// More than this are not passed to us by anybody.
const MOST: i32 = 64;

/// How long the manager may take to hear something.
const PATIENCE: Duration = Duration::from_secs(1);

/// The names under which a server's files are kept.
pub(crate) const FILE_NAMES: [&str; 3] = ["tmem-table", "tmem-bits", "tmem-pages"];

/// The service manager that has started this process.
#[derive(Debug)]
pub struct Manager {
    address: SocketAddrUnix,
    keeps: bool,
}

impl Manager {
    /// The one that the environment names.
    pub fn from_env() -> Option<Manager> {
        let path = env::var_os("NOTIFY_SOCKET")?.into_encoded_bytes();
        let address = match path.split_first()? {
            (b'@', name) => SocketAddrUnix::new_abstract_name(name),
            _ => SocketAddrUnix::new(&path[..]),
        };
        // It says how many descriptors it keeps.
        let kept = env::var("FDSTORE")
            .ok()
            .and_then(|n| n.parse::<usize>().ok());
        Some(Manager {
            address: address.ok()?,
            keeps: kept.is_some_and(|n| n > FILE_NAMES.len()),
        })
    }

    /// Whether it keeps a server's files from one process to the next.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Tells it something, as `READY=1`.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub fn tell(&self, text: &str) -> io::Result<()> {
        self.send(text, &[])
    }

    /// Gives it descriptors to keep, each under a name.
    pub(crate) fn store(&self, named: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
        named.iter().try_for_each(|(name, descriptor)| {
            self.send(&format!("FDSTORE=1\nFDNAME={name}"), &[*descriptor])
        })
    }

    /// Has it forget a server's files, which are of no use any more.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub fn forget(&self) -> io::Result<()> {
        FILE_NAMES
            .into_iter()
            .try_for_each(|name| self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}")))
    }

    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // A manager that is stuck does not hold up those who are served.
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let pieces = [IoSlice::new(text.as_bytes())];
        let flags = SendFlags::NOSIGNAL;
        sendmsg_addr(&socket, &self.address, &pieces, &mut control, flags)?;
        Ok(())
    }
}

impl Inherited {
    /// What the service manager passes to this process: the socket of a socket unit, or the socket
    /// and the files of the last process of this service. To be called once, before anything else
    /// opens descriptors.
    pub fn from_manager() -> Inherited {
        let number = |name| env::var(name).ok().and_then(|n| n.parse::<i32>().ok());
        if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
            return Inherited::default();
        }
        let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST);
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut listener = None;
        let mut files: HashMap<String, OwnedFd> = HashMap::new();
        for raw in FIRST..FIRST + count {
            let name = names.next().unwrap_or_default();
            // SAFETY: only asked about, whether it is open.
            let is_open = unsafe { BorrowedFd::borrow_raw(raw) };
            if fcntl_getfd(is_open).is_err() {
                continue;
            }
            // SAFETY: it was passed to this process, which has not touched it yet.
            let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
            // It is as good with it as without.
            let _ = fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
            let kind = fstat(&descriptor).map(|about| FileType::from_raw_mode(about.st_mode));
            match kind {
                Ok(FileType::Socket) => listener = Some(TcpListener::from(descriptor)),
                Ok(FileType::RegularFile) => {
                    files.insert(name, descriptor);
                }
                _ => {}
            }
        }
        let [table, bits, pages] = FILE_NAMES.map(|name| files.remove(name));
        let files = match (table, bits, pages) {
            (Some(table), Some(bits), Some(pages)) => Some(Opened {
                table,
                bits,
                pages,
                lock: None,
            }),
            _ => None,
        };
        Inherited { listener, files }
    }
}
