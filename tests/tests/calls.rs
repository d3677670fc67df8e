//! Programs are called, and call, as without tmem: what is interposed leaves their errors
//! alone, works before and after they run, and nothing of theirs is called by the library.

use std::process::Command;
use tmem_tests::catalogue::cases;
use tmem_tests::cc::{program, program_with};
use tmem_tests::compare::{Setting, at_budget};
use tmem_tests::{MIB, Run, artefacts, software};

/// With the library preloaded and no option set, which is to change nothing, then with all
/// memory leaving.
fn check(run: &Run) {
    let native = run.run().ok();
    let preloaded = run.clone().preload().run().ok();
    assert_eq!(preloaded.digest(), native.digest());
    assert_eq!(preloaded.stderr(), native.stderr());
    for setting in [Setting::PLAIN, Setting::COPY] {
        at_budget(run, &native, setting.all_leave(), 64 * MIB);
    }
}

fn check_calls(what: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let cases = cases(&["calls"], folder.path());
    let mut found = cases.iter().filter(|case| case.name.contains(what));
    check(&found.next().expect("it is in the catalogue").run);
}

#[test]
fn a_pending_error_of_the_dynamic_linker_stays() {
    check_calls("error");
}

#[test]
fn errno_stays_where_calls_succeed() {
    check_calls("errno");
}

#[test]
fn threads_are_cancelled_while_they_read() {
    check_calls("cancel");
}

#[test]
fn a_child_of_vfork_changes_no_limits_of_its_parents() {
    check_calls("vfork");
}

/// The library of `early`.
fn library() -> &'static str {
    let library = program_with("early_library", &["-shared", "-fPIC"]);
    library.leak().to_str().expect("the path is text")
}

#[test]
fn calls_before_and_after_the_program_are_passed_on() {
    let library = library();
    for binding in ["-Wl,-z,lazy", "-Wl,-z,now"] {
        let run = Run::new(program_with("early", &[library, binding][..]));
        let native = run.run().ok();
        let paged = run.clone().local(64 * MIB).flags(["--log", "error"]);
        for early in [run.clone().preload(), paged] {
            let early = early.run().ok();
            assert_eq!(early.digest(), native.digest());
            assert_eq!(early.stderr(), native.stderr());
        }
    }
}

#[test]
fn functions_of_the_program_by_names_of_the_c_librarys_are_its_own() {
    check(&Run::new(program("names")).args(["24"]));
}

#[test]
fn memory_functions_of_the_program_are_not_the_librarys() {
    let options = ["-rdynamic", "-fno-builtin"];
    check(&Run::new(program_with("own_memory", &options)).args(["24"]));
}

#[test]
fn programs_with_sanitizers_are_paged_where_they_do_not_look_for_leaks() {
    let kinds: [&[&str]; 3] = [
        &["-fsanitize=address"],
        &["-fsanitize=address", "-static-libasan"],
        &["-fsanitize=thread"],
    ];
    for options in kinds {
        let options = [options, &["-Wno-error"]].concat();
        let run = Run::new(program_with("fill", &options)).args(["96", "seq"]);
        let run = run.env("ASAN_OPTIONS", "detect_leaks=0");
        let native = run.run().ok();
        let server = tmem_tests::MemServer::roomy();
        let paged = run.local(48 * MIB).servers([server.address()]).run().ok();
        assert_eq!(paged.digest(), native.digest());
        assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
    }
}

#[test]
fn a_sanitizer_that_looks_for_leaks_stops_every_thread_but_not_the_engine() {
    let program = program_with("fill", &["-fsanitize=address", "-Wno-error"]);
    let run = Run::new(program).args(["96", "seq"]);
    let run = run.env("ASAN_OPTIONS", "detect_leaks=1");
    let native = run.run().ok();
    let server = tmem_tests::MemServer::roomy();
    let paged = run.local(48 * MIB).servers([server.address()]).run().ok();
    assert_eq!(paged.digest(), native.digest());
    assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
}

#[test]
fn a_program_that_a_shell_starts_runs_unpaged_where_it_cannot_be_paged() {
    let program = program_with("fill", &["-fsanitize=address", "-Wno-error"]);
    let shell = Run::new("/bin/sh").args(["-c", "\"$0\" 1 seq; echo $?"]);
    let shell = shell.args([program]).env("ASAN_OPTIONS", "");
    let shell = shell.env("TMEM_ENGINE", "thread");
    let run = shell.clone().local(64 * MIB).run().ok();
    assert!(
        run.stderr().contains("looks for leaks"),
        "{}",
        run.describe()
    );
    assert_eq!(run.digest(), shell.run().ok().digest());
    let strict = shell.local(64 * MIB).flags(["--strict"]).run().ok();
    assert!(
        strict.stderr().contains("not started"),
        "{}",
        strict.describe()
    );
}

#[test]
fn the_library_needs_nothing_that_a_program_may_replace_under_way() {
    let nm = software::find("nm", "binutils");
    let output = Command::new(nm)
        .args(["-D", "--undefined-only"])
        .arg(artefacts::shim())
        .output()
        .expect("nm can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let names: Vec<&str> = names.filter_map(|name| name.split('@').next()).collect();
    assert!(names.contains(&"__errno_location"), "{text}");
    let unwanted = [
        "memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "dlsym", "dlopen", "dlerror",
    ];
    for name in unwanted {
        assert!(!names.contains(&name), "{name}: {text}");
    }
}
