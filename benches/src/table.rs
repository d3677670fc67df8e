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
    }
}
