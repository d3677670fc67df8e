//! A report as tables for people.

use crate::floors::{Floors, Times};
use crate::report::{FitsRow, LatencyRow, PatternRow, Report, StartRow, ThreadRow, Whole};
use crate::table::Table;
use crate::units::{bytes, count, percent, ratio, time};

fn rate(gb_per_s: f64) -> String {
    format!("{gb_per_s:.2} GB/s")
}

fn maybe<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or("-".to_owned(), show)
}

/// What the machine can do.
pub fn floors(floors: &Floors) -> Table {
    let mut table = Table::new(
        "Floors of this machine",
        &["", "mean", "p50", "p99", "bandwidth"],
    );
    let mut times = |name: &str, t: &Times| {
        let times = [t.mean_ns, t.p50_ns, t.p99_ns].map(time);
        table.row([name.to_owned()].into_iter().chain(times));
    };
    times("TCP echo, 4 KiB", &floors.echo);
    times("TCP echo, 4 KiB, one processor", &floors.echo_one_cpu);
    times("server: PING", &floors.server_ping);
    times("server: READ of 4 KiB", &floors.server_read);
    times("bare fault (UFFDIO_COPY)", &floors.fault);
    times("bare fault, one processor", &floors.fault_one_cpu);
    for (name, value) in [
        ("TCP stream, 512 KiB", floors.stream_gb_per_s),
        ("TCP stream, each byte once", floors.stream_once_gb_per_s),
        ("the same both ways, each", floors.stream_both_gb_per_s),
        ("server: READs of 512 KiB", floors.server_stream_gb_per_s),
        ("filling fresh memory", floors.fill_gb_per_s),
    ] {
        let empty = [name, "", "", ""].map(str::to_owned);
        table.row(empty.into_iter().chain([rate(value)]));
    }
    table.row(["floor of a miss".to_owned(), time(floors.miss_ns())]);
    table
}

/// Access patterns.
pub fn patterns(rows: &[PatternRow]) -> Table {
    let heads = [
        "pattern",
        "local",
        "access",
        "rate",
        "slowdown",
        "to floor",
        "faults",
        "fetched",
        "ahead",
        "standby",
        "sent",
        "pager CPU",
    ];
    let mut table = Table::new("Access patterns", &heads);
    for row in rows {
        let pager = row.run.outcome.pager;
        let number = |get: fn(&crate::outcome::Pager) -> u64| {
            maybe(pager.as_ref(), |p| count(get(p) as f64))
        };
        table.row([
            row.pattern.to_owned(),
            row.local_percent.map_or("native".to_owned(), percent),
            time(row.ns_per_access),
            maybe(row.gb_per_s, rate),
            maybe(row.slowdown, ratio),
            maybe(row.to_floor, ratio),
            number(|p| p.faults),
            number(|p| p.fetched_pages),
            number(|p| p.prefetched_pages),
            number(|p| p.standby_refaults),
            number(|p| p.written_pages),
            maybe(pager, |p| cpu(p.pager_cpu_ns, row.run.outcome.ns)),
        ]);
    }
    table
}

/// Processor time beside the time that passed: `34 %`.
fn cpu(used_ns: u64, passed_ns: f64) -> String {
    format!("{:.0} %", 100.0 * used_ns as f64 / passed_ns.max(1.0))
}

/// Times of single accesses.
pub fn latency(rows: &[LatencyRow]) -> Table {
    let heads = [
        "access",
        "count",
        "p50",
        "p99",
        "p99.9",
        "absent",
        "its p50",
        "its p99",
        "its mean",
        "to floor",
        "faults",
        "standby",
        "ahead",
        "zero",
        "pager CPU",
    ];
    let mut table = Table::new(
        "Single accesses at 50 % local; standby hits at 97 %",
        &heads,
    );
    for row in rows {
        let pager = row.run.outcome.pager.unwrap_or_default();
        let absent = [row.absent_p50_ns, row.absent_p99_ns, row.absent_mean_ns].map(time);
        let [a, b, c] = absent;
        table.row([
            row.kind.to_owned(),
            count(row.count as f64),
            time(row.p50_ns),
            time(row.p99_ns),
            time(row.p999_ns),
            format!("{:.1} %", 100.0 * row.absent_share),
            a,
            b,
            c,
            maybe(row.to_floor, ratio),
            count(pager.faults as f64),
            count(pager.standby_refaults as f64),
            count(pager.prefetch_hits as f64),
            count(pager.zero_fills as f64),
            cpu(pager.pager_cpu_ns, row.run.outcome.ns),
        ]);
    }
    table
}

