//! The documentation of the options is what their declarations say.

use std::fs;
use std::path::Path;

use tmem_config::{options_markdown, replace_generated};

/// Set to have the document written anew.
const UPDATE: &str = "TMEM_UPDATE_DOCS";

#[test]
fn the_document_has_every_option_as_it_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/options.md");
    let document = fs::read_to_string(&path).unwrap();
    let new = replace_generated(&document, &options_markdown()).expect("the marks are there");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &new).unwrap();
        return;
    }
    assert!(
        document == new,
        "docs/options.md is out of date; {UPDATE}=1 cargo test -p tmem-config writes it anew"
    );
}
