//! Resolves the names of servers for the processes of the program, so that they need not. A
//! name that has no address yet is used once it has one.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tmem_config::ServerAddr;

use crate::stats::Stats;

/// How long the program waits for addresses. Then it starts without them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(10);

/// Resolves the names of all servers, in the background until each has an address. Returns
/// when most are likely to have one.
pub(crate) fn look_for(stats: &Stats, servers: &[ServerAddr]) {
    let (tried, results) = mpsc::channel();
    let mut asked = 0;
    for server in servers {
        if let Ok(address) = server.host.parse() {
            let name = server.to_string();
            if stats.names().begin(&name) {
                let address = SocketAddr::new(address, server.port);
                stats.names().set(&name, &[address]);
            }
            continue;
        }
        // Without memory or threads for it, each process resolves them itself.
        let Ok(stats) = stats.again() else { return };
        if !stats.names().begin(&server.to_string()) {
            return;
        }
        let (server, tried) = (server.clone(), tried.clone());
        let look = move || resolve(&stats, &server, &tried);
        asked += usize::from(thread::Builder::new().spawn(look).is_ok());
    }
    let until = Instant::now() + PATIENCE;
    for _ in 0..asked {
        let left = until.saturating_duration_since(Instant::now());
        if results.recv_timeout(left).is_err() {
            return;
        }
    }
}

fn resolve(stats: &Stats, server: &ServerAddr, tried: &mpsc::Sender<()>) {
    loop {
        let found = (server.host.as_str(), server.port).to_socket_addrs();
        let found: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
        let is_found = !found.is_empty();
        if is_found {
            stats.names().set(&server.to_string(), &found);
        }
        // Nobody may wait for it any more.
        let _ = tried.send(());
        if is_found {
            return;
        }
        thread::sleep(PAUSE);
    }
}
