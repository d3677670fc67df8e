//! The agent's socket and threads.

use crate::Error;
use crate::counts::Counts;
use crate::proxy::Proxy;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::{AgentAddr, Complaints, Level, random};
use tmem_wire::Preface;

/// How long a new connection may take to say what it wants.
const GREETING: Duration = Duration::from_secs(3);
/// How long the listener rests when the system cannot take a connection.
const REST: Duration = Duration::from_millis(100);

/// Where messages go: errors as warnings, and what each connection has moved, when it ends,
/// as debug messages.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// An agent, whose threads live as long as the process.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    addr: AgentAddr,
    log: Log,
    complaints: Complaints,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.addr.fmt(f)
    }
}

impl Agent {
    /// Starts an agent, if RDMA can be used on this machine.
    ///
    /// # Errors
    /// What is missing.
    pub fn start(log: Log) -> Result<Agent, Error> {
        crate::available()?;
        let [name, token] = [random()?, random()?];
        let name = name
            .iter()
            .fold("tmem-agent-".to_owned(), |mut name, byte| {
                // Writing to a string does not fail.
                let _ = write!(name, "{byte:02x}");
                name
            });
        let at = net::SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&at)?;
        let agent = Agent(Arc::new(Inner {
            addr: AgentAddr { name, token },
            log,
            complaints: Complaints::default(),
        }));
        let own = agent.clone();
        spawn("rdma agent", move || own.listen(&listener))?;
        Ok(agent)
    }

    /// The value of [`tmem_config::AGENT_VARIABLE`] for engines.
    pub fn addr(&self) -> &AgentAddr {
        &self.0.addr
    }

    /// Connects to a server, and returns a stream that an engine can use.
    ///
    /// # Errors
    /// When the server cannot be reached over RDMA.
    pub fn dial(&self, server: SocketAddr) -> Result<UnixStream, Error> {
        let (near, far) = UnixStream::pair()?;
        let proxy = Proxy::connect(server, far)?;
        let own = self.clone();
        spawn("rdma", move || own.lead(server, proxy))?;
        Ok(near)
    }

    fn listen(&self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let own = self.clone();
                    if let Err(error) = spawn("rdma", move || own.serve(stream)) {
                        self.complain(&format!("RDMA: no thread for a connection: {error}"));
                    }
                }
                Err(error) => {
                    self.complain(&format!("RDMA: cannot take a connection: {error}"));
                    thread::sleep(REST);
                }
            }
        }
    }

    fn serve(&self, mut stream: UnixStream) {
        // One that does not know the token is not told why.
        let Some(preface) = preface(&mut stream) else {
            return;
        };
        if !same(&preface.token, &self.0.addr.token) {
            return;
        }
        match Proxy::connect(preface.server, stream) {
            Ok(proxy) => self.lead(preface.server, proxy),
            Err(error) => self.complain(&format!("RDMA to {}: {error}", preface.server)),
        }
    }

    fn lead(&self, server: SocketAddr, proxy: Proxy) {
        let (counts, end) = proxy.run();
        // Connections that only look whether a server is there have nothing to tell.
        if counts != Counts::default() {
            (self.0.log)(Level::Debug, &format!("RDMA to {server}: {counts}"));
        }
        if let Err(error) = end {
            self.complain(&format!("RDMA to {server}: {error}"));
        }
    }

    fn complain(&self, text: &str) {
        if self.0.complaints.are_due(Instant::now()) {
            (self.0.log)(Level::Warn, text);
        }
    }
}

fn preface(stream: &mut UnixStream) -> Option<Preface> {
    stream.set_read_timeout(Some(GREETING)).ok()?;
    let mut bytes = [0; Preface::LEN];
    stream.read_exact(&mut bytes).ok()?;
    Preface::decode(&bytes).ok()
}

/// Compares in constant time, so that the time does not tell where they differ.
fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

/// Starts a thread that handles no signals.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let body = move || {
        // SAFETY: a set of all signals, made by the call before it is used.
        unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        }
        run();
    };
    thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_only_in_whole() {
        let a = [7; 16];
        assert!(same(&a, &a));
        for at in 0..16 {
            let mut b = a;
            b[at] ^= 128;
            assert!(!same(&a, &b));
        }
    }
}
