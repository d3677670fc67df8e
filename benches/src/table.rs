//! Tables of text.

use comfy_table::{CellAlignment, Row, presets};
use std::fmt;

/// A table: the first column is aligned to the left, all others to the right.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    rows: comfy_table::Table,
}

impl Table {
    /// Makes a table with a title and the heads of its columns.
    pub fn new(title: impl Into<String>, heads: &[&str]) -> Table {
        let mut rows = comfy_table::Table::new();
        rows.load_style(presets::NOTHING).set_header(heads);
        for column in rows.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Table {
            title: title.into(),
            rows,
        }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.add_row(Row::from(cells));
    }

    /// The table as HTML.
    pub fn html(&self) -> String {
        let cells = |row: &Row, tag: &str| {
            let cells = row.cell_iter().map(|cell| escaped(&cell.content()));
            let cells: String = cells.map(|text| format!("<{tag}>{text}</{tag}>")).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let heads = self.rows.header().map(|row| cells(row, "th"));
        let rows: String = self.rows.row_iter().map(|row| cells(row, "td")).collect();
        let (title, heads) = (escaped(&self.title), heads.unwrap_or_default());
        format!("<table>\n<caption>{title}</caption>\n{heads}{rows}</table>\n")
    }

    /// Whether it has no rows but the heads.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        self.rows
            .lines()
            .try_for_each(|line| writeln!(f, " {}", line.trim_end()))
    }
}

/// Text as HTML has it.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new("Title", &["name", "time"]);
        assert!(table.is_empty());
        table.row(["a".to_owned(), "1.25 us".to_owned()]);
        table.row(["longer".to_owned(), "9 us".to_owned()]);
        table.row(["bare".to_owned()]);
        assert!(!table.is_empty());
        let wanted = "Title\n  name       time\n  a       1.25 us\n  longer     9 us\n  bare\n";
        assert_eq!(table.to_string(), wanted);
        table.row(["a<b".to_owned(), "1".to_owned()]);
        let html = table.html();
        let wanted = "<caption>Title</caption>\n<tr><th>name</th><th>time</th></tr>\n<tr><td>a<";
        assert!(html.contains(wanted), "{html}");
        assert!(html.contains("<td>a&lt;b</td><td>1</td>"), "{html}");
    }
}
