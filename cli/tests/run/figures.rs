//! Where figures are written.

use super::{run, stderr, tmem};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn figures_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.json");
    let output = run(&[
        "--stats-file",
        file.to_str().unwrap(),
        "--summary",
        "--",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"local_budget_bytes\": 67108864"), "{text}");
    assert!(!text.contains("\"peak_resident_bytes\": 0,"), "{text}");
    assert!(
        stderr(&output).contains("tmem: memory: budget 64.0 MiB"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Nothing is run when its figures would be lost in the end.
#[test]
fn a_place_where_figures_cannot_be_written_is_told_before_the_program_starts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("victim"), "a secret").unwrap();
    symlink(at("victim"), at("link")).unwrap();
    for (path, word) in [
        (
            Path::new("/no/such/folder/s.json"),
            "the folder that it is in does not exist",
        ),
        (Path::new("/proc/s.json"), "no file can be made in /proc"),
        (&at("link"), "symbolic link"),
        (folder.path(), "folder"),
    ] {
        let path = path.to_str().unwrap();
        let output = run(&["--stats-file", path, "--", "echo", "ran"]);
        assert_eq!(output.status.code(), Some(125), "{path}");
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(text.contains(path) && text.contains(word), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "a secret");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn figures_are_written_to_a_device_or_after_what_the_program_has_printed() {
    let output = run(&["--stats-file", "/dev/null", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let status = tmem()
        .args(["--stats-file", "/dev/stdout", "--", "echo", "printed"])
        .stdout(fs::File::create(&path).unwrap())
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("printed\n{"), "{text}");
    assert!(text.contains("\"lost_pages\": 0,"), "{text}");
}

/// A link that is laid while the program runs is not followed either.
#[test]
fn figures_do_not_go_through_a_link_that_is_laid_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo secret > victim; ln -s victim s.json";
    let output = tmem()
        .current_dir(folder.path())
        .args(["--stats-file", "s.json", "--", "sh", "-c", script])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("statistics not written to s.json"));
    let victim = fs::read_to_string(folder.path().join("victim")).unwrap();
    assert_eq!(victim, "secret\n");
}
