//! Servers that are no good when a program starts, and machines that do not
//! let it page: it runs without, or does not start, and one line says why.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use tmem_tests::cc::program;
use tmem_tests::fake::{self, Behaviour};
use tmem_tests::process::End;
use tmem_tests::{MIB, MemServer, Outcome, Run, anybody, software};

fn fill() -> Run {
    Run::new(program("fill")).args(["64", "seq", "1", "1"])
}

/// Not at all, but unpaged where that is asked for; the one line says each of `words`.
fn runs_unpaged_or_not_at_all(run: &Run, words: &[&str]) {
    let native = fill().run().ok();
    let unpaged = run.clone().flags(["--unpaged-ok"]).run();
    assert_eq!(unpaged.end, End::Exit(0), "{}", unpaged.describe());
    assert_eq!(unpaged.digest(), native.digest(), "{}", unpaged.describe());
    says(&unpaged, words);
    assert_eq!(unpaged.figures().evicted_pages, 0, "{}", unpaged.describe());
    for flags in [&[][..], &["--strict"], &["--strict", "--unpaged-ok"]] {
        let refused = run.clone().flags(flags).run();
        assert_eq!(refused.end, End::Exit(125), "{}", refused.describe());
        assert_eq!(refused.stdout(), "", "{}", refused.describe());
        says(&refused, words);
    }
}

fn says(outcome: &Outcome, words: &[&str]) {
    assert_eq!(
        outcome.stderr().lines().count(),
        1,
        "{}",
        outcome.describe()
    );
    let messages = outcome.messages();
    assert_eq!(messages.len(), 1, "{}", outcome.describe());
    for word in words {
        assert!(
            messages[0].contains(word),
            "no {word:?} in {:?}",
            messages[0]
        );
    }
}

fn with_server(server: SocketAddr) -> Run {
    fill().local(24 * MIB).servers([server])
}

fn with_fake(behaviour: Behaviour, words: &[&str]) {
    let server = fake::server(behaviour);
    let address = server.to_string();
    let words = [&[&*address], words].concat();
    runs_unpaged_or_not_at_all(&with_server(server), &words);
}

#[test]
fn nobody_listens() {
    let server = fake::nobody();
    runs_unpaged_or_not_at_all(&with_server(server), &[&server.to_string(), "refused"]);
}

#[test]
fn the_server_closes_the_connection() {
    with_fake(Behaviour::Closes, &[]);
}

#[test]
fn the_server_says_nothing() {
    let server = fake::server(Behaviour::Silent);
    let address = server.to_string();
    let unpaged = with_server(server).flags(["--unpaged-ok"]).run();
    // It may only be busy, which is said while it is waited for.
    let messages = unpaged.messages();
    assert_eq!(messages.len(), 2, "{}", unpaged.describe());
    for (message, word) in messages.iter().zip(["may be busy", "does not answer"]) {
        let said = message.contains(&address) && message.contains(word);
        assert!(said, "{}", unpaged.describe());
    }
    let native = fill().run().ok();
    assert_eq!(unpaged.end, End::Exit(0), "{}", unpaged.describe());
    assert_eq!(unpaged.digest(), native.digest(), "{}", unpaged.describe());
}

#[test]
fn the_server_is_something_else() {
    with_fake(Behaviour::Garbage, &[]);
}

#[test]
fn the_server_speaks_another_version() {
    with_fake(Behaviour::OtherVersion, &["version"]);
}

#[test]
fn a_full_server_leaves_the_program_in_local_memory() {
    let server = fake::server(Behaviour::Full);
    let native = fill().run().ok();
    let outcome = with_server(server).run().ok();
    assert_eq!(outcome.digest(), native.digest());
    let messages = outcome.messages();
    assert_eq!(messages.len(), 2, "{}", outcome.describe());
    assert!(messages[0].contains("full"), "{}", outcome.describe());
    assert!(messages[1].contains("budget"), "{}", outcome.describe());
    assert_eq!(outcome.figures().lost_pages, 0, "{}", outcome.describe());
}

#[test]
fn one_bad_server_of_two_is_done_without() {
    let good = MemServer::roomy();
    let bad = fake::nobody();
    let native = fill().run().ok();
    let outcome = fill()
        .local(24 * MIB)
        .servers([bad, good.address()])
        .run()
        .ok();
    assert_eq!(outcome.digest(), native.digest());
    says(&outcome, &[&bad.to_string()]);
    assert!(
        outcome.figures().evicted_pages > 0,
        "{}",
        outcome.describe()
    );
    assert!(good.stats().pages_written > 0);
}

/// A name that has no address, by RFC 6761.
const NOWHERE: &str = "nowhere.invalid:7070";

#[test]
fn one_name_of_two_without_an_address_is_done_without() {
    let good = MemServer::roomy();
    let named = format!("{NOWHERE},{}", good.address());
    let native = fill().run().ok();
    let run = fill().env("TMEM_LOCAL", "24M").env("TMEM_SERVERS", named);
    for run in [run.clone().tmem(), run.preload()] {
        let written = good.stats().pages_written;
        let outcome = run.run().ok();
        assert_eq!(outcome.digest(), native.digest());
        says(&outcome, &[NOWHERE, "going on with the others"]);
        assert!(good.stats().pages_written > written);
    }
}

#[test]
fn a_name_without_an_address_is_all_that_there_is() {
    let run = fill()
        .preload()
        .env("TMEM_LOCAL", "24M")
        .env("TMEM_SERVERS", NOWHERE);
    let outcome = run.run().ok();
    says(&outcome, &[NOWHERE, "no address", "without paging"]);
}

#[test]
fn the_preload_line_says_what_is_wrong_too() {
    let server = fake::nobody();
    let native = fill().run().ok();
    let run = fill()
        .preload()
        .env("TMEM_LOCAL", "24M")
        .env("TMEM_SERVERS", server.to_string());
    let unpaged = run.run().ok();
    assert_eq!(unpaged.digest(), native.digest());
    says(&unpaged, &[&server.to_string()]);
    let strict = run.env("TMEM_STRICT", "1").run();
    assert_eq!(strict.stdout(), "", "{}", strict.describe());
    assert_ne!(strict.end, End::Exit(0), "{}", strict.describe());
    says(&strict, &[&server.to_string()]);
}

#[test]
fn a_user_without_permission_for_userfaultfd_is_told_so() {
    if !software::is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let allowed = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if allowed.is_ok_and(|v| v.trim() == "1") {
        eprintln!("skipped: this machine lets everybody use userfaultfd");
        return;
    }
    let server = MemServer::roomy();
    let folder = anybody::folder();
    let setpriv = software::find("setpriv", "util-linux");
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    // Where the device is open to all, as the README advises, another file is in its place.
    let closed = folder.path().join("closed");
    fs::write(&closed, "").expect("a file can be made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600))
        .expect("permissions of an own file can be set");
    let script = "if [ -e /dev/userfaultfd ]; then mount --bind \"$0\" /dev/userfaultfd || exit; fi\n\
                  exec \"$@\"";
    let apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    let run = Run::new(folder.path().join("fill"))
        .args(["64", "seq", "1", "1"])
        .local(24 * MIB)
        .servers([server.address()])
        .artefacts(folder.path())
        .wrapper(apart)
        .wrapper([script.as_ref(), closed.as_os_str()])
        .wrapper([setpriv.as_os_str()])
        .wrapper(nobody);
    runs_unpaged_or_not_at_all(&run, &["userfaultfd"]);
}
