//! The figures of the server.

use std::fmt;
use tmem_memserver::{Observer, Requests};
use tmem_metrics::{Figures, Histogram, Source, Unit};
use tmem_wire::{PAGE_SIZE, ServerStats, VERSION};

/// A server that is asked at each scrape.
#[derive(Debug)]
pub(crate) struct Server(pub(crate) Observer);

impl Source for Server {
    fn figures(&self, to: &mut Figures<'_>) -> fmt::Result {
        stats(to, &self.0.stats())?;
        requests(to, self.0.requests())?;
        to.info(
            "tmem_memserver_build",
            "The release of the server and its version of the protocol",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("protocol", &VERSION.to_string()),
            ],
        )
    }

    fn readiness(&self) -> Result<(), &'static str> {
        match self.0.takes_clients() {
            true => Ok(()),
            false => Err("takes no clients"),
        }
    }
}

fn stats(to: &mut Figures<'_>, stats: &ServerStats) -> fmt::Result {
    let bytes = |pages: u64| pages * PAGE_SIZE as u64;
    let size = Some(&Unit::Bytes);
    for (name, help, unit, value) in [
        (
            "capacity",
            "Memory that the server may give",
            size,
            bytes(stats.capacity_pages),
        ),
        (
            "granted",
            "Memory given to programs",
            size,
            bytes(stats.granted_pages),
        ),
        (
            "stored",
            "Memory that holds pages",
            size,
            bytes(stats.stored_pages),
        ),
        (
            "sessions",
            "Programs with memory here, connected or not",
            None,
            stats.sessions,
        ),
        ("connections", "Connections", None, stats.connections),
    ] {
        to.gauge(&format!("tmem_memserver_{name}"), help, unit, value)?;
    }
    to.gauge(
        "tmem_memserver_uptime",
        "Time since the server began",
        Some(&Unit::Seconds),
        stats.uptime_ms as f64 / 1000.0,
    )?;
    for (name, help, pages) in [
        ("read", "Pages sent to programs", stats.pages_read),
        (
            "written",
            "Pages received from programs",
            stats.pages_written,
        ),
    ] {
        let name = format!("tmem_memserver_{name}");
        to.counter(&name, help, size, bytes(pages))?;
    }
    Ok(())
}

fn requests(to: &mut Figures<'_>, requests: Vec<Requests>) -> fmt::Result {
    let histogram = |of: Requests| Histogram {
        label: Some(("op", of.op)),
        buckets: of.buckets,
        sum: of.sum,
    };
    let histograms: Vec<Histogram> = requests.into_iter().map(histogram).collect();
    to.histogram(
        "tmem_memserver_request_duration",
        "Time from a request's arrival until its answer is ready, without the network",
        &histograms,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tmem_memserver::Config;

    #[test]
    fn metrics_have_units_and_totals() {
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            capacity: 64 << 20,
            measures: true,
            ..Config::default()
        };
        let server = tmem_memserver::Server::bind(config)
            .and_then(tmem_memserver::Server::spawn)
            .expect("a server");
        let text = tmem_metrics::render(&Arc::new(Server(server.observer()))).expect("text");
        for line in [
            "# UNIT tmem_memserver_capacity_bytes bytes",
            "tmem_memserver_capacity_bytes 67108864",
            "tmem_memserver_read_bytes_total 0",
            "tmem_memserver_request_duration_seconds_bucket{le=\"+Inf\",op=\"write\"} 0",
            "tmem_memserver_request_duration_seconds_count{op=\"read\"} 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
