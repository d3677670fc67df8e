//! What memory servers say of themselves, asked by a thread of its own: one that does not
//! answer holds nobody up.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tmem_config::ServerAddr;
use tmem_wire::{PAGE_SIZE, ServerStats};

use crate::control::text;
use crate::servers::figures;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// A server, as it is shown.
#[derive(Clone, Debug)]
pub(super) struct ServerLine {
    name: String,
    /// Its figures, and pages read and written by the second; or what is wrong.
    now: Result<(ServerStats, f64, f64), String>,
}

impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |pages: u64| text::bytes(pages * PAGE_SIZE as u64);
        let rate = |pages: f64| text::bytes((pages * PAGE_SIZE as f64) as u64);
        match &self.now {
            Ok((stats, read, written)) => write!(
                f,
                "{:<28} {:>8} {:>8} {:>8} {:>9} {:>9}",
                self.name,
                bytes(stats.capacity_pages),
                bytes(stats.granted_pages),
                bytes(stats.stored_pages),
                rate(*read),
                rate(*written)
            ),
            Err(text) => write!(f, "{:<28} {text}", self.name),
        }
    }
}

/// The servers that are asked, as long as this process lives.
pub(super) struct Servers {
    lines: Vec<Arc<Mutex<ServerLine>>>,
}

impl Servers {
    /// Asks them from now on.
    pub(super) fn watch(addresses: &[ServerAddr], secret: Option<&[u8]>) -> Servers {
        let watch = |server: &ServerAddr| {
            let line = Arc::new(Mutex::new(ServerLine {
                name: server.to_string(),
                now: Err("not asked yet".to_owned()),
            }));
            let (server, secret, own) = (server.clone(), secret.map(<[u8]>::to_vec), line.clone());
            // Where no thread can be had, that it was not asked stays there.
            let _ = thread::Builder::new().spawn(move || ask(&server, secret.as_deref(), &own));
            line
        };
        Servers {
            lines: addresses.iter().map(watch).collect(),
        }
    }

    /// What they have said last.
    pub(super) fn lines(&self) -> Vec<ServerLine> {
        let said = |line: &Arc<Mutex<ServerLine>>| {
            line.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.lines.iter().map(said).collect()
    }
}

fn ask(server: &ServerAddr, secret: Option<&[u8]>, line: &Mutex<ServerLine>) {
    let mut before: Option<(Instant, ServerStats)> = None;
    loop {
        let now = figures(server, secret).map(|stats| {
            let at = Instant::now();
            let (read, written) = before.map_or((0.0, 0.0), |(earlier, before)| {
                let seconds = at.duration_since(earlier).as_secs_f64().max(0.001);
                let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
                (
                    rate(before.pages_read, stats.pages_read),
                    rate(before.pages_written, stats.pages_written),
                )
            });
            before = Some((at, stats));
            (stats, read, written)
        });
        line.lock().unwrap_or_else(PoisonError::into_inner).now = now;
        thread::sleep(PAUSE);
    }
}
