//! The server: its listener, and the threads of its connections.

use crate::latency::Latency;
use crate::rdma;
use crate::serve::attempts::Attempts;
use crate::serve::client_thread;
use crate::serve::connection_limits::ConnectionLimits;
use crate::serve::observer::Observer;
use crate::serve::outbox::Rations;
use crate::serve::shared::{LOOK, REST, Shared};
use crate::serve::socket::Socket;
use crate::store::pool::Pool;
use crate::store::sessions::{Disconnect, Limits, Sessions};
use crate::{Config, Error};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::{Complaints, Level, random};
use tmem_verbs::Listener;
use tmem_wire::{FEATURE_LEAVE, FEATURE_LZ4, FEATURE_RDMA, PAGE_SIZE, ServerStats};

/// Sessions for each connection that is allowed: forked children that did not
/// connect yet, and sessions within their grace.
const SESSIONS: usize = 4;

/// Bytes of tables of slabs that are always allowed; of a large server, a sixteenth of its
/// capacity is.
const TABLES: u64 = 64 << 20;

/// Bytes of packed pages on their way out that are always allowed; of a large server, a
/// 64th of its capacity is.
const RATIONS: u64 = 16 << 20;

/// Threads that free the memory of sessions that have ended.
const KEEPERS: usize = 2;

/// How long clients may take to hear that the server ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a machine may be silent while it owes an answer. Without this it
/// would be a quarter of an hour; the keep-alive sees only idle connections.
const LOST: Duration = Duration::from_secs(30);

/// A memory server that listens.
pub struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
    addr: SocketAddr,
    rdma: Option<Listener>,
}

/// A server that runs in threads of its own. Dropping it shuts it down.
pub struct Handle {
    shared: Arc<Shared>,
    addr: SocketAddr,
    rdma_addr: Option<SocketAddr>,
    thread: Option<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.addr)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.addr)
    }
}

impl Server {
    /// Listens. Clients can connect from now on, and are served once it runs.
    ///
    /// # Errors
    /// When the configuration is not possible, or the address not free.
    pub fn bind(config: Config) -> Result<Server, Error> {
        config.check()?;
        let (slabs, slab_pages) = config.slabs()?;
        let listen = config.listen.clone();
        let addrs = std::net::ToSocketAddrs::to_socket_addrs(&listen);
        let addrs: Vec<SocketAddr> = match addrs {
            Ok(addrs) => addrs.collect(),
            Err(error) => return Err(Error::Address { listen, error }),
        };
        let failed = |error| Error::Listen { listen, error };
        let listener = TcpListener::bind(&addrs[..]).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let rdma = config
            .rdma
            .map(|at| rdma::listen(at, addr.port()))
            .transpose()?;
        let rdma_addr = rdma.as_ref().map(Listener::local_addr);
        // Where both are the same, once is enough.
        let other = rdma_addr.filter(|rdma| *rdma != addr);
        for addr in [Some(addr), other].into_iter().flatten() {
            if config.secret.is_none() && !addr.ip().is_loopback() {
                config.say(
                    Level::Warn,
                    &format!("whoever reaches {addr} can use this memory: give a secret, or listen on 127.0.0.1"),
                );
            }
        }
        if rdma.is_some() {
            rdma::check_lock_limit(&config);
        }
        // Clients look for it where they look for TCP.
        let same_port = rdma_addr.is_some_and(|at| at.port() == addr.port());
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let pool = Pool::new(slabs, slab_pages).map_err(|error| Error::Reserve {
            capacity: config.capacity,
            error,
        })?;
        let capacity = pool.capacity_pages() * PAGE_SIZE as u64;
        let (connections, per_client) = (config.max_connections, config.per_client());
        let tables = (capacity / 16).max(TABLES);
        let limits = Limits {
            sessions: connections.saturating_mul(SESSIONS),
            per_client: per_client.saturating_mul(SESSIONS),
            tables,
            tables_per_client: tables / connections as u64 * per_client as u64,
            grace: config.grace,
        };
        let shared = Shared {
            sessions: Sessions::new(pool, limits),
            connections: ConnectionLimits::new(connections, per_client),
            rations: Rations::new((capacity / 64).max(RATIONS)),
            attempts: Attempts::default(),
            secrets: Complaints::default(),
            latency: Latency::new(config.measures),
            config,
            instance: random()?,
            pages_read: AtomicU64::new(0),
            pages_written: AtomicU64::new(0),
            warnings: Complaints::default(),
            features: FEATURE_LEAVE | FEATURE_LZ4 | if same_port { FEATURE_RDMA } else { 0 },
            taken: AtomicU64::new(0),
            start: Instant::now(),
            closing: AtomicBool::new(false),
            wake,
        };
        Ok(Server {
            shared: Arc::new(shared),
            listener,
            addr,
            rdma,
        })
    }

