//! `benches/applications`: that it measures, and that it finds a wrong output.
//! How fast anything is says nothing here.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tmem_tests::artefacts;

/// Runs a small program once, with the artefacts in `bin`; the results, if
/// there are any.
fn applications(bin: &Path, folder: &Path) -> (Output, Option<Value>) {
    let results = folder.join("results.json");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/applications");
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .args(["--size", "48M", "--rounds", "1", "--only", "quicksort"])
        .args([Path::new("--json"), &results])
        .env("TMEM_BIN_DIR", bin)
        .stdin(Stdio::null())
        .output()
        .expect("python3 can be run: apt-get install python3");
    let text = fs::read_to_string(results).ok();
    let json = text.map(|text| serde_json::from_str(&text).expect("the results are JSON"));
    (output, json)
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}\n{out}\n{err}", output.status)
}

fn shares(results: &Value) -> &[Value] {
    let shares = results["programs"]["quicksort"]["shares"].as_array();
    shares.expect("there are shares")
}

#[test]
fn a_program_is_paged_and_does_the_same_at_each_share() {
    let folder = tempfile::tempdir().expect("there is room");
    let (output, results) = applications(artefacts::dir(), folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let results = results.expect("results are written");
    let shares = shares(&results);
    assert_eq!(shares.len(), 4);
    for share in shares {
        assert_eq!(share["identical"], true, "{share}");
        let fetched = share["fetched_pages"].as_u64().expect("a number");
        assert!(share["percent"] != 25 || fetched > 0, "{share}");
    }
}

#[test]
fn an_output_that_differs_is_a_failure() {
    let folder = tempfile::tempdir().expect("there is room");
    let bin = folder.path();
    let server = bin.join("tmem-memserver");
    symlink(artefacts::memserver(), server).expect("a link can be made");
    // In the place of tmem, what says something else than the program.
    let tmem = bin.join("tmem");
    let names = "faults fetched_pages prefetched_pages standby_refaults compressed_hits evicted_pages pager_cpu_ns";
    let figures: Vec<_> = names
        .split(' ')
        .map(|name| format!("\"{name}\": 1"))
        .collect();
    let text = format!(
        "#!/bin/sh\nwhile [ \"$1\" != --stats-file ]; do shift; done\n\
         echo '{{ {} }}' > \"$2\"\necho another output\n",
        figures.join(", ")
    );
    fs::write(&tmem, text).expect("a script can be written");
    fs::set_permissions(&tmem, fs::Permissions::from_mode(0o755)).expect("it can be run");
    let (output, results) = applications(bin, bin);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let results = results.expect("results are written");
    assert!(
        shares(&results)
            .iter()
            .all(|share| share["identical"] == false)
    );
}
