//! Programs of a family that have other rights, or fewer, than `tmem run` has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tmem_tests::cc::program;
use tmem_tests::{MIB, MemServer, Run, anybody, software};

const NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A shell of another user, under a `tmem run` of root, which runs `script`.
fn as_nobody(folder: &Path, script: &str) -> Option<Run> {
    if !software::is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    let run = Run::new(software::find("setpriv", "util-linux"))
        .args(NOBODY)
        .args(["sh", "-c", script])
        .artefacts(folder);
    Some(run)
}

#[test]
fn what_is_started_after_rights_were_dropped_is_paged_with_the_embedded_server() {
    let folder = anybody::folder();
    let fill = folder.path().join("fill");
    let script = format!("for i in 1 2; do {} 64 seq 1 1; done", fill.display());
    let Some(run) = as_nobody(folder.path(), &script) else {
        return;
    };
    let native = run.run().ok();
    let paged = run.local(24 * MIB).run().ok();
    assert_eq!(paged.stdout(), native.stdout(), "{}", paged.describe());
    let told = paged.messages();
    assert_eq!(told.len(), 1, "{}", paged.describe());
    assert!(told[0].contains("no memory server named"), "{told:?}");
    // Both have left most of their memory, and count with all others.
    let pages = paged.figures().evicted_pages;
    assert!(pages > 2 * 32 * MIB / 4096, "{}", paged.describe());
    assert!(paged.figures().processes >= 4, "{}", paged.describe());
}

#[test]
fn a_secret_that_only_root_may_read_is_handed_over_as_well() {
    let folder = anybody::folder();
    let secret = folder.path().join("secret");
    fs::write(&secret, "a secret of sixteen bytes or more\n").expect("a file can be written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is an own file");
    let script = format!("{} 64 seq 1 1", folder.path().join("fill").display());
    let Some(run) = as_nobody(folder.path(), &script) else {
        return;
    };
    let server = MemServer::spawn_with(
        4096 * MIB,
        "127.0.0.1:0",
        &["--secret-file", secret.to_str().expect("a plain path")],
    );
    let paged = run
        .local(24 * MIB)
        .servers([server.address()])
        .flags([Path::new("--secret-file"), &secret])
        .run()
        .ok();
    assert!(paged.messages().is_empty(), "{}", paged.describe());
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
}

/// Each of a hundred programs finds the same thing wrong.
#[test]
fn what_is_wrong_for_all_is_said_by_the_first() {
    let mut server = MemServer::roomy();
    let script = format!(
        "echo ready; read go; for i in 1 2 3 4 5; do {} 32 seq 1 1; done",
        program("fill").display()
    );
    let run = Run::new("/bin/sh").args(["-c", &script]).stdin_pipe();
    let mut running = run.local(16 * MIB).servers([server.address()]).spawn();
    running.wait_for_line("ready");
    server.kill();
    running.say("go");
    let outcome = running.wait().ok();
    let unpaged = outcome.messages();
    let unpaged = unpaged.iter().filter(|m| m.contains("without paging"));
    assert_eq!(unpaged.count(), 1, "{}", outcome.describe());
}

/// Neither `tmem run` nor a server can be reached from there, nor told what was said.
#[test]
fn in_a_network_of_its_own_a_script_says_so_once() {
    let fill = program("fill").display().to_string();
    let script = format!("for i in 1 2 3; do {fill} 32 seq 1 1; done; env {fill} 32 seq 1 1");
    let unshare = software::find("unshare", "util-linux");
    let run = Run::new(unshare).args(["--net", "sh", "-c", &script]);
    let native = run.run();
    // A paged program may enter no user namespace, so that it takes rights.
    if native.stderr().contains("unshare:") {
        eprintln!("skipped: this user may not make namespaces");
        return;
    }
    let outcome = run.local(16 * MIB).run().ok();
    assert_eq!(outcome.stdout(), native.stdout());
    let told = outcome.messages();
    let far = told
        .iter()
        .filter(|m| m.contains("cannot be reached from here"));
    assert_eq!(far.count(), 1, "{}", outcome.describe());
    // Beside that: that there is no server, and why the shell is not paged.
    assert!(told.len() <= 3, "{}", outcome.describe());
}

#[test]
fn a_child_that_a_filter_ends_is_not_ended_without_a_word() {
    let run = Run::new(program("confined_fork")).args(["48", "hopeless"]);
    assert_eq!(run.run().ok().stdout(), "right\n");
    let paged = run.local(24 * MIB).flags(["--log", "error"]).run();
    assert!(
        paged
            .stderr()
            .contains("the program's filter of system calls"),
        "{}",
        paged.describe()
    );
}
