//! Checks before the program starts whether the servers can be used.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tmem_config::{Level, Scheme, ServerAddr, random};
use tmem_rdma::Agent;
use tmem_wire::greeting::{self, GreetingError};
use tmem_wire::{Features, HEADER_LEN, Header, Op, ServerStats, Status, VERSION};

/// How long connecting may take, and how long an answer may take before the user is told.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer may take this many times `PATIENCE`: a server that takes connections is there,
/// and may be busy. The engine waits as long.
const TIMES: u32 = 10;

/// What a server that can be used has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// What it can do.
    pub(crate) features: Features,
    /// Whether it has no memory to give now.
    pub(crate) full: bool,
    /// Pages that it has to give.
    pub(crate) free_pages: u64,
}

/// Takes the embedded server out of the list. Returns whether it was there.
///
/// # Errors
/// When it is not alone: its secret is not that of others.
pub(crate) fn take_embedded(servers: &mut Vec<ServerAddr>) -> Result<bool, &'static str> {
    let all = servers.len();
    servers.retain(|server| server.scheme != Scheme::Embedded);
    match (all - servers.len(), servers.len()) {
        (0, _) => Ok(false),
        (_, 0) => Ok(true),
        _ => Err("--server embedded is used alone, without other servers"),
    }
}

/// Asks all servers at the same time. Returns for each what it can do, or what is wrong with
/// it. Servers with RDMA are asked through the agent.
pub(crate) fn check(
    servers: &[ServerAddr],
    secret: Option<&[u8]>,
    agent: Result<&Agent, &str>,
    level: Level,
) -> Vec<Result<Answer, String>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(move || ask(server, secret, agent, level)))
            .collect();
        asked
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("could not be asked".to_owned()))
            })
            .collect()
    })
}

/// Asks one server.
pub(crate) fn ask(
    server: &ServerAddr,
    secret: Option<&[u8]>,
    agent: Result<&Agent, &str>,
    level: Level,
) -> Result<Answer, String> {
    let unreachable = |e: &dyn std::fmt::Display| format!("cannot be reached: {e}");
    let talked = match server.scheme {
        Scheme::Any | Scheme::Tcp | Scheme::Embedded => {
            let stream = connect(server).map_err(|e| unreachable(&e))?;
            talk(&mut Patient::new(stream, server, level), secret)
        }
        Scheme::Rdma => {
            let agent = agent.map_err(|e| unreachable(&e))?;
            talk(
                &mut Patient::new(dial(server, agent)?, server, level),
                secret,
            )
        }
    };
    talked.map_err(|error| wrong(&error))
}

/// What a server says of itself, over TCP.
pub(crate) fn figures(server: &ServerAddr, secret: Option<&[u8]>) -> Result<ServerStats, String> {
    let stream = connect(server).map_err(|e| format!("cannot be reached: {e}"))?;
    let mut stream = Patient::new(stream, server, Level::Error);
    let mut asked = || -> io::Result<ServerStats> {
        let greeting = greeting::Client::new(None, 0, 0, secret, random()?, Vec::new());
        greeting.greet(&mut stream, secret)?;
        stream.write_all(&Header::request(Op::Stats, 1).encode())?;
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head)?;
        let odd = |_| io::Error::from(io::ErrorKind::InvalidData);
        let reply = Header::decode(&head).map_err(odd)?;
        let mut payload = vec![0; reply.len as usize];
        stream.read_exact(&mut payload)?;
        let stats = ServerStats::decode(&payload).map_err(odd)?;
        let _ = stream.write_all(&Header::request(Op::Bye, 2).encode());
        Ok(stats)
    };
    asked().map_err(|error| wrong(&error))
}

