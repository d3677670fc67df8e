//! `tmem run --server embedded`: a server within the command itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tmem_tests::process::as_from_a_shell;
use tmem_wire::{HEADER_LEN, Header, Hello, Op, SessionId, Status, VERSION, auth::Keys};

/// `tmem run` with a library that loads: it pages nothing, and need not.
fn tmem() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TMEM_") {
            command.env_remove(name);
        }
    }
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
    as_from_a_shell(&mut command).args(["run", "--strict", "--local", "64M"]);
    command.env("TMEM_LOG", "error");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// The same with an embedded server.
fn embedded() -> Command {
    let mut command = tmem();
    command.args(["--server", "embedded"]);
    command
}

fn shell(script: &str) -> Child {
    embedded()
        .args(["--", "sh", "-c", script])
        .spawn()
        .expect("tmem can be run")
}

/// Asks and receives the answer.
fn ask(stream: &mut TcpStream, op: Op, count: u32, payload: &[u8]) -> (Status, Vec<u8>) {
    let request = Header {
        count,
        len: payload.len() as u32,
        ..Header::request(op, 1)
    };
    let message = [&request.encode()[..], payload].concat();
    stream.write_all(&message).expect("the server is there");
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).expect("the server answers");
    let reply = Header::decode(&head).expect("the server speaks the protocol");
    let mut body = vec![0; reply.len as usize];
    stream.read_exact(&mut body).expect("the whole answer");
    (reply.status, body)
}

/// Greets, and proves to know the secret.
fn greet(address: &str, secret: &[u8]) -> (TcpStream, Status) {
    let mut stream = TcpStream::connect(address).expect("the server is there");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    let hello = Hello {
        min_version: VERSION,
        max_version: VERSION,
        features: 0,
        session: SessionId::NEW,
        nonce: [3; 16],
    };
    let (status, body) = ask(&mut stream, Op::Hello, 0, &hello.encode());
    assert_eq!(status, Status::Auth, "strangers are not served");
    let keys = Keys::new(secret, 0, &hello.encode(), &body);
    let auth = keys.auth(SessionId::NEW);
    let (status, body) = ask(&mut stream, Op::Auth, 0, &auth);
    assert_eq!(keys.told(&auth, &body).is_some(), status == Status::Ok);
    (stream, status)
}

#[test]
fn the_program_is_told_of_a_server_that_nobody_else_can_use() {
    let script = "echo $TMEM_SERVERS; cat $TMEM_SECRET_FILE; echo; \
         stat -L -c %a $TMEM_SECRET_FILE; read line; exit 6";
    let mut child = embedded()
        .env("TMEM_LOG", "warn")
        .args(["--", "sh", "-c", script])
        .spawn()
        .expect("tmem can be run");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    let (address, secret, mode) = (line(), line(), line());
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!((secret.len(), mode.as_str()), (64, "600"));
    assert_eq!(greet(&address, b"guess").1, Status::Auth);
    let (mut stream, status) = greet(&address, secret.as_bytes());
    assert_eq!(status, Status::Ok);
    assert_eq!(ask(&mut stream, Op::Grant, 3, &[]).0, Status::Ok);
    assert_eq!(ask(&mut stream, Op::Write, 1, &[7; 4096]).0, Status::Ok);
    assert!(ask(&mut stream, Op::Read, 1, &[]).1 == [7; 4096]);
    // The server ends with the program, whoever is still connected.
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stderr).unwrap();
    let said = "tmem: embedded memory server: a wrong secret came from this machine\n";
    let notice = text
        .strip_suffix(said)
        .expect("who tried a secret is told of");
    assert!(notice.contains("pages stay in this machine's memory"));
    assert_eq!(notice.lines().count(), 1, "{text}");
    // It says goodbye.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest[0] == Op::Bye as u8, "{rest:?}");
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn each_run_has_a_secret_of_its_own() {
    let secret = || {
        let output = shell("cat $TMEM_SECRET_FILE").wait_with_output().unwrap();
        assert_eq!(output.stdout.len(), 64);
        output.stdout
    };
    assert_ne!(secret(), secret());
}

#[test]
fn it_is_said_in_one_line_that_memory_stays_on_this_machine() {
    let output = tmem()
        .env_remove("TMEM_LOG")
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("tmem: no memory server named"), "{text}");
    assert!(text.contains("this machine's memory"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// The command does not start a program, and says why.
fn assert_refused(mut command: Command, why: &str) {
    let output = command
        .args(["--", "true"])
        .output()
        .expect("tmem can be run");
    assert_eq!(output.status.code(), Some(125), "{why}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains(why), "{text}");
}

fn with(mut command: Command, flags: [&str; 2]) -> Command {
    command.args(flags);
    command
}

#[test]
fn an_embedded_server_is_used_alone() {
    let both = with(embedded(), ["--server", "127.0.0.1:1"]);
    assert_refused(both, "embedded is used alone");
}

#[test]
fn a_folder_without_room_for_a_spill_file_is_named_before_the_program_starts() {
    for folder in ["/nowhere/at/all", "/dev/null"] {
        let spills = with(tmem(), ["--spill", folder]);
        assert_refused(spills, &format!("tmem: --spill {folder}: "));
    }
}

#[test]
fn a_named_server_is_not_replaced_when_it_is_not_there() {
    let named = with(tmem(), ["--server", "127.0.0.1:1"]);
    assert_refused(named, "127.0.0.1:1 cannot be reached");
}

#[test]
fn the_program_has_no_further_descriptors_and_the_same_signals() {
    let show = "ls /proc/self/fd; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status";
    let native = as_from_a_shell(&mut Command::new("sh"))
        .args(["-c", show])
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let under = shell(show).wait_with_output().unwrap();
    assert_eq!(without_libc(&under.stdout), without_libc(&native.stdout));
}

/// The C library's own two signals, 32 and 33, left out: its `posix_spawn` has
/// them ignored, and its threads have one of them handled.
fn without_libc(shown: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(shown);
    let line = |line: &str| match line.split_once(":\t") {
        Some((name, mask)) => {
            let mask = u64::from_str_radix(mask, 16).expect("a mask in hex");
            format!("{name} {:x}", mask & !(3 << 31))
        }
        None => line.to_owned(),
    };
    text.lines().map(line).collect()
}

#[test]
fn signals_reach_the_program_and_not_the_threads_of_the_server() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1", "ALRM", "PIPE"] {
        let script = format!("trap 'exit 42' {signal}; printf r; while :; do sleep 0.01; done");
        let mut child = shell(&script);
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0])
            .expect("the program runs");
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(42), "{signal}");
    }
}

#[test]
fn it_ends_with_a_program_that_is_killed_or_cannot_be_started() {
    assert_eq!(shell("kill -KILL $$").wait().unwrap().code(), Some(137));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let output = tmem().arg("--").arg(&script).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
}
