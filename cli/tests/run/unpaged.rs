//! Programs that cannot be paged.

use super::{run, run_with, stderr, tmem};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn a_static_program_is_said_and_runs_or_with_strict_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("s.c");
    fs::write(&source, "int main(void) { return 5; }").unwrap();
    let program = folder.path().join("s");
    let built = Command::new("gcc")
        .arg("-static")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status();
    assert!(built.unwrap().success());
    let program = program.to_str().unwrap();
    let output = run(&["--", program]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        stderr(&output).contains("is statically linked"),
        "{}",
        stderr(&output)
    );
    assert_eq!(run(&["--strict", "--", program]).status.code(), Some(125));
    // A script is judged by its interpreter.
    let script = folder.path().join("script");
    fs::write(&script, format!("#!{program}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&["--", script.to_str().unwrap()]);
    assert!(
        stderr(&output).contains("is statically linked"),
        "{}",
        stderr(&output)
    );
}

/// Compiles a program that ends with status 5, with options of the compiler.
fn compiled(program: &Path, options: &[&str]) {
    let source = program.with_extension("c");
    fs::write(&source, "int main(void) { return 5; }").expect("the test machine can do this");
    let mut gcc = Command::new("gcc");
    gcc.arg(&source).args(options).arg("-o").arg(program);
    let status = gcc.status().expect("the test machine can do this");
    assert!(status.success());
}

#[test]
fn a_program_of_another_c_library_is_known_by_its_dynamic_linker() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("p");
    for (linker, word) in [
        ("/lib/ld-musl-x86_64.so.1", "is linked with musl, not glibc"),
        (
            "/system/bin/linker64",
            "is linked with the C library of /system/bin/linker64",
        ),
    ] {
        compiled(&program, &[&format!("-Wl,--dynamic-linker={linker}")]);
        let output = run(&["--strict", "--", program.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(125));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn a_sanitizer_that_would_stop_the_engine_is_said_and_runs_or_with_strict_does_not() {
    let run = |args: &[&str]| run_with(tmem().env("TMEM_ENGINE", "thread"), args);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("p");
    for options in [
        &["-fsanitize=address"][..],
        &["-fsanitize=address", "-static-libasan"],
        &["-fsanitize=leak"],
    ] {
        compiled(&program, options);
        let name = program.to_str().unwrap();
        let output = run(&["--", name]);
        assert_eq!(output.status.code(), Some(5));
        let text = stderr(&output);
        assert!(text.contains("looks for leaks"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(run(&["--strict", "--", name]).status.code(), Some(125));
    }
}

#[test]
fn valgrind_is_known_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("valgrind");
    compiled(&program, &[]);
    let name = program.to_str().unwrap();
    let output = run(&["--", name]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("valgrind"), "{}", stderr(&output));
    assert_eq!(run(&["--strict", "--", name]).status.code(), Some(125));
}