/// Threads.
pub fn threads(rows: &[ThreadRow]) -> Table {
    let heads = [
        "threads",
        "native",
        "paged",
        "speedup",
        "pager CPU",
        "bare faults",
        "speedup",
    ];
    let mut table = Table::new("Random reads per second at 50 % local", &heads);
    for row in rows {
        let pager = row.run.outcome.pager.unwrap_or_default();
        table.row([
            row.threads.to_string(),
            count(row.native_per_s),
            count(row.per_s),
            ratio(row.speedup),
            cpu(pager.pager_cpu_ns, row.run.outcome.ns),
            count(row.bare_per_s),
            ratio(row.bare_speedup),
        ]);
    }
    table
}

/// The cost of tmem for a program that fits.
pub fn fits(rows: &[FitsRow], start: Option<&StartRow>) -> Table {
    let mut table = Table::new(
        "Cost for a program that fits into its budget",
        &["work", "native", "tmem", "added"],
    );
    for row in rows {
        table.row([
            row.work.to_owned(),
            time(row.native_ns),
            time(row.tmem_ns),
            format!("{:+.2} %", row.added_percent()),
        ]);
    }
    if let Some(start) = start {
        let (plain, with) = (start.plain_us * 1000.0, start.preloaded_us * 1000.0);
        let added = format!("+{}", time((with - plain).max(0.0)));
        table.row(["/bin/true".to_owned(), time(plain), time(with), added]);
    }
    table
}

/// Fresh memory beyond the budget, one line.
pub fn fill(report: &Report) -> Option<String> {
    let row = report.fill.as_ref()?;
    let pager = row.run.outcome.pager.unwrap_or_default();
    Some(format!(
        "Filling fresh memory beyond the budget: {} (native {}, to floor {}, pager CPU {})",
        rate(row.gb_per_s),
        rate(row.native_gb_per_s),
        maybe(row.to_floor, ratio),
        cpu(pager.pager_cpu_ns, row.run.outcome.ns),
    ))
}

/// What was measured, one line.
pub fn heading(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    format!(
        "tmem {}, Linux {}, {} processors, {} of RAM; workloads of {}, server {}{}",
        report.version,
        machine.kernel,
        machine.cpus,
        bytes(machine.ram_bytes),
        bytes(settings.size_bytes),
        if settings.embedded {
            "embedded at "
        } else {
            ""
        },
        settings.servers.join(", "),
    )
}

/// What is odd about a process that should have been paged.
pub fn oddity(whole: &Whole, local_percent: f64) -> Option<String> {
    if whole.self_faults > 0 {
        Some(format!(
            "the pager took {} faults of its own, a defect of tmem",
            whole.self_faults
        ))
    } else if local_percent < 100.0 && whole.evicted_pages == 0 {
        Some("no page left the program, so that nothing was measured".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, Pager};
    use crate::report::Paged;

    fn paged() -> Paged {
        Paged {
            outcome: Outcome {
                accesses: 1000,
                ns: 2e6,
                pager: Some(Pager {
                    faults: 12_345,
                    pager_cpu_ns: 1_000_000,
                    ..Pager::default()
                }),
                ..Outcome::default()
            },
            whole: Whole::default(),
        }
    }

    #[test]
    fn a_pattern_is_a_row() {
        let row = PatternRow {
            pattern: "random-read",
            local_percent: Some(12.5),
            ns_per_access: 2000.0,
            gb_per_s: None,
            slowdown: Some(20.0),
            to_floor: Some(1.5),
            run: paged(),
        };
        let text = patterns(&[row]).to_string();
        let last = text.lines().last().unwrap();
        let cells: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            cells.join(" "),
            "random-read 12.5 % 2.00 us - 20.0x 1.50x 12.3k 0 0 0 0 50 %"
        );
    }

    #[test]
    fn every_table_can_be_written() {
        assert!(floors(&Floors::default()).to_string().contains("PING"));
        let row = LatencyRow::new("zero-fill", paged(), None);
        assert!(latency(&[row]).to_string().contains("zero-fill"));
        let row = ThreadRow {
            threads: 4,
            native_per_s: 5e7,
            per_s: 1e5,
            speedup: 2.0,
            bare_per_s: 2e5,
            bare_speedup: 1.5,
            run: paged(),
        };
        assert!(threads(&[row]).to_string().contains("100k"));
        let row = FitsRow {
            work: "seq-read",
            native_ns: 100.0,
            tmem_ns: 101.0,
            rounds: 3,
        };
        let start = StartRow {
            plain_us: 500.0,
            preloaded_us: 900.0,
        };
        let text = fits(&[row], Some(&start)).to_string();
        assert!(
            text.contains("+1.00 %") && text.contains("+400 us"),
            "{text}"
        );
        assert!(heading(&Report::default()).contains("0 processors"));
        assert!(fill(&Report::default()).is_none());
    }

    #[test]
    fn what_did_not_page_is_told() {
        let mut whole = Whole::default();
        assert!(oddity(&whole, 50.0).is_some());
        assert!(oddity(&whole, 100.0).is_none());
        whole.evicted_pages = 1;
        assert!(oddity(&whole, 50.0).is_none());
        whole.self_faults = 1;
        assert!(oddity(&whole, 100.0).is_some());
    }
}
