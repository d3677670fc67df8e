//! A report as one page of HTML that needs nothing else.

use crate::plots;
use crate::report::Report;
use crate::table::{Table, escaped};
use crate::tables;

const STYLE: &str = "\
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0 0 2em; font-variant-numeric: tabular-nums }
caption, h2 { font-weight: bold; font-size: 17px; text-align: left; margin: 1em 0 .4em }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
svg { max-width: 100%; height: auto; margin-bottom: 2em }
";

/// The page: the tables as they are printed, and the charts.
pub fn page(report: &Report) -> String {
    let heading = escaped(&tables::heading(report));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>tmem bench</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>tmem bench</h1>\n<p>{heading}</p>\n"
    );
    let mut table = |table: Table| {
        if !table.is_empty() {
            page += &table.html();
        }
    };
    if let Some(floors) = &report.floors {
        table(tables::floors(floors));
    }
    table(tables::patterns(&report.patterns));
    table(tables::latency(&report.latency));
    table(tables::threads(&report.threads));
    table(tables::fits(&report.fits, report.start.as_ref()));
    if let Some(line) = tables::fill(report) {
        page += &format!("<p>{}</p>\n", escaped(&line));
    }
    for chart in [plots::slowdown(report), plots::latency(report)] {
        if !chart.series.is_empty() {
            page += &chart.svg();
        }
    }
    page += "<p>docs/benchmarks.md says what the columns mean.</p>\n</body>\n</html>\n";
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{FitsRow, Paged, PatternRow};

    #[test]
    fn a_page_has_what_was_measured_and_loads_nothing() {
        let mut report = Report::default();
        report.settings.servers.push("<b>:1".to_owned());
        for local in [None, Some(50.0)] {
            report.patterns.push(PatternRow {
                pattern: "zipf",
                local_percent: local,
                ns_per_access: 1.0,
                gb_per_s: None,
                slowdown: local.map(|_| 2.5),
                to_floor: None,
                run: Paged::default(),
            });
        }
        report.fits.push(FitsRow {
            work: "seq-read",
            native_ns: 10.0,
            tmem_ns: 10.0,
            rounds: 3,
        });
        let page = page(&report);
        assert!(page.contains("&lt;b&gt;:1") && !page.contains("<b>"));
        // What was not measured has no table.
        assert_eq!(page.matches("<table>").count(), 2);
        assert_eq!(page.matches("<svg ").count(), 1);
        assert!(page.contains("<td>zipf</td><td>50 %</td>"), "{page}");
        for outside in ["src=", "href=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
