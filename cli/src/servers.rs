//! Whether the servers can be used, asked before the program starts.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tmem_config::{Scheme, ServerAddr, random};
use tmem_rdma::Agent;
use tmem_wire::{
    Features, HEADER_LEN, Header, Hello, HelloReply, Op, SessionId, Status, VERSION, auth,
};

/// For connecting, and for each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server that can be used has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// What it can do.
    pub(crate) features: Features,
    /// Whether it has no memory to give now.
    pub(crate) full: bool,
}

/// Asks all servers at the same time; for each, what it can do, or what is wrong
/// with it. Those with RDMA are asked through the agent.
pub(crate) fn check(
    servers: &[ServerAddr],
    secret: Option<&[u8]>,
    agent: Result<&Agent, &str>,
) -> Vec<Result<Answer, String>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(move || ask(server, secret, agent)))
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
) -> Result<Answer, String> {
    let unreachable = |e: &dyn std::fmt::Display| format!("cannot be reached: {e}");
    let talked = match server.scheme {
        Scheme::Any | Scheme::Tcp => {
            talk(&mut connect(server).map_err(|e| unreachable(&e))?, secret)
        }
        Scheme::Rdma => {
            let agent = agent.map_err(|e| unreachable(&e))?;
            talk(&mut dial(server, agent)?, secret)
        }
    };
    talked.map_err(|error| match error {
        Talk::Said(text) => text,
        Talk::Lost(e)
            if matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            "does not answer".to_owned()
        }
        Talk::Lost(e) => format!("closed the connection: {e}"),
        Talk::Garbage => "is not a tmem memory server".to_owned(),
    })
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

enum Talk {
    Said(String),
    Lost(io::Error),
    Garbage,
}

impl From<io::Error> for Talk {
    fn from(error: io::Error) -> Talk {
        Talk::Lost(error)
    }
}

fn talk(stream: &mut (impl Read + Write), secret: Option<&[u8]>) -> Result<Answer, Talk> {
    let nonce = random()?;
    let hello = Hello {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
        session: SessionId::NEW,
        nonce,
    };
    let (mut status, mut payload) = exchange(stream, Op::Hello, 1, &hello.encode())?;
    if status == Status::Auth {
        let challenge = HelloReply::decode(&payload)
            .map_err(|_| Talk::Garbage)?
            .challenge;
        let secret =
            secret.ok_or_else(|| Talk::Said("wants a secret: use --secret-file".into()))?;
        let proof = auth::proof(secret, &challenge, &nonce);
        (status, payload) = exchange(stream, Op::Auth, 2, &proof)?;
    }
    let refusal = match status {
        Status::Ok => None,
        Status::Auth => Some("does not accept the secret in the secret file".to_owned()),
        Status::BadVersion => Some(format!("does not speak version {VERSION} of the protocol")),
        Status::Full | Status::Limit => Some("is full".to_owned()),
        other => Some(format!("refuses: {other}")),
    };
    if let Some(text) = refusal {
        return Err(Talk::Said(text));
    }
    let reply = HelloReply::decode(&payload).map_err(|_| Talk::Garbage)?;
    if reply.version != VERSION {
        let text = format!("does not speak version {VERSION} of the protocol");
        return Err(Talk::Said(text));
    }
    // The session is of no further use; a server that is gone now is found
    // missing by the program's own connection.
    let _ = stream.write_all(&Header::request(Op::Bye, 3).encode());
    Ok(Answer {
        features: reply.features,
        full: reply.free_pages == 0,
    })
}

fn exchange(
    stream: &mut (impl Read + Write),
    op: Op,
    id: u64,
    payload: &[u8],
) -> Result<(Status, Vec<u8>), Talk> {
    let mut request = Header::request(op, id);
    request.len = payload.len() as u32;
    let mut message = request.encode().to_vec();
    message.extend_from_slice(payload);
    stream.write_all(&message)?;
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head)?;
    let reply = Header::decode(&head).map_err(|_| Talk::Garbage)?;
    if !reply.reply || reply.op != op || reply.id != id {
        return Err(Talk::Garbage);
    }
    // The decoder has bounded the length.
    let mut payload = vec![0; reply.len as usize];
    stream.read_exact(&mut payload)?;
    Ok((reply.status, payload))
}
