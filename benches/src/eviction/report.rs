//! Tables of results.

use super::catalog::{Entry, OPT, Sees, TMEM};
use super::simulate::{Costs, Counts};
use crate::table::Table;

/// What one trace cost with one capacity, for each policy in the order of the catalog.
pub struct Found {
    /// The trace.
    pub trace: String,
    /// Uses of pages in it.
    pub uses: u64,
    /// Percent of its pages that are held.
    pub percent: usize,
    /// The counts of each policy.
    pub counts: Vec<Counts>,
}

/// The cost of the policy of this name.
fn cost_of(name: &str, found: &Found, entries: &[Entry], costs: &Costs) -> f64 {
    let at = entries.iter().position(|entry| entry.name == name);
    at.map_or(f64::NAN, |at| found.counts[at].cost(costs))
}

fn ratio(cost: f64, to: f64) -> String {
    if to > 0.0 {
        format!("{:.2}", cost / to)
    } else {
        String::from("-")
    }
}

/// The table of one trace with one capacity.
pub fn one(found: &Found, entries: &[Entry], costs: &Costs) -> Table {
    let title = format!("{}, {} % of its pages held", found.trace, found.percent);
    let heads = [
        "policy",
        "sees",
        "misses",
        "miss %",
        "standby %",
        "ms",
        "to OPT",
        "to tmem",
    ];
    let mut table = Table::new(title, &heads);
    let opt = cost_of(OPT, found, entries, costs);
    let tmem = cost_of(TMEM, found, entries, costs);
    for (entry, counts) in entries.iter().zip(&found.counts) {
        let cost = counts.cost(costs);
        let percent = |n: u64| format!("{:.3}", n as f64 * 100.0 / found.uses.max(1) as f64);
        table.row([
            entry.name.clone(),
            entry.sees.text().to_owned(),
            counts.misses.to_string(),
            percent(counts.misses),
            percent(counts.standby),
            format!("{:.1}", cost / 1000.0),
            ratio(cost, opt),
            ratio(cost, tmem),
        ]);
    }
    table
}

/// The table of all traces with one capacity: the cost of each policy divided by that of
/// tmem's, its geometric mean, and the worst; the best policy comes first.
pub fn all(found: &[&Found], entries: &[Entry], costs: &Costs) -> Table {
    let percent = found.first().map_or(0, |f| f.percent);
    let title = format!("Cost to that of tmem's order, {percent} % of the pages held");
    let mut heads = vec!["policy", "sees", "mean", "worst", "mean to OPT"];
    heads.extend(found.iter().map(|f| f.trace.as_str()));
    let mut table = Table::new(title, &heads);
    let to = |name: &str, at: usize| -> Vec<f64> {
        let of = |f: &&Found| f.counts[at].cost(costs) / cost_of(name, f, entries, costs);
        found.iter().map(of).collect()
    };
    let mean = |ratios: &[f64]| {
        let logs = ratios
            .iter()
            .filter(|r| r.is_finite() && **r > 0.0)
            .map(|r| r.ln());
        let (n, sum) = logs.fold((0.0, 0.0), |(n, sum), log| (n + 1.0, sum + log));
        if n > 0.0 { f64::exp(sum / n) } else { f64::NAN }
    };
    let mut rows: Vec<(f64, usize)> = (0..entries.len())
        .map(|at| (mean(&to(TMEM, at)), at))
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (mean_to_tmem, at) in rows {
        let ratios = to(TMEM, at);
        let worst = ratios
            .iter()
            .copied()
            .filter(|r| r.is_finite())
            .fold(0.0, f64::max);
        let figures = [mean_to_tmem, worst, mean(&to(OPT, at))]
            .into_iter()
            .chain(ratios);
        let sees = match entries[at].sees {
            Sees::Faults => String::new(),
            other => other.text().to_owned(),
        };
        let cells = [entries[at].name.clone(), sees];
        table.row(cells.into_iter().chain(figures.map(|f| {
            if f.is_finite() {
                format!("{f:.2}")
            } else {
                String::from("-")
            }
        })));
    }
    table
}
