//! Debian's own software: the same output natively and at a half, a quarter
//! and a tenth of its native peak.

use std::fs;
use std::path::Path;
use std::process::Command;
use tmem_tests::compare::{Setting, at_budget, at_shares};
use tmem_tests::inputs::Inputs;
use tmem_tests::{Run, scale, software};

/// The shares of the promise, then two servers and the older kernels' way.
fn matrix(program: &Run) {
    at_shares(program, Setting::PLAIN, &[50, 25, 10]);
    at_shares(
        program,
        Setting::TWO_SERVERS,
        scale::pick(&[25], &[50, 25, 10]),
    );
    at_shares(program, Setting::COPY, scale::pick(&[25], &[50, 25, 10]));
}

fn script(name: &str) -> String {
    format!("{}/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn sort_of_a_large_file() {
    let inputs = Inputs::default();
    let lines = inputs.lines(scale::pick(500_000, 12_000_000));
    let sort = software::find("sort", "coreutils");
    matrix(
        &Run::new(sort)
            .args(["-S", "4G", "--parallel=2"])
            .args([&lines]),
    );
}

#[test]
fn python_with_large_dicts_and_lists() {
    let python = software::find("python3", "python3");
    let count = scale::pick("80000", "2000000");
    // Without it, the order of a dict's strings differs from run to run.
    let run = Run::new(python)
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    matrix(&run.args([&*script("containers.py"), count]));
}

#[test]
fn numpy_linear_algebra() {
    let python = software::python_with_numpy();
    let (n, mib) = scale::pick(("500", "64"), ("2500", "640"));
    matrix(&Run::new(python).args([&*script("linear.py"), n, mib]));
}

#[test]
fn sqlite_with_joins_in_memory() {
    let inputs = Inputs::default();
    let rows = scale::pick("120000", "1500000");
    let text = fs::read_to_string(script("joins.sql")).expect("the script is there");
    let sql = inputs.file("joins.sql", &text.replace(":n", rows));
    let sqlite = software::find("sqlite3", "sqlite3");
    matrix(&Run::new(sqlite).args(["-bail", ":memory:"]).stdin(&sql));
}

/// Over loopback pages are not packed by themselves.
#[test]
fn pages_that_travel_packed_come_back_as_they_were() {
    let inputs = Inputs::default();
    let text = fs::read_to_string(script("joins.sql")).expect("the script is there");
    let sql = inputs.file("joins.sql", &text.replace(":n", "70000"));
    let sqlite = software::find("sqlite3", "sqlite3");
    let run = Run::new(sqlite).args(["-bail", ":memory:"]).stdin(&sql);
    let native = run.run().ok();
    let packed = |when, setting| {
        let run = run.clone().env("TMEM_COMPRESS", when);
        let paged = at_budget(&run, &native, setting, 20 << 20);
        let figures = paged.figures();
        assert!(figures.fetched_pages > 0, "{}", paged.describe());
        assert!(figures.compressed_bytes <= figures.compressed_pages * 4096 * 7 / 8);
        figures.compressed_pages
    };
    assert_eq!(packed("never", Setting::PLAIN), 0);
    assert!(packed("always", Setting::PLAIN) > 1000);
    assert!(packed("always", Setting::COPY) > 1000);
}

#[test]
fn xz_packs() {
    let inputs = Inputs::default();
    let text = inputs.text(scale::pick(3_000_000, 24_000_000));
    let xz = software::find("xz", "xz-utils");
    matrix(&Run::new(xz).args(["-9", "-T1", "-c"]).args([&text]));
}

#[test]
fn xz_unpacks() {
    let inputs = Inputs::default();
    let plain = inputs.repeats(scale::pick(100, 128));
    let xz = software::find("xz", "xz-utils");
    let packed = inputs.dir().join("packed.xz");
    pack(&xz, &plain, &packed);
    matrix(&Run::new(xz).args(["-d", "-T1", "-c"]).args([&packed]));
}

/// Quickly, but such that all that was unpacked is needed to unpack the rest.
fn pack(xz: &Path, plain: &Path, packed: &Path) {
    let out = fs::File::create(packed).expect("a file can be made");
    let mut command = Command::new(xz);
    command
        .args(["-T1", "--lzma2=preset=1,dict=64MiB", "-c"])
        .arg(plain)
        .stdout(out);
    assert!(command.status().expect("xz can be run").success());
}

#[test]
fn gcc_on_a_large_file() {
    let inputs = Inputs::default();
    let source = inputs.c_source(scale::pick(200, 3000));
    let gcc = software::find("gcc", "gcc libc6-dev");
    matrix(&Run::new(gcc).args(["-O2", "-S", "-o", "-"]).args([&source]));
}
