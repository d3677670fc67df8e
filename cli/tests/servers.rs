//! What `tmem run` says about servers that speak the protocol.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::Duration;

use tmem_wire::{
    HEADER_LEN, Header, Hello, HelloReply, Op, SessionId, Status, VERSION, auth::Keys,
};

const SECRET: &[u8] = b"a shared secret..";

/// How the server of a test answers.
#[derive(Clone, Copy)]
enum Server {
    Refuses(Status),
    Version(u16),
    Free(u64),
    WantsSecret,
    /// Takes any proof for right, and knows nothing.
    Pretends,
    Silent,
    /// Answers, and is slow to do so.
    Busy,
}

fn read_message(stream: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).ok()?;
    let mut payload = vec![0; header.len as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((header, payload))
}

fn answer(stream: &mut TcpStream, request: &Header, status: Status, payload: &[u8]) {
    let header = request.reply(status, payload.len() as u32);
    let message = [&header.encode()[..], payload].concat();
    stream
        .write_all(&message)
        .expect("the client waits for this");
}

/// Serves one connection until the client closes it.
fn serve(how: Server) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        let mut keys = None;
        let mut reply = HelloReply {
            version: VERSION,
            features: 0,
            slab_pages: 512,
            session: SessionId([7; 16]),
            instance: [1; 16],
            challenge: [9; 16],
            capacity_pages: 1 << 20,
            free_pages: 1 << 19,
        };
        match how {
            Server::Version(version) => reply.version = version,
            Server::Free(pages) => reply.free_pages = pages,
            _ => {}
        }
        while let Some((request, payload)) = read_message(&mut stream) {
            if matches!(how, Server::Busy) && request.op == Op::Hello {
                std::thread::sleep(Duration::from_secs(5));
            }
            match (how, request.op) {
                (_, Op::Bye) => return,
                (Server::Silent, _) => {}
                (Server::Refuses(status), _) => answer(&mut stream, &request, status, b"no"),
                (Server::WantsSecret | Server::Pretends, Op::Hello) => {
                    assert!(Hello::decode(&payload).is_ok(), "a HELLO");
                    let challenge = reply.encode();
                    keys = Some(Keys::new(SECRET, request.slab, &payload, &challenge));
                    answer(&mut stream, &request, Status::Auth, &challenge);
                }
                (Server::WantsSecret, Op::Auth) => {
                    let keys = keys.take().expect("after a HELLO");
                    match keys.session(&payload) {
                        Some(_) => {
                            let told = keys.reply(&payload, &reply);
                            answer(&mut stream, &request, Status::Ok, &told);
                        }
                        None => answer(&mut stream, &request, Status::Auth, b""),
                    }
                }
                (Server::Pretends, Op::Auth) => {
                    let told = [&reply.encode()[..], &[0; 32]].concat();
                    answer(&mut stream, &request, Status::Ok, &told);
                }
                _ => answer(&mut stream, &request, Status::Ok, &reply.encode()),
            }
        }
    });
    (address, thread)
}

/// `tmem run --strict` with these servers: the checks pass or it is not started.
/// The library does not matter to them; the C library is one that loads.
fn run(servers: &[String], flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem"));
    command.args([
        "run",
        "--strict",
        "--local",
        "64M",
        "--server",
        &servers.join(","),
    ]);
    let library = std::fs::read_to_string("/proc/self/maps")
        .expect("there is a /proc")
        .lines()
        .find_map(|line| {
            line.split_whitespace()
                .last()
                .filter(|p| p.contains("/libc.so"))
        })
        .expect("tests are dynamically linked")
        .to_owned();
    command.env("TMEM_LIB", library);
    command
        .args(flags)
        .args(["--", "echo", "ran"])
        .output()
        .expect("tmem can be run")
}

fn said(how: Server, flags: &[&str]) -> String {
    let (server, thread) = serve(how);
    let output = run(std::slice::from_ref(&server), flags);
    thread.join().expect("the server of the test does not fail");
    let text = String::from_utf8(output.stderr).expect("text");
    if output.status.code() == Some(0) {
        assert_eq!(output.stdout, b"ran\n");
    } else {
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(output.stdout.is_empty());
        assert!(
            text.starts_with(&format!("tmem: server {server} ")),
            "{text}"
        );
        // One more tells that the server takes its time.
        let lines = if matches!(how, Server::Silent) { 2 } else { 1 };
        assert_eq!(text.lines().count(), lines, "{text}");
    }
    text
}

#[test]
fn a_good_server_is_not_talked_about() {
    assert_eq!(said(Server::Free(1), &[]), "");
}

#[test]
fn a_busy_server_is_waited_for_and_that_is_said_once() {
    let text = said(Server::Busy, &[]);
    assert!(text.contains("may be busy"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn each_refusal_has_its_own_words() {
    let version = format!("does not speak version {VERSION} of the protocol");
    for (how, words) in [
        (Server::Refuses(Status::BadVersion), version.as_str()),
        (Server::Version(VERSION + 1), version.as_str()),
        (Server::Refuses(Status::Full), "is full"),
        (Server::Free(0), "is full"),
        (
            Server::Refuses(Status::ShuttingDown),
            "refuses: the server is shutting down",
        ),
        (Server::Silent, "does not answer for 30 s"),
        (
            Server::WantsSecret,
            "wants a secret: name the file with it with --secret-file",
        ),
    ] {
        let text = said(how, &[]);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn the_right_secret_is_accepted_and_a_wrong_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let flags = ["--secret-file", file.to_str().unwrap()];
    std::fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
    assert_eq!(said(Server::WantsSecret, &flags), "");
    // Servers that do not know it get no memory of anybody's.
    for stranger in [Server::Free(1), Server::Pretends] {
        let text = said(stranger, &flags);
        assert!(text.contains("does not prove that it knows"), "{text}");
    }
    std::fs::write(&file, "a wrong secret...").unwrap();
    assert!(said(Server::WantsSecret, &flags).contains("does not accept the secret"));
}

#[test]
fn one_good_server_is_enough_and_the_bad_one_is_named() {
    let (good, first) = serve(Server::Free(1));
    let (bad, second) = serve(Server::Free(0));
    let output = run(&[bad.clone(), good], &[]);
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!(output.stdout, b"ran\n");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        format!("tmem: server {bad} is full; going on with the others\n")
    );
}

#[test]
fn keygen_makes_a_secret_that_nobody_else_can_read() {
    use std::os::unix::fs::MetadataExt;
    let keygen = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tmem"));
        command.arg("keygen").args(args);
        command.output().expect("tmem can be run")
    };
    let printed = keygen(&[]).stdout;
    assert_eq!(printed.len(), 65);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let file = path.to_str().unwrap();
    let output = keygen(&[file]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    let secret = std::fs::read(&path).unwrap();
    assert_eq!(secret.len(), 65);
    assert_ne!(secret, printed);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    // What is there is kept.
    let output = keygen(&[file]);
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("exists already"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), secret);
}
