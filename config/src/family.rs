//! What `tmem run` hands over to the processes under it.
//!
//! The processes connect to a socket in the abstract namespace, and send a token from their
//! environment. So access depends on the family, not on the user: a program whose parent has
//! dropped its rights still belongs to the family.

use std::io::{self, Read, Write};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::AgentAddr;

/// The variable that names the socket.
pub const FAMILY_VARIABLE: &str = "TMEM_FAMILY";

/// Bits of the answer's first byte.
const HAS_DEVICE: u8 = 1;
const HAS_SECRET: u8 = 2;

/// The longest secret, in bytes.
const SECRET_MOST: u64 = 1 << 20;

/// What the processes of a family share.
#[derive(Debug)]
pub struct Handed {
    /// The memory file with figures and budget.
    pub memory: OwnedFd,
    /// An open `/dev/userfaultfd`, for processes that may not open it.
    pub device: Option<OwnedFd>,
    /// The secret of the servers.
    pub secret: Option<Vec<u8>>,
    /// `tmem run` is in the PID namespace of the process that asked.
    pub is_near: bool,
}

/// The socket of `tmem run` in the environment, if there is a valid one.
pub fn family_from_env() -> Option<AgentAddr> {
    let value = std::env::var(FAMILY_VARIABLE).ok()?;
    value.trim_end_matches(FAMILY_TOLD).parse().ok()
}

/// The end of the variable when `tmem run` cannot be reached, and the user was told so.
pub const FAMILY_TOLD: char = '!';

impl Handed {
    /// Asks for it.
    ///
    /// # Errors
    /// When `tmem run` has ended, or cannot be reached from here.
    pub fn ask(at: &AgentAddr) -> io::Result<Handed> {
        /// If other connections keep it waiting, it is closed, and connects again.
        const ATTEMPTS: usize = 5;
        let address = SocketAddr::from_abstract_name(&at.name)?;
        let once = || {
            let mut stream = UnixStream::connect_addr(&address)?;
            show(&stream, &at.token)?;
            let handed = Handed::receive(&mut stream)?;
            Ok(Handed {
                is_near: has_number(&stream),
                ..handed
            })
        };
        (1..ATTEMPTS).fold(once(), |answer, _| match answer {
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => once(),
            answer => answer,
        })
    }

    /// Sends it to a process that has shown the token.
    ///
    /// # Errors
    /// When it is not all sent.
    pub fn send(
        stream: &mut UnixStream,
        memory: BorrowedFd<'_>,
        device: Option<BorrowedFd<'_>>,
        secret: Option<&[u8]>,
    ) -> io::Result<()> {
        let has = |there: bool, bit: u8| if there { bit } else { 0 };
        let first = has(device.is_some(), HAS_DEVICE) | has(secret.is_some(), HAS_SECRET);
        let fds: Vec<RawFd> = std::iter::once(memory)
            .chain(device)
            .map(|fd| fd.as_raw_fd())
            .collect();
        send_with_descriptors(stream, first, &fds)?;
        stream.write_all(secret.unwrap_or_default())
    }

    fn receive(stream: &mut UnixStream) -> io::Result<Handed> {
        let odd = || io::Error::from(io::ErrorKind::InvalidData);
        let (first, fds) = receive_with_descriptors(stream)?;
        let mut fds = fds.into_iter();
        let memory = fds.next().ok_or_else(odd)?;
        let device = match first & HAS_DEVICE {
            0 => None,
            _ => Some(fds.next().ok_or_else(odd)?),
        };
        let mut secret = Vec::new();
        stream.take(SECRET_MOST).read_to_end(&mut secret)?;
        Ok(Handed {
            memory,
            device,
            secret: (first & HAS_SECRET != 0).then_some(secret),
            is_near: false,
        })
    }
}

/// Whether the process at the other end has a number in this one's namespace.
fn has_number(stream: &UnixStream) -> bool {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: room for the answer, as long as said.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    failed == 0 && peer.pid != 0
}

/// Sends the token, without a SIGPIPE to the program.
fn show(stream: &UnixStream, token: &[u8; 16]) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are as many as said.
    let sent = unsafe {
        libc::send(
            stream.as_raw_fd(),
            token.as_ptr().cast(),
            token.len(),
            flags,
        )
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == token.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The most descriptors in a message.
const MOST: usize = 2;

/// Room for them, aligned as their header has to be.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn send_with_descriptors(stream: &UnixStream, first: u8, fds: &[RawFd]) -> io::Result<()> {
    debug_assert!(fds.len() <= MOST);
    let mut byte = [first];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = Control([0; 64]);
    let len = size_of_val(fds);
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the header lies within `control`, which has room for `MOST` descriptors.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(len as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(len as u32) as _;
        libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), len);
        libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    match sent {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn receive_with_descriptors(stream: &UnixStream) -> io::Result<(u8, Vec<OwnedFd>)> {
    let mut byte = [0u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = Control([0; 64]);
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: as `send_with_descriptors`.
    message.msg_controllen = unsafe { libc::CMSG_SPACE((MOST * size_of::<RawFd>()) as u32) } as _;
    let got = loop {
        // SAFETY: what it writes to lies here.
        let got =
            unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        let error = io::Error::last_os_error();
        match got {
            1.. => break got,
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    };
    debug_assert!(got == 1);
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in headers within `control`, and the descriptors in
    // them are new and nobody else's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(here) = header.as_ref() {
            if here.cmsg_level == libc::SOL_SOCKET && here.cmsg_type == libc::SCM_RIGHTS {
                let len = here.cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..len / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((byte[0], fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
        use std::os::unix::fs::MetadataExt;
        let of = |fd: BorrowedFd<'_>| {
            let file = File::from(fd.try_clone_to_owned().unwrap());
            let metadata = file.metadata().unwrap();
            (metadata.dev(), metadata.ino())
        };
        of(a.as_fd()) == of(b.as_fd())
    }

    #[test]
    fn what_is_sent_is_received() {
        let memory = tempfile::tempfile().unwrap();
        let device = File::open("/dev/null").unwrap();
        for (with, secret) in [(false, None), (true, None), (true, Some(&[7u8; 9000][..]))] {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let device = with.then_some(device.as_fd());
            Handed::send(&mut near, memory.as_fd(), device, secret).unwrap();
            drop(near);
            let handed = Handed::receive(&mut far).unwrap();
            assert!(same_file(handed.memory, &memory));
            assert_eq!(handed.device.is_some(), with);
            assert!(
                handed
                    .device
                    .is_none_or(|fd| same_file(fd, device.unwrap()))
            );
            assert_eq!(handed.secret.as_deref(), secret);
        }
    }

    #[test]
    fn an_answer_without_descriptors_or_none_is_an_error() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&[0]).unwrap();
        drop(near);
        assert!(Handed::receive(&mut far).is_err());
        assert!(Handed::receive(&mut far).is_err());
    }

    #[test]
    fn a_family_that_is_gone_is_an_error() {
        let at = AgentAddr {
            name: format!("tmem-nobody-{}", std::process::id()),
            token: [1; 16],
        };
        assert!(Handed::ask(&at).is_err());
    }
}
