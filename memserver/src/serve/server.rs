//! The server: its listener, and the threads of its connections.

use crate::handover::{self, Inherited, Taken};
use crate::rdma;
use crate::serve::attempts::Attempts;
use crate::serve::client_thread;
use crate::serve::connection_limits::ConnectionLimits;
use crate::serve::outbox::Rations;
use crate::serve::shared::{Ending, LOOK, REST, Shared};
use crate::serve::socket::Socket;
use crate::store::files::{Files, Geometry, Opened};
use crate::store::pool::{self, Pool};
use crate::store::sessions::{Disconnect, Limits, Sessions};
use crate::systemd::{FILE_NAMES, Manager};
use crate::{Backing, Config, Error};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::{Complaints, Level, random};
use tmem_verbs::Listener;
use tmem_wire::{FEATURE_LEAVE, FEATURE_LZ4, FEATURE_NOTICE, FEATURE_RDMA, PAGE_SIZE, ServerStats};

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
    listener: OwnedFd,
    addr: SocketAddr,
    rdma_addr: Option<SocketAddr>,
    thread: Option<thread::JoinHandle<Ending>>,
}

/// Ends a server.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
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
        Server::bind_inherited(config, Inherited::default())
    }

    /// Goes on with what another process has left; listens and has memory of its own where it
    /// has left none.
    ///
    /// # Errors
    /// As [`Server::bind`], and when what it has left cannot be used.
    pub fn bind_inherited(config: Config, inherited: Inherited) -> Result<Server, Error> {
        Server::with(config, inherited, None)
    }

    /// Goes on with what the process has that listens at the same address, which ends; as
    /// [`Server::bind`] where there is none. Where this fails, the other goes on.
    ///
    /// # Errors
    /// As [`Server::bind`], and when what it has cannot be used.
    pub fn take_over(config: Config) -> Result<Server, Error> {
        config.check()?;
        let in_folder = matches!(config.backing, Backing::Folder(_));
        match handover::take(&addresses(&config)?, in_folder).map_err(Error::TakeOver)? {
            Some((inherited, taken)) => Server::with(config, inherited, Some(taken)),
            None => Server::bind(config),
        }
    }

    fn with(config: Config, inherited: Inherited, taken: Option<Taken>) -> Result<Server, Error> {
        config.check()?;
        let (slabs, slab_pages) = config.slabs()?;
        let listener = match inherited.listener {
            Some(listener) => listener,
            None => {
                let listen = config.listen.clone();
                let failed = |error| Error::Listen { listen, error };
                TcpListener::bind(&addresses(&config)?[..]).map_err(failed)?
            }
        };
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
        let capacity = slabs * u64::from(slab_pages) * PAGE_SIZE as u64;
        let (connections, per_client) = (config.max_connections, config.per_client());
        let tables = (capacity / 16).max(TABLES);
        let fresh = random()?;
        let (backing, opened) = (&config.backing, inherited.files);
        let files = files(backing, opened, slabs, slab_pages, tables, fresh)?;
        let instance = files.as_ref().map_or(fresh, |files| files.instance());
        let pool = Pool::new(slabs, slab_pages, files).map_err(|error| Error::Reserve {
            capacity: config.capacity,
            error,
        })?;
        if let Some(taken) = taken {
            taken.go_on().map_err(Error::TakeOver)?;
        }
        pool.settle();
        let limits = Limits {
            sessions: connections.saturating_mul(SESSIONS),
            per_client: config
                .client_sessions
                .unwrap_or(per_client.saturating_mul(SESSIONS)),
            tables,
            tables_per_client: tables / connections as u64 * per_client as u64,
            grace: config.grace,
        };
        let shared = Shared {
            sessions: Sessions::taken_up(pool, limits, Instant::now()),
            connections: ConnectionLimits::new(connections, per_client),
            rations: Rations::new((capacity / 64).max(RATIONS)),
            attempts: Attempts::default(),
            secrets: Complaints::default(),
            config,
            instance,
            pages_read: AtomicU64::new(0),
            pages_written: AtomicU64::new(0),
            warnings: Complaints::default(),
            features: FEATURE_LEAVE
                | FEATURE_LZ4
                | FEATURE_NOTICE
                | if same_port { FEATURE_RDMA } else { 0 },
            taken: AtomicU64::new(0),
            start: Instant::now(),
            closing: AtomicBool::new(false),
            how: OnceLock::new(),
            asked_back: Complaints::default(),
            draining: AtomicBool::new(false),
            taking: Mutex::new(()),
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

    /// Serves until it is shut down, through a [`Handle`] of [`Server::spawn`]; how it has ended.
    pub fn run(mut self) -> Ending {
        let rdma = self.rdma.take();
        let (shared, pool) = (self.shared.clone(), self.shared.sessions.pool().clone());
        thread::scope(|scope| {
            // What is registered with a device cannot be handed over.
            let giver = rdma.is_none().then(|| pool.files()).flatten().map(|files| {
                scope.spawn(|| handover::give(&shared, files, &self.listener, self.addr))
            });
            let rdma = rdma.map(|listener| {
                let shared = self.shared.clone();
                scope.spawn(move || rdma::take_connections(&shared, listener))
            });
            let keepers: Vec<_> = (0..KEEPERS)
                .map(|_| scope.spawn(|| shared.sessions.keep()))
                .collect();
            self.take_connections();
            // A panic in any of them was reported when it happened.
            let _ = rdma.map(thread::ScopedJoinHandle::join);
            let _ = giver.map(thread::ScopedJoinHandle::join);
            let ending = self.end();
            for keeper in keepers {
                let _ = keeper.join();
            }
            ending
        })
    }

    fn take_connections(&self) {
        let (mut looked, mut rests) = (Instant::now(), false);
        while self.shared.wait(self.listener.as_fd()) {
            let taking = self.shared.taking();
            if self.shared.is_closing() {
                break;
            }
            let taken = match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(e) => {
                    rests = true;
                    Err(format!("cannot take a connection: {e}"))
                }
            };
            drop(taking);
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
            if std::mem::take(&mut rests) {
                thread::sleep(REST);
            }
        }
    }

    /// Ends all connections and sessions.
    fn end(&self) -> Ending {
        let (shared, places) = (&self.shared, &self.shared.connections);
        let ending = shared.ending();
        let files = shared.sessions.pool().files();
        match ending {
            Ending::Kept | Ending::HandedOver(_) => {
                drop(shared.stop());
                // From here on nothing is noted, and no memory given back.
                shared.sessions.close();
                files.inspect(|files| files.leave());
            }
            Ending::Gone => {
                shared.sessions.close();
                // They are told first, and then cut off.
                places.each(|socket| socket.end());
                if !places.clear(Some(Instant::now() + GOODBYE), |_| ()) {
                    places.clear(None, |socket| socket.cut());
                }
                files.inspect(|files| files.remove());
            }
        }
        ending
    }

    /// Serves in a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(self) -> Result<Handle, Error> {
        let (shared, addr) = (self.shared.clone(), self.addr);
        let rdma_addr = self.rdma_addr();
        let listener = self.listener.try_clone()?.into();
        let thread = thread::Builder::new()
            .name("memserver".to_owned())
            .spawn(move || self.run())?;
        Ok(Handle {
            shared,
            listener,
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

/// Where a server is to listen.
fn addresses(config: &Config) -> Result<Vec<SocketAddr>, Error> {
    let addrs = std::net::ToSocketAddrs::to_socket_addrs(&config.listen);
    addrs
        .map(Iterator::collect)
        .map_err(|error| Error::Address {
            listen: config.listen.clone(),
            error,
        })
}

/// The files of a server whose memory is to outlive it.
fn files(
    backing: &Backing,
    inherited: Option<Opened>,
    slabs: u64,
    slab_pages: u32,
    tables: u64,
    instance: [u8; 16],
) -> Result<Option<Arc<Files>>, Error> {
    let (at, opened) = match (backing, inherited) {
        (Backing::Folder(path), None) => (path.display().to_string(), Opened::folder(path)),
        (_, Some(opened)) => ("memory of the last server".to_owned(), Ok(opened)),
        (Backing::Unnamed, None) => ("memory files".to_owned(), Opened::unnamed()),
        (Backing::Private, None) => return Ok(None),
    };
    // As many as there are slabs, and as their children may have tables.
    let places = slabs + tables / pool::bytes_of_hold(slab_pages);
    let geometry = Geometry {
        slabs,
        slab_pages,
        places: places.min(u32::MAX.into()) as u32,
    };
    let loaded = opened.and_then(|opened| opened.load(geometry, instance));
    let files = loaded.map_err(|error| Error::Files { at, error })?;
    Ok(Some(Arc::new(files)))
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

    /// Ends all keys that clients have to memory. Their connections over RDMA
    /// break when they use one; on new connections they get new keys.
    pub fn revoke_keys(&self) {
        self.shared.sessions.end_keys();
    }

    /// Ends all connections and the server. What it held is gone.
    pub fn shutdown(mut self) {
        self.end();
    }

    /// Gives a copy of the server's socket and files to the service manager, which passes them
    /// to the next process of the service.
    ///
    /// # Errors
    /// Where the manager cannot be reached.
    pub fn store(&self, manager: &Manager) -> io::Result<()> {
        let Some(files) = self.shared.sessions.pool().files() else {
            return Ok(());
        };
        manager.store(&[("tmem-listen", self.listener.as_fd())])?;
        files.descriptors(|all| {
            // Those of a folder are found there.
            let named: Vec<_> = FILE_NAMES.into_iter().zip(all.iter().copied()).collect();
            match all.len() == named.len() {
                true => manager.store(&named),
                false => Ok(()),
            }
        })
    }

    /// What ends the server from other threads.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    /// Waits for the end of the server; how it has ended.
    pub fn wait(mut self) -> Ending {
        // A panic there was reported when it happened.
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        ended.unwrap_or(Ending::Gone)
    }

    fn end(&mut self) {
        self.shared.shutdown(Ending::Gone);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Control {
    /// Ends the server: clients are told, and what they have is gone.
    pub fn end(&self) {
        self.0.shutdown(Ending::Gone);
    }

    /// Grants nothing more, has clients move what they have to other servers, and ends the server
    /// when it holds nothing.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// Ends the server without a word to clients: what they have stays in its files, for a
    /// server that takes them up.
    pub fn keep(&self) {
        self.0.shutdown(Ending::Kept);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
