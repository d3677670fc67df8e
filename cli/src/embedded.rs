//! The embedded memory server (`--server embedded`).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tmem_config::{Level, Memory, Scheme, ServerAddr, new_secret};
use tmem_memserver::{Config, Error, Handle, Server, bearable_connections};

use crate::open_files;

/// The server; it ends when this is dropped, and its memory with it.
pub(crate) struct Embedded {
    handle: Handle,
    capacity: u64,
    secret: String,
    file: File,
}

impl Embedded {
    /// Starts it. Its threads inherit the signal mask.
    pub(crate) fn start(level: Level, memory: &Memory) -> Result<Embedded, String> {
        let failed = |e: &dyn std::fmt::Display| format!("embedded memory server: {e}");
        let (secret, file) = secret().map_err(|e| failed(&e))?;
        open_files::raise();
        // Memory is only used as pages come, so a large capacity costs nothing.
        let mut capacity = memory.most();
        let bound = loop {
            let bound = Server::bind(config(capacity, &secret, level));
            // A kernel that does not overcommit may refuse so much.
            if !matches!(bound, Err(Error::Reserve { .. })) || capacity <= LEAST {
                break bound;
            }
            capacity /= 2;
        };
        let handle = bound.and_then(Server::spawn).map_err(|e| failed(&e))?;
        Ok(Embedded {
            handle,
            capacity,
            secret,
            file,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> ServerAddr {
        let addr = self.handle.addr();
        ServerAddr {
            scheme: Scheme::Any,
            host: addr.ip().to_string(),
            port: addr.port(),
            zone: None,
        }
    }

    /// The message that this machine gains no memory by it.
    pub(crate) fn notice(&self) -> String {
        format!(
            "pages stay in this machine's memory, with an embedded server on {} that may have {} \
             MiB of it",
            self.handle.addr(),
            self.capacity >> 20
        )
    }

    /// Its secret.
    pub(crate) fn secret(&self) -> Vec<u8> {
        self.secret.clone().into_bytes()
    }

    /// The file with its secret, which other users cannot open.
    pub(crate) fn secret_file(&self) -> PathBuf {
        let fd = self.file.as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id()).into()
    }
}

/// Less than this is not worth trying.
const LEAST: u64 = 64 << 20;

fn config(capacity: u64, secret: &str, level: Level) -> Config {
    let connections = bearable_connections(false);
    Config {
        listen: "127.0.0.1:0".to_owned(),
        capacity,
        secret: Some(secret.as_bytes().to_vec()),
        // There is one client only: the programs of this run.
        max_connections: connections,
        max_per_client: Some(connections),
        log: Some(Arc::new(move |l, text| {
            if l <= level {
                eprintln!("tmem: embedded memory server: {text}");
            }
        })),
        ..Config::default()
    }
}

/// A new secret, and a file with it that exists as long as this process. It has no name but
/// that of this process's descriptor, which only its user may open.
fn secret() -> io::Result<(String, File)> {
    let secret = new_secret()?;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"tmem-secret".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(secret.as_bytes())?;
    Ok((secret, file))
}
