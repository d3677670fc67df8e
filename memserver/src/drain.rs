//! `tmem-memserver drain`: has another server end once it holds nothing.

use crate::args::Drain;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::random;
use tmem_wire::greeting::Client;
use tmem_wire::{
    FEATURE_NOTICE, HEADER_LEN, Header, MAX_CONTROL, Op, PAGE_SIZE, ServerStats, Status,
};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is asked what it holds.
const EVERY: Duration = Duration::from_millis(200);

/// A greeted connection.
struct Server {
    stream: TcpStream,
    next: u64,
}

/// Has the server drain, and waits for its end; whether it has ended.
///
/// # Errors
/// Where it cannot be reached, or refuses.
pub(crate) fn drain(args: &Drain) -> Result<bool, Box<dyn Error>> {
    let secret = args.secret_file.as_deref();
    let secret = secret.map(tmem_config::read_secret).transpose()?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let name = &args.server;
    let failed = |error: Box<dyn Error>| format!("server {name}: {error}");
    let mut server = Server::greet(name, secret.as_deref()).map_err(failed)?;
    server.ask(Op::Drain).map_err(failed)?;
    loop {
        // A server that has ended answers nothing.
        let Ok(stats) = server.ask(Op::Stats) else {
            println!("server {name} is drained, and has ended");
            return Ok(true);
        };
        let stats = ServerStats::decode(&stats)?;
        if Instant::now() >= deadline {
            let mib = (stats.stored_pages * PAGE_SIZE as u64) >> 20;
            // This connection has one, too.
            let sessions = stats.sessions.saturating_sub(1);
            println!(
                "server {name} still holds {} pages ({mib} MiB) of {sessions} sessions: their \
                 clients have no room on other servers, or do not know of draining; it ends \
                 once they are moved",
                stats.stored_pages
            );
            return Ok(false);
        }
        thread::sleep(EVERY);
    }
}

impl Server {
    fn greet(name: &str, secret: Option<&[u8]>) -> Result<Server, Box<dyn Error>> {
        let mut stream = TcpStream::connect(name)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut greeting = Client::new(None, 0, 0, secret, random()?, Vec::new());
        loop {
            let unsent = greeting.unsent().to_vec();
            stream.write_all(&unsent)?;
            greeting.sent(unsent.len());
            let count = stream.read(greeting.room())?;
            if count == 0 {
                return Err("it closed the connection".into());
            }
            if let Some(reply) = greeting.received(count, secret)? {
                if reply.features & FEATURE_NOTICE == 0 {
                    return Err("it is of a release that cannot be drained".into());
                }
                return Ok(Server { stream, next: 1 });
            }
        }
    }

    /// Asks for something that has no payload; the payload of the answer.
    fn ask(&mut self, op: Op) -> Result<Vec<u8>, Box<dyn Error>> {
        let id = self.next;
        self.next += 1;
        self.stream.write_all(&Header::request(op, id).encode())?;
        let mut head = [0; HEADER_LEN];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head)?;
        if header.id != id || header.len > MAX_CONTROL {
            return Err("it has ended".into());
        }
        let mut body = vec![0; header.len as usize];
        self.stream.read_exact(&mut body)?;
        match header.status {
            Status::Ok => Ok(body),
            Status::Auth => {
                Err("it has no secret, and is drained from its own machine only".into())
            }
            status => Err(format!("it refuses: {status}").into()),
        }
    }
}
