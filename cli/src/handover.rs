//! Hands the memory of the family, the servers' secret and the userfaultfd device to the
//! processes under `tmem run`. They show a token from their environment.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tmem_config::{AgentAddr, Handed, random};

/// How long sending an answer may block. It fits into the socket's buffer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the listener rests when the system cannot take a connection.
const REST: Duration = Duration::from_millis(100);
/// The most connections that have said nothing yet. One more closes the oldest.
const WAITING: usize = 256;

/// The socket that hands these over, as long as this lives.
pub(crate) struct Handover {
    addr: AgentAddr,
    listener: Arc<UnixListener>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        // SAFETY: a plain call on a descriptor that is open. The thread hears of it.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

struct Server {
    token: [u8; 16],
    memory: OwnedFd,
    device: Option<File>,
    secret: Option<Vec<u8>>,
}

impl Handover {
    /// Begins. Its thread inherits the signal mask.
    pub(crate) fn start(memory: OwnedFd, secret: Option<Vec<u8>>) -> io::Result<Handover> {
        let [name, token] = [random()?, random()?];
        let mut text = "tmem-family-".to_owned();
        for byte in name {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&text)?)?;
        listener.set_nonblocking(true)?;
        let listener = Arc::new(listener);
        let server = Server {
            token,
            memory,
            // Without permission to open it, a process uses the system call, or says so.
            device: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/userfaultfd")
                .ok(),
            secret,
        };
        let own = listener.clone();
        thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || server.serve(&own))?;
        Ok(Handover {
            addr: AgentAddr { name: text, token },
            listener,
        })
    }

    /// The value of [`tmem_config::FAMILY_VARIABLE`] for the processes.
    pub(crate) fn addr(&self) -> &AgentAddr {
        &self.addr
    }
}

impl Server {
    /// Waits for all connections at once, so that a silent one does not delay the others.
    fn serve(&self, listener: &UnixListener) {
        let mut waiting: Vec<UnixStream> = Vec::new();
        loop {
            let mut polled: Vec<libc::pollfd> = std::iter::once(listener.as_raw_fd())
                .chain(waiting.iter().map(AsRawFd::as_raw_fd))
                .map(|fd| libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                })
                .collect();
            // SAFETY: the list is as long as said, and its descriptors are open.
            let ready =
                unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
            if ready < 0 {
                thread::sleep(REST);
                continue;
            }
            // The first is the listener's; those of `waiting` follow in its order.
            for at in (1..polled.len())
                .rev()
                .filter(|at| polled[*at].revents != 0)
            {
                self.answer(waiting.remove(at - 1));
            }
            if polled[0].revents == 0 {
                continue;
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    if waiting.len() == WAITING {
                        waiting.remove(0);
                    }
                    waiting.push(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It was shut.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(_) => thread::sleep(REST),
            }
        }
    }

    /// Answers one process. One that does not know the token is not told why it gets nothing.
    fn answer(&self, mut stream: UnixStream) {
        let mut token = [0; 16];
        let patience = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        let shown = patience.and_then(|()| stream.read_exact(&mut token));
        if shown.is_err() || !same(&token, &self.token) {
            return;
        }
        let device = self.device.as_ref().map(AsFd::as_fd);
        let secret = self.secret.as_deref();
        let _ = Handed::send(&mut stream, self.memory.as_fd(), device, secret);
    }
}

/// Compares in constant time, so that the time does not tell where they differ.
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn who_has_the_token_is_served_and_strangers_are_in_nobodys_way() {
        let memory: OwnedFd = tempfile::tempfile().unwrap().into();
        let handover = Handover::start(memory, Some(b"key".to_vec())).unwrap();
        let at = SocketAddr::from_abstract_name(&handover.addr().name).unwrap();
        let silent: Vec<_> = (0..2 * WAITING)
            .map(|_| UnixStream::connect_addr(&at).unwrap())
            .collect();
        let mut guess = UnixStream::connect_addr(&at).unwrap();
        guess.write_all(&[0; 16]).unwrap();
        assert_eq!(guess.read(&mut [0]).unwrap(), 0);
        let handed = Handed::ask(handover.addr()).unwrap();
        assert_eq!(handed.secret.as_deref(), Some(&b"key"[..]));
        drop(silent);
    }
}
