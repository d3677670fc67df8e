//! Memory servers under test.

use crate::{MIB, artefacts, process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tmem_wire::{HEADER_LEN, Header, Hello, Op, ServerStats, SessionId, Status, VERSION};

/// A `tmem-memserver` process; killed when dropped.
pub struct MemServer {
    child: Child,
    address: SocketAddr,
}

/// A free port, on loopback or the RDMA device.
const ANYWHERE: &str = "127.0.0.1:0";

impl MemServer {
    /// A server of `capacity` bytes on a free port.
    pub fn spawn(capacity: u64) -> MemServer {
        MemServer::spawn_with(capacity, ANYWHERE, &[])
    }

    /// A server large enough for any test.
    pub fn roomy() -> MemServer {
        MemServer::spawn(crate::scale::pick(4096, 16384) * MIB)
    }

    /// A server on `listen` with further arguments.
    pub fn spawn_with(capacity: u64, listen: &str, args: &[&str]) -> MemServer {
        MemServer::start(Command::new(artefacts::memserver()), capacity, listen, args)
    }

    /// A large server that may lock only `kib` KiB of memory, and writes what it
    /// has to say to the file `said`.
    pub fn locking(kib: u64, said: &Path) -> MemServer {
        let script = format!(
            "ulimit -l {kib}; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$@\" 2>\"$0\""
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        command.args([said, &artefacts::memserver()]);
        MemServer::start(command, 4096 * MIB, ANYWHERE, &[])
    }

    fn start(mut command: Command, capacity: u64, listen: &str, args: &[&str]) -> MemServer {
        let device = crate::scale::rdma().map(|ip| SocketAddr::from((ip, 0)).to_string());
        let listen = match &device {
            Some(device) if listen == ANYWHERE => {
                command.args(["--rdma", device]);
                device
            }
            _ => listen,
        };
        let mut child = command
            .args(["--listen", listen, "--capacity", &capacity.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("tmem-memserver can be run");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        stdout
            .read_line(&mut line)
            .expect("the ready line can be read");
        let address = line
            .split_whitespace()
            .find_map(|word| word.trim_matches(&[',', ';', '.'][..]).parse().ok())
            .unwrap_or_else(|| panic!("the ready line names no address: {line:?}"));
        MemServer { child, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it as its owner would, and waits for its end.
    pub fn end(&mut self) {
        process::signal(self.pid(), libc::SIGTERM);
        let _ = self.child.wait();
    }

    /// Stops it from running, as a hung machine would.
    pub fn freeze(&self) {
        process::signal(self.pid(), libc::SIGSTOP);
    }

    /// Its figures, asked for over a connection of their own.
    pub fn stats(&self) -> ServerStats {
        let mut stream = greeted(self.address);
        let figures = ask(&mut stream, Header::request(Op::Stats, 2), &[]);
        let figures = ServerStats::decode(&figures).expect("STATS answers with figures");
        ask(&mut stream, Header::request(Op::Bye, 3), &[]);
        figures
    }

    /// Waits until the figures are as wanted; the last ones are in the panic
    /// when they never are.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&ServerStats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let stats = self.stats();
            if wanted(&stats) {
                return;
            }
            assert!(Instant::now() < deadline, "not {what}: {stats:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for MemServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection with a session of its own to the server at `address`.
pub fn greeted(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout can be set");
    greet(&mut stream);
    stream
}

/// Opens a session.
pub fn greet(stream: &mut (impl Read + Write)) {
    let hello = Hello {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
        session: SessionId::NEW,
        nonce: [7; 16],
    };
    ask(stream, Header::request(Op::Hello, 1), &hello.encode());
}

/// Sends a request; the payload of the answer to it, which must be good.
pub fn ask(stream: &mut (impl Read + Write), header: Header, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        len: payload.len() as u32,
        ..header
    };
    let message = [&header.encode()[..], payload].concat();
    stream
        .write_all(&message)
        .expect("the server takes a request");
    answer(stream, header.op)
}

/// The payload of the next answer, which must be good.
pub fn answer(stream: &mut impl Read, op: Op) -> Vec<u8> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).expect("the server answers");
    let reply = Header::decode(&head).expect("the server's answer can be decoded");
    let mut payload = vec![0; reply.len as usize];
    stream
        .read_exact(&mut payload)
        .expect("the server answers in full");
    assert_eq!(
        reply.status,
        Status::Ok,
        "{:?}: {}",
        op,
        String::from_utf8_lossy(&payload)
    );
    payload
}
