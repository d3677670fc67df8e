//! A report as charts.

use crate::report::Report;
use crate::svg::{Axis, Chart, Scale, Series};

fn axis(label: &str, scale: Scale) -> Axis {
    Axis {
        label: label.to_owned(),
        scale,
    }
}

/// Slowdown of each pattern by the share of its memory that may be local.
pub fn slowdown(report: &Report) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for row in &report.patterns {
        let (Some(local), Some(slowdown)) = (row.local_percent, row.slowdown) else {
            continue;
        };
        match series.iter_mut().find(|s| s.name == row.pattern) {
            Some(line) => line.points.push((local, slowdown)),
            None => series.push(Series {
                name: row.pattern.to_owned(),
                points: vec![(local, slowdown)],
                dots: true,
            }),
        }
    }
    Chart {
        title: "Slowdown against native".to_owned(),
        x: axis("local memory, % of the working set", Scale::Linear),
        y: axis("times as long as natively", Scale::Log),
        series,
    }
}

/// How the times of single accesses are distributed.
pub fn latency(report: &Report) -> Chart {
    let line = |row: &crate::report::LatencyRow| Series {
        name: row.kind.to_owned(),
        points: row
            .run
            .outcome
            .latency
            .iter()
            .flat_map(|histogram| histogram.shares())
            .map(|(ns, share)| (ns / 1000.0, 100.0 * share))
            .collect(),
        dots: false,
    };
    Chart {
        title: "Single accesses at 50 % local".to_owned(),
        x: axis("time of an access, us", Scale::Log),
        y: axis("% of accesses within it", Scale::Linear),
        series: report.latency.iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::outcome::Outcome;
    use crate::report::{LatencyRow, Paged, PatternRow, Whole};

    #[test]
    fn charts_have_a_line_for_each_pattern_and_kind() {
        let mut report = Report::default();
        for pattern in ["zipf", "strided"] {
            for local in [None, Some(100.0), Some(50.0)] {
                report.patterns.push(PatternRow {
                    pattern,
                    local_percent: local,
                    ns_per_access: 1.0,
                    gb_per_s: None,
                    slowdown: local.map(|l| 200.0 / l),
                    to_floor: None,
                    run: Paged::default(),
                });
            }
        }
        let chart = slowdown(&report);
        assert_eq!(chart.series.len(), 2);
        assert_eq!(chart.series[0].points, [(100.0, 2.0), (50.0, 4.0)]);

        let mut times = Histogram::default();
        times.record(1000);
        times.record(8192);
        let run = Paged {
            outcome: Outcome {
                latency: Some(times),
                ..Outcome::default()
            },
            whole: Whole::default(),
        };
        report.latency.push(LatencyRow::new("zero-fill", run, None));
        let chart = latency(&report);
        assert_eq!(chart.series[0].points.last(), Some(&(8.192, 100.0)));
        assert!(chart.svg().contains("zero-fill"));
    }
}
