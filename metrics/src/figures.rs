//! Figures in the words of Prometheus: base units, and `_total` at counters.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;

/// Something that has figures.
pub trait Source: Send + Sync + 'static {
    /// Tells all figures as they are now.
    ///
    /// # Errors
    /// Those of the text that is written.
    fn figures(&self, to: &mut Figures<'_>) -> fmt::Result;

    /// Whether it does what it is there for.
    ///
    /// # Errors
    /// What it does not do, in few words.
    fn readiness(&self) -> Result<(), &'static str>;
}

/// Takes figures. A name gets its unit and `_total` at its end.
pub struct Figures<'a>(DescriptorEncoder<'a>);

impl fmt::Debug for Figures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

/// How often something took how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// A name and a value by which it is told from others of the same metric.
    pub label: Option<(&'static str, &'static str)>,
    /// Upper bounds in seconds, the last one infinite, and how many were not beyond it, but
    /// beyond the bound before.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all times, in seconds.
    pub sum: f64,
}

impl Figures<'_> {
    /// A figure that rises and falls.
    ///
    /// # Errors
    /// Those of the text that is written.
    pub fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: V,
    ) -> fmt::Result {
        let metric = self.describe(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    /// A figure that only rises.
    ///
    /// # Errors
    /// Those of the text that is written.
    pub fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: V,
    ) -> fmt::Result {
        let metric = self.describe(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    /// Times, in seconds.
    ///
    /// # Errors
    /// Those of the text that is written.
    pub fn histogram(&mut self, name: &str, help: &str, of: &[Histogram]) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.describe(name, help, unit, MetricType::Histogram)?;
        for histogram in of {
            match histogram.label {
                Some(label) => histogram.encode(&mut metric.encode_family(&[label])?)?,
                None => histogram.encode(&mut metric)?,
            }
        }
        Ok(())
    }

    /// What does not change, as labels.
    ///
    /// # Errors
    /// Those of the text that is written.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        let metric = self.describe(name, help, None, MetricType::Info)?;
        Info::new(labels.to_vec()).encode(metric)
    }

    fn describe<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        of_type: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, of_type)
    }
}

impl Histogram {
    fn encode(&self, to: &mut MetricEncoder<'_>) -> fmt::Result {
        let count = self.buckets.iter().map(|bucket| bucket.1).sum();
        to.encode_histogram::<[(&str, &str); 0]>(self.sum, count, &self.buckets, None)
    }
}

/// A source as the library asks it.
struct Asked<S>(Arc<S>);

impl<S> fmt::Debug for Asked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

impl<S: Source> Collector for Asked<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.figures(&mut Figures(encoder))
    }
}

/// Returns all figures as OpenMetrics text.
///
/// # Errors
/// Those of the source.
pub fn render<S: Source>(source: &Arc<S>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Asked(source.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock;

    impl Source for Clock {
        fn figures(&self, to: &mut Figures<'_>) -> fmt::Result {
            to.gauge("a", "Room", Some(&Unit::Bytes), 7u64)?;
            to.counter("b", "Time", Some(&Unit::Seconds), 1.5)?;
            to.counter("c", "Events", None, 3u64)?;
            let histogram = |label, sum| Histogram {
                label,
                buckets: vec![(0.5, 2), (f64::INFINITY, 1)],
                sum,
            };
            to.histogram("d", "Waits", &[histogram(None, 4.0)])?;
            to.histogram("e", "Calls", &[histogram(Some(("op", "read")), 5.0)])?;
            to.info("f", "Release", &[("version", "1")])
        }

        fn readiness(&self) -> Result<(), &'static str> {
            Ok(())
        }
    }

    #[test]
    fn names_have_units_and_totals_and_buckets_add_up() {
        let text = render(&Arc::new(Clock)).expect("text");
        for line in [
            "# HELP a_bytes Room",
            "# UNIT a_bytes bytes",
            "a_bytes 7",
            "b_seconds_total 1.5",
            "c_total 3",
            "d_seconds_sum 4.0",
            "d_seconds_count 3",
            "d_seconds_bucket{le=\"0.5\"} 2",
            "d_seconds_bucket{le=\"+Inf\"} 3",
            "e_seconds_bucket{le=\"+Inf\",op=\"read\"} 3",
            "f_info{version=\"1\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
