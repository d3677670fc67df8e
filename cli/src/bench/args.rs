//! Flags of `tmem bench`.

use std::path::PathBuf;
use std::str::FromStr;

use tmem_benches::pattern::Pattern;
use tmem_config::{ServerAddr, Size};

#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// A memory server, host:port; may be given several times; without one, an
    /// embedded server in this machine's memory
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(super) server: Vec<ServerAddr>,
    /// File with the secret that the servers know
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// Memory of each workload [default: 512M, or 96M with --quick]
    #[arg(long, value_name = "SIZE")]
    pub(super) size: Option<Size>,
    /// Shares of it that may be local, in percent [default: 100,75,50,25,12.5,
    /// or 100,50 with --quick]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) local: Vec<Percent>,
    /// Less memory, fewer budgets, less time: within a minute
    #[arg(long)]
    pub(super) quick: bool,
    /// Write all results to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw slowdown.svg and latency.svg in this folder
    #[arg(long, value_name = "DIR")]
    pub(super) plots: Option<PathBuf>,
    /// Write one page with the tables and charts to this file as HTML
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Measure these only: floors, patterns, latency, threads, fits, start, or
    /// single patterns: seq-read, seq-rmw, strided, random-read, random-write,
    /// zipf
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) only: Vec<Part>,
}

/// What `tmem bench` starts itself with.
#[derive(clap::Args)]
pub(crate) struct WorkloadArgs {
    /// The workload as JSON
    pub(super) work: String,
}

/// A share of the workload's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percent(pub(super) f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let number = text.trim().trim_end_matches('%').trim_end();
        match number.parse() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Percent(percent)),
            _ => Err("allowed: percents above 0 up to 100, as in 12.5".to_owned()),
        }
    }
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Floors,
    Patterns,
    Pattern(Pattern),
    Latency,
    Threads,
    Fits,
    Start,
}

const PARTS: [(&str, Part); 6] = [
    ("floors", Part::Floors),
    ("patterns", Part::Patterns),
    ("latency", Part::Latency),
    ("threads", Part::Threads),
    ("fits", Part::Fits),
    ("start", Part::Start),
];

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let part = PARTS.iter().find(|(name, _)| *name == text);
        let pattern = || text.parse().ok().map(Part::Pattern);
        part.map(|(_, part)| *part).or_else(pattern).ok_or_else(|| {
            let names = PARTS.iter().map(|(name, _)| *name);
            let names: Vec<_> = names.chain(Pattern::ALL.map(Pattern::name)).collect();
            format!("allowed: {}", names.join(", "))
        })
    }
}

impl BenchArgs {
    /// Whether a part is wanted.
    pub(super) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The access patterns that are wanted.
    pub(super) fn patterns(&self) -> Vec<Pattern> {
        let wanted = |p: &Pattern| self.wants(Part::Patterns) || self.wants(Part::Pattern(*p));
        Pattern::ALL.into_iter().filter(wanted).collect()
    }

    /// Bytes of each workload's memory, in whole pages.
    pub(super) fn bytes(&self, ram: u64) -> u64 {
        let default = Size::Bytes(if self.quick { 96 << 20 } else { 512 << 20 });
        self.size.unwrap_or(default).bytes(ram) & !0xFFF
    }

    /// Shares that may be local, in percent.
    pub(super) fn shares(&self) -> Vec<f64> {
        match (self.local.is_empty(), self.quick) {
            (false, _) => self.local.iter().map(|p| p.0).collect(),
            (true, false) => vec![100.0, 75.0, 50.0, 25.0, 12.5],
            (true, true) => vec![100.0, 50.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents() {
        assert_eq!("12.5".parse(), Ok(Percent(12.5)));
        assert_eq!("100%".parse(), Ok(Percent(100.0)));
        for text in ["0", "-5", "101", "half", "", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts() {
        assert_eq!("floors".parse(), Ok(Part::Floors));
        assert_eq!("zipf".parse(), Ok(Part::Pattern(Pattern::Zipf)));
        let error = "disk".parse::<Part>().unwrap_err();
        assert!(error.contains("floors") && error.contains("random-write"));
    }
}
