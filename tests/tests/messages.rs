//! What the user of a program is told.

use tmem_tests::cc::program;
use tmem_tests::{MIB, MemServer, PagePath, Run};

/// With six it is the userfaultfd that cannot be opened, with nine something later.
#[test]
fn a_program_with_too_few_open_files_runs_unpaged_and_is_told_what_to_raise() {
    let server = MemServer::roomy();
    for files in ["--nofile=6:6", "--nofile=9:9"] {
        let run = Run::new("prlimit").args([files]).args([program("fill")]);
        let run = run.args(["24", "seq", "1", "1"]);
        let native = run.run().ok();
        let paged = run.local(64 * MIB).servers([server.address()]).run().ok();
        assert_eq!(paged.digest(), native.digest());
        let messages = paged.messages();
        assert!(
            messages.len() == 1
                && messages[0].ends_with(
                    ": too many open files for this process; raise its limit (`ulimit -n`, \
                     RLIMIT_NOFILE); the program runs without paging"
                ),
            "{}",
            paged.describe()
        );
    }
}

#[test]
fn how_pages_leave_is_told_when_paging_begins() {
    let server = MemServer::roomy();
    let run = Run::new(program("fill")).args(["64", "seq", "1", "1"]);
    let run = run.local(16 * MIB).flags(["--log", "info"]);
    let run = run.servers([server.address()]);
    for (path, words) in [
        (PagePath::Copy, &["copied"][..]),
        // What the kernel can do.
        (PagePath::Auto, &["moved", "copied"]),
    ] {
        let paged = run.clone().page_path(path).run().ok();
        let is_told = |word: &&str| {
            let line =
                format!("tmem: paging begins; pages are {word}, and each is kept on one server");
            paged.messages().contains(&line)
        };
        assert!(words.iter().any(is_told), "{}", paged.describe());
    }
}
