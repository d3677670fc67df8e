//! RDMA, the library, the memory servers, and what a miss takes.

use std::time::Duration;

use tmem_benches::floors::{Miss, Server};
use tmem_config::{Level, Memory, Scheme, ServerAddr};
use tmem_wire::{FEATURE_RDMA, PAGE_SIZE, VERSION};

use crate::embedded::Embedded;
use crate::{library, servers};

use super::finding::{Finding, State};

/// For each part of a miss.
const TIME: Duration = Duration::from_millis(100);

/// Whether RDMA can be used.
pub(crate) fn rdma() -> Finding {
    const ABOUT: &str = "RDMA";
    match tmem_rdma::available() {
        Ok(()) => Finding::new(ABOUT, State::Ok, "libraries and a device are there"),
        // The error says what to do.
        Err(error) => Finding::new(ABOUT, State::Note, format!("TCP is used: {error}")),
    }
}

/// Whether the library is there.
pub(crate) fn library() -> Finding {
    const ABOUT: &str = "libtmem.so";
    match library::find() {
        Ok(path) => Finding::new(ABOUT, State::Ok, path.display().to_string()),
        Err(text) => Finding::new(ABOUT, State::Problem, text)
            .remedy("install it beside tmem or in ../lib, or set TMEM_LIB to its path"),
    }
}

/// Asks each server, and measures what a miss takes with those that answer; without any, with
/// one of this machine.
pub(crate) fn servers(
    addresses: &[ServerAddr],
    secret: Option<&[u8]>,
    may_page: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if addresses.is_empty() {
        let text = "none named: `--server HOST:PORT` has them looked at, too";
        found.push(Finding::new("servers", State::Note, text));
        found.extend(may_page.then(here));
        return found;
    }
    let no_agent = Err("the doctor asks over TCP only");
    let plain: Vec<ServerAddr> = addresses
        .iter()
        .map(|server| ServerAddr {
            scheme: Scheme::Tcp,
            ..server.clone()
        })
        .collect();
    let answers = servers::check(&plain, secret, no_agent, Level::Error);
    for (server, answer) in plain.iter().zip(answers) {
        let about = format!("server {}:{}", server.host, server.port);
        match answer {
            Err(text) => found.push(Finding::new(&about, State::Problem, text).remedy(
                "see that tmem-memserver runs there and listens on an address that this \
                     machine reaches: tmem-memserver --listen 0.0.0.0:7070",
            )),
            Ok(answer) => {
                let gib = answer.free_pages as f64 * PAGE_SIZE as f64 / f64::from(1 << 30);
                let rdma = match answer.features & FEATURE_RDMA != 0 {
                    true => "offers RDMA",
                    false => "TCP only",
                };
                let text = format!("protocol {VERSION}, {gib:.1} GiB free, {rdma}");
                let (state, text) = match answer.full {
                    true => (State::Warning, format!("{text}: it is full")),
                    false => (State::Ok, text),
                };
                let finding = Finding::new(&about, state, text);
                found.push(match answer.full {
                    true => finding.remedy("give it more --capacity, or name further servers"),
                    false => finding,
                });
                if may_page && !answer.full {
                    let address = format!("{}:{}", server.host, server.port);
                    found.push(miss(&format!("  a miss, {address}"), address, secret));
                }
            }
        }
    }
    found
}

/// A miss with a server of this machine: the least that it takes here.
fn here() -> Finding {
    const ABOUT: &str = "a miss";
    let server = Memory::get()
        .map_err(|e| e.to_string())
        .and_then(|memory| Embedded::start(Level::Error, &memory));
    match server {
        Ok(server) => {
            let address = server.address();
            let address = format!("{}:{}", address.host, address.port);
            let mut finding = miss(ABOUT, address, Some(&server.secret()));
            finding.text.push_str(" (a server on this machine)");
            finding
        }
        Err(text) => Finding::new(ABOUT, State::Warning, format!("cannot be measured: {text}")),
    }
}

fn miss(about: &str, address: String, secret: Option<&[u8]>) -> Finding {
    let server = Server {
        address,
        secret: secret.map(<[u8]>::to_vec),
    };
    let us = |ns: f64| ns / 1000.0;
    match Miss::measure(&server, TIME) {
        Ok(miss) => Finding::new(
            about,
            State::Ok,
            format!(
                "{:.0} us: {:.0} us for a page from the server (round trip {:.0} us), {:.0} us \
                 for the fault",
                us(miss.ns()),
                us(miss.read.mean_ns),
                us(miss.ping.mean_ns),
                us(miss.fault.mean_ns)
            ),
        ),
        Err(error) => Finding::new(
            about,
            State::Warning,
            format!("cannot be measured: {error}"),
        ),
    }
}