    /// Where it listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens for RDMA, with the real port.
    pub fn rdma_addr(&self) -> Option<SocketAddr> {
        self.rdma.as_ref().map(Listener::local_addr)
    }

    /// Its figures.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats()
    }

    /// Serves until it is shut down, through a [`Handle`] of [`Server::spawn`].
    pub fn run(mut self) {
        let rdma = self.rdma.take().map(|listener| {
            let shared = self.shared.clone();
            thread::spawn(move || rdma::take_connections(&shared, listener))
        });
        let keepers: Vec<_> = (0..KEEPERS)
            .map(|_| {
                let shared = self.shared.clone();
                thread::spawn(move || shared.sessions.keep())
            })
            .collect();
        let mut looked = Instant::now();
        while self.shared.wait(self.listener.as_fd()) {
            let taken = match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(e) => {
                    thread::sleep(REST);
                    Err(format!("cannot take a connection: {e}"))
                }
            };
            if looked.elapsed() >= LOOK {
                self.shared.connections.each(|socket| {
                    if socket.is_lost(LOST) {
                        socket.cut();
                    }
                });
                looked = Instant::now();
            }
            if let Err(text) = taken {
                self.shared.warn(&text);
            }
        }
        // A panic there was reported when it happened.
        let _ = rdma.map(thread::JoinHandle::join);
        self.shared.sessions.close();
        // They are told first, and then cut off.
        let places = &self.shared.connections;
        places.each(|socket| socket.end());
        if !places.clear(Some(Instant::now() + GOODBYE), |_| ()) {
            places.clear(None, |socket| socket.cut());
        }
        for keeper in keepers {
            let _ = keeper.join();
        }
    }

    /// Serves in a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(self) -> Result<Handle, Error> {
        let (shared, addr) = (self.shared.clone(), self.addr);
        let rdma_addr = self.rdma_addr();
        let thread = thread::Builder::new()
            .name("memserver".to_owned())
            .spawn(move || self.run())?;
        Ok(Handle {
            shared,
            addr,
            rdma_addr,
            thread: Some(thread),
        })
    }

    fn serve(&self, stream: TcpStream) -> Result<(), String> {
        // It fails when the client is gone already.
        let Ok(socket) = Socket::new(stream) else {
            return Ok(());
        };
        client_thread::spawn(&self.shared, socket, None, client_thread::run)
    }
}

impl Handle {
    /// Where the server listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the server listens for RDMA, with the real port.
    pub fn rdma_addr(&self) -> Option<SocketAddr> {
        self.rdma_addr
    }

    /// Its figures.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats()
    }

    /// Returns what metrics and health checks look at it with.
    pub fn observer(&self) -> Observer {
        Observer(self.shared.clone())
    }

    /// Ends all keys that clients have to memory. Their connections over RDMA
    /// break when they use one; on new connections they get new keys.
    pub fn revoke_keys(&self) {
        self.shared.sessions.end_keys();
    }

    /// Ends all connections and the server. What it held is gone.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.shutdown();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
