//! The figures of the server in the words of Prometheus: base units, and `_total` at counters.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use tmem_memserver::{Observer, Requests};
use tmem_wire::{PAGE_SIZE, ServerStats, VERSION};

/// A server whose figures are asked for at each scrape.
#[derive(Debug)]
struct Figures(Observer);

/// All metrics as OpenMetrics text.
pub(crate) fn render(server: &Observer) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(server.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        stats(&mut encoder, &self.0.stats())?;
        requests(&mut encoder, &self.0.requests())?;
        let build = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("protocol", VERSION.to_string()),
        ];
        let info = prometheus_client::metrics::info::Info::new(build.to_vec());
        let help = "The release of the server and its version of the protocol";
        let metric =
            encoder.encode_descriptor("tmem_memserver_build", help, None, MetricType::Info)?;
        info.encode(metric)
    }
}

fn stats(encoder: &mut DescriptorEncoder<'_>, stats: &ServerStats) -> fmt::Result {
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
        let name = format!("tmem_memserver_{name}");
        let gauge = ConstGauge::new(value as i64);
        gauge.encode(encoder.encode_descriptor(&name, help, unit, MetricType::Gauge)?)?;
    }
    let uptime = ConstGauge::new(stats.uptime_ms as f64 / 1000.0);
    uptime.encode(encoder.encode_descriptor(
        "tmem_memserver_uptime",
        "Time since the server began",
        Some(&Unit::Seconds),
        MetricType::Gauge,
    )?)?;
    for (name, help, pages) in [
        ("read", "Pages sent to programs", stats.pages_read),
        (
            "written",
            "Pages received from programs",
            stats.pages_written,
        ),
    ] {
        let name = format!("tmem_memserver_{name}");
        let counter = ConstCounter::new(bytes(pages));
        counter.encode(encoder.encode_descriptor(&name, help, size, MetricType::Counter)?)?;
    }
    Ok(())
}

fn requests(encoder: &mut DescriptorEncoder<'_>, requests: &[Requests]) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "tmem_memserver_request_duration",
        "Time from a request's arrival until its answer is ready, without the network",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for of in requests {
        let labels = [("op", of.op)];
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_histogram::<[(&str, &str); 0]>(of.sum, of.count, &of.buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_memserver::{Config, Server};

    #[test]
    fn metrics_have_units_and_totals() {
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            capacity: 64 << 20,
            measures: true,
            ..Config::default()
        };
        let server = Server::bind(config)
            .and_then(Server::spawn)
            .expect("a server");
        let text = render(&server.observer()).expect("text");
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
