//! The documents, and what they are made of.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the whole tree.
pub(crate) fn tree() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in the tree")
        .to_owned()
}

/// A document.
pub(crate) struct Document {
    /// Its path from the tree.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

/// A fenced block.
pub(crate) struct Block {
    /// The line of its fence, the first being 1.
    pub(crate) line: usize,
    /// What stands behind the fence, such as `sh source`.
    pub(crate) info: String,
    /// The text within.
    pub(crate) text: String,
}

/// Every document: those of the tree's own folder, `docs/`, `examples/`, and those
/// beside code.
pub(crate) fn documents() -> Vec<Document> {
    let folders = ["", "docs", "docs/design", "examples", "benches", "wire"];
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(tree().join(folder)).expect("the folder is there"))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(document).collect()
}

/// The document of that path from the tree.
pub(crate) fn document(path: impl AsRef<Path>) -> Document {
    let whole = tree().join(path);
    let text = fs::read_to_string(&whole).unwrap_or_else(|e| panic!("{}: {e}", whole.display()));
    let path = whole.strip_prefix(tree()).expect("it is in the tree");
    Document {
        path: path.to_owned(),
        text,
    }
}

impl Document {
    /// Where line `line` is, for people.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The fenced blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = vec![];
        let mut open: Option<Block> = None;
        for (at, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    open = Some(Block {
                        line: at + 1,
                        info: info.trim().to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is open", self.path.display());
        blocks
    }

    /// The lines outside of fenced blocks, with their numbers.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = vec![];
        for (at, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                lines.push((at + 1, line));
            }
        }
        lines
    }

    /// The lines below the heading `title`, up to the next of its level or a higher one.
    pub(crate) fn below(&self, title: &str) -> Vec<&str> {
        let level = |line: &str| line.chars().take_while(|c| *c == '#').count();
        let lines = self.prose();
        let mut rest = lines.iter().map(|(_, line)| *line);
        let heading = rest
            .find(|line| level(line) > 0 && line.trim_start_matches('#').trim() == title)
            .unwrap_or_else(|| panic!("{}: no heading {title}", self.path.display()));
        rest.take_while(|line| level(line) == 0 || level(line) > level(heading))
            .collect()
    }
}

/// What stands in backticks, one or two, in a line. A text in two may have single ones.
pub(crate) fn code(line: &str) -> Vec<String> {
    let mut found = vec![];
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].chars().take_while(|c| *c == '`').count();
        let inside = &rest[start + ticks..];
        let Some(end) = closing(inside, ticks) else {
            break;
        };
        found.push(inside[..end].trim().to_owned());
        rest = &inside[end + ticks..];
    }
    found
}

/// Where a row of exactly `ticks` backticks begins.
fn closing(text: &str, ticks: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(next) = text[at..].find('`') {
        let start = at + next;
        let row = text[start..].chars().take_while(|c| *c == '`').count();
        if row == ticks {
            return Some(start);
        }
        at = start + row;
    }
    None
}

/// The first cell of each row of the tables among `lines`, without their headings.
pub(crate) fn rows<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split(" | ").map(str::trim).collect::<Vec<_>>()
    };
    let is_rule = |line: &str| line.starts_with("|--") || line.starts_with("|:-");
    let mut rows = vec![];
    for (at, line) in lines.iter().enumerate() {
        let heads = lines.get(at + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !heads {
            rows.push(cells(line));
        }
    }
    rows
}

#[test]
fn blocks_code_and_rows_are_told_apart() {
    let document = Document {
        path: "a.md".into(),
        text: "# A\n## a\n\n| x | y |\n|---|---|\n| `a` | b |\n\n- c:\n\n  ```sh source\n  ls\n  ```\n# B\nd\n"
            .to_owned(),
    };
    let blocks = document.blocks();
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].info.as_str(), blocks[0].line), ("sh source", 10));
    assert_eq!(blocks[0].text, "  ls\n");
    assert_eq!(document.below("B"), ["d"]);
    assert_eq!(rows(&document.below("A")), [["`a`", "b"]]);
    assert_eq!(code("a `b` and ``c `d` e``, `f"), ["b", "c `d` e"]);
}