fn connect(server: &ServerAddr) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (server.host.as_str(), server.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn dial(server: &ServerAddr, agent: &Agent) -> Result<UnixStream, String> {
    let mut last = "the name has no address".to_owned();
    let addresses = (server.host.as_str(), server.port).to_socket_addrs();
    for address in addresses.map_err(|e| format!("cannot be reached: {e}"))? {
        match agent.dial(address) {
            Ok(stream) => {
                let patience = stream.set_read_timeout(Some(PATIENCE));
                let patience = patience.and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                return patience.map(|()| stream).map_err(|e| e.to_string());
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("cannot be reached: {last}"))
}

/// A connection that waits for each answer several times as long as its timeout, and tells the
/// user after the first.
struct Patient<'a, S> {
    stream: S,
    server: &'a ServerAddr,
    level: Level,
    /// Timeouts since something came.
    waited: u32,
    told: bool,
}

impl<'a, S> Patient<'a, S> {
    fn new(stream: S, server: &'a ServerAddr, level: Level) -> Self {
        Patient {
            stream,
            server,
            level,
            waited: 0,
            told: false,
        }
    }

    /// Whether to go on after an error.
    fn goes_on(&mut self, error: &io::Error) -> bool {
        let is_late = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        self.waited += u32::from(is_late);
        if is_late && self.waited < TIMES && !self.told && self.level >= Level::Warn {
            eprintln!(
                "tmem: server {} takes connections and has not answered for {} s; it may be busy, \
                 and is waited for, for up to {} s",
                self.server,
                PATIENCE.as_secs(),
                (PATIENCE * TIMES).as_secs()
            );
            self.told = true;
        }
        is_late && self.waited < TIMES
    }
}

impl<S: Read> Read for Patient<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if self.goes_on(&error) => {}
                result => {
                    self.waited = 0;
                    return result;
                }
            }
        }
    }
}

impl<S: Write> Write for Patient<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Greets a server, and takes leave of it.
fn talk(stream: &mut (impl Read + Write), secret: Option<&[u8]>) -> Result<Answer, io::Error> {
    let greeting = greeting::Client::new(None, 0, 0, secret, random()?, Vec::new());
    let reply = greeting.greet(stream, secret)?;
    // The session is not needed any more. If the server is gone now, the program's own
    // connection finds out.
    let _ = stream.write_all(&Header::request(Op::Bye, 1).encode());
    Ok(Answer {
        features: reply.features,
        full: reply.free_pages == 0,
        free_pages: reply.free_pages,
    })
}

/// What is wrong with a server, in words that follow its address.
fn wrong(error: &io::Error) -> String {
    let greeting = error.get_ref().and_then(|e| e.downcast_ref());
    let Some(greeting) = greeting else {
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("does not answer for {} s", (PATIENCE * TIMES).as_secs())
            }
            io::ErrorKind::UnexpectedEof => {
                "closed the connection without an answer: is it a tmem memory server?".to_owned()
            }
            _ => format!("closed the connection: {error}"),
        };
    };
    match greeting {
        GreetingError::Malformed(_) | GreetingError::Unexpected(_) => {
            "is not a tmem memory server".to_owned()
        }
        GreetingError::Version(_) | GreetingError::Refused(Status::BadVersion, _) => {
            format!(
                "does not speak version {VERSION} of the protocol: use the same release of tmem on \
                 both machines"
            )
        }
        GreetingError::SecretWanted => {
            "wants a secret: name the file with it with --secret-file".to_owned()
        }
        GreetingError::SecretWrong => {
            "does not accept the secret in the secret file: it must be that of the server"
                .to_owned()
        }
        GreetingError::NoProof => {
            "does not prove that it knows the secret in the secret file: was \
                                   it started without --secret-file?"
                .to_owned()
        }
        GreetingError::Refused(Status::Full, _) => "is full".to_owned(),
        GreetingError::Refused(Status::Limit, Some(words)) => format!("refuses: {words}"),
        GreetingError::Refused(status, _) => format!("refuses: {status}"),
        // Nobody has joined a session.
        other @ (GreetingError::Restarted | GreetingError::SessionGone) => other.to_string(),
    }
}
