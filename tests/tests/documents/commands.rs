//! Commands that the documents show.
//!
//! `CONTRIBUTING.md` says what the words behind a fence mean. `node1` and `node2` become
//! servers of this test's, `./app` a program of `tests/programs`.

use crate::markdown::{Block, Document, documents, tree};
use crate::none;
use crate::options::{flags_in, flags_of};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tmem_tests::{MIB, MemServer, artefacts, cc};

/// A secret that is long enough.
const SECRET: &str = "a secret for the commands of documents";
/// Seconds that one block may take: the longest builds the whole tree.
const LIMIT: &str = "1800";

#[test]
fn every_block_says_what_it_is() {
    let known = [
        "sh",
        "sh source",
        "sh server",
        "sh slow",
        "sh source slow",
        "sh machine",
        "sh rdma",
        "toml",
        "text",
        "mermaid",
    ];
    let mut mistakes = vec![];
    for document in documents() {
        for block in document.blocks() {
            if !known.contains(&block.info.as_str()) {
                mistakes.push(format!("{}: `{}`", document.at(block.line), block.info));
            }
        }
        // A block by indentation is none that a test could know.
        for (line, text) in document.prose() {
            let indented = text.strip_prefix("    ").unwrap_or_default();
            let first = indented.split(' ').next().unwrap_or_default();
            if first.starts_with("tmem") || first.contains('/') || first == "cargo" {
                mistakes.push(format!("{}: a command without a fence", document.at(line)));
            }
        }
    }
    none(&mistakes);
}

#[test]
fn commands_for_users_run() {
    run_all("sh", 5, |document, block| {
        Place::new(document, block).run(&block.text)
    });
}

#[test]
fn commands_in_the_source_tree_run() {
    let mut seen = BTreeSet::new();
    run_all("sh source", 1, |_, block| {
        match seen.insert(block.text.clone()) {
            true => in_tree(&block.text),
            // Several documents say how to build.
            false => Ok(()),
        }
    });
}

#[test]
fn servers_start_as_documents_say() {
    run_all("sh server", 1, serve);
}

/// Runs each block of a kind, of which there are at least so many.
fn run_all(info: &str, least: usize, mut run: impl FnMut(&Document, &Block) -> Result<(), String>) {
    let mut mistakes = vec![];
    let mut count = 0;
    for document in documents() {
        for block in document.blocks() {
            if block.info != info {
                continue;
            }
            count += 1;
            if let Err(why) = run(&document, &block) {
                mistakes.push(format!("{}: {why}", document.at(block.line)));
            }
        }
    }
    assert!(count >= least, "only {count} blocks `{info}` were found");
    none(&mistakes);
}

#[test]
fn commands_that_are_not_run_could_be() {
    let mut mistakes = vec![];
    for document in documents() {
        for block in document.blocks() {
            if block.info.starts_with("sh") {
                let found = wrong_syntax(&block).into_iter().chain(wrong_names(&block));
                mistakes.extend(found.map(|why| format!("{}: {why}", document.at(block.line))));
            }
        }
    }
    none(&mistakes);
}

#[test]
fn every_example_runs() {
    let listed = fs::read_to_string(tree().join("examples/README.md")).expect("it is there");
    let folders = fs::read_dir(tree().join("examples")).expect("the folder is there");
    let mut count = 0;
    for folder in folders {
        let script = folder.expect("the folder can be read").path().join("run");
        if !script.exists() {
            continue;
        }
        count += 1;
        let name = script.strip_prefix(tree()).expect("it is in the tree");
        assert!(
            listed.contains(&name.display().to_string()),
            "{} is not in examples/README.md",
            name.display()
        );
        let output = Command::new("timeout")
            .arg(LIMIT)
            .arg(&script)
            .env("TMEM_BIN_DIR", artefacts::dir())
            .output()
            .expect("timeout can be run");
        let said = String::from_utf8_lossy(&output.stdout);
        let skipped = output.status.code() == Some(77) && said.starts_with("skipped: ");
        assert!(
            output.status.success() || skipped,
            "{}: {}\n{said}{}",
            name.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(count >= 5, "only {count} examples were found");
}

/// Runs commands in the tree.
fn in_tree(text: &str) -> Result<(), String> {
    let mut bash = bash(text);
    bash.current_dir(tree())
        .env("CARGO_TARGET_DIR", artefacts::target_dir());
    finish(bash)
}

fn bash(text: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([LIMIT, "bash", "-euo", "pipefail", "-c", text]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TMEM_") {
            command.env_remove(name);
        }
    }
    command
}

fn finish(mut command: Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("timeout can be run");
    let texts = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t).into_owned());
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", output.status, texts.concat())),
    }
}

/// A folder like that of a reader who has a program and two nodes.
struct Place {
    folder: tempfile::TempDir,
    servers: Vec<MemServer>,
}

impl Place {
    fn new(document: &Document, block: &Block) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        for name in ["tmem", "tmem-memserver", "libtmem.so"] {
            symlink(artefacts::dir().join(name), path(name)).expect("a link can be made");
        }
        symlink(cc::program("fill"), path("app")).expect("a link can be made");
        let blocks = document.blocks();
        let file = blocks.iter().find(|other| other.info == "toml");
        let file = file.filter(|_| block.text.contains("tmem.toml"));
        let secret = file.unwrap_or(block).text.contains("secret");
        if !block.text.contains("keygen secret") {
            fs::write(path("secret"), SECRET).expect("the folder can be written");
        }
        let servers = (0..2).map(|_| match secret {
            true => {
                fs::write(path("key"), SECRET).expect("the folder can be written");
                let key = path("key");
                let key = key.to_str().expect("it is UTF-8");
                MemServer::spawn_with(512 * MIB, "127.0.0.1:0", &["--secret-file", key])
            }
            false => MemServer::spawn(512 * MIB),
        });
        let place = Place {
            servers: servers.collect(),
            folder,
        };
        if let Some(file) = file {
            fs::write(place.path("tmem.toml"), place.here(&file.text)).expect("it can be written");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text with this machine's servers in the place of nodes, and this build's library.
    fn here(&self, text: &str) -> String {
        let [one, two] = [0, 1].map(|at: usize| self.servers[at].address().to_string());
        let library = artefacts::shim().display().to_string();
        text.replace("node1:7070", &one)
            .replace("node2:7070", &two)
            .replace("/usr/local/lib/libtmem.so", &library)
    }

    fn run(&self, text: &str) -> Result<(), String> {
        let mut bash = bash(&self.here(text));
        bash.current_dir(self.folder.path());
        bash.env("PATH", with_path(self.folder.path()));
        finish(bash)
    }
}

fn with_path(folder: &Path) -> String {
    let rest = std::env::var("PATH").unwrap_or_default();
    format!("{}:{rest}", folder.display())
}

/// Starts each line, waits until it says that it is ready, and ends it by SIGTERM.
fn serve(document: &Document, block: &Block) -> Result<(), String> {
    let place = Place::new(document, block);
    for line in block.text.lines() {
        let line = line.replace("0.0.0.0:7070", "127.0.0.1:0");
        let mut server = bash(&format!("exec {line}"))
            .current_dir(place.folder.path())
            .env("PATH", with_path(place.folder.path()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("timeout can be run");
        let mut said = String::new();
        let stdout = server.stdout.take().expect("stdout is a pipe");
        let read = BufReader::new(stdout).read_line(&mut said);
        // `timeout` hands the signal on, and the status back.
        let pid = i32::try_from(server.id()).expect("a PID is positive");
        // SAFETY: the process is a child of this one that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = server.wait().expect("a child can be waited for");
        if read.is_err() || !said.contains("ready on") || !status.success() {
            return Err(format!("{line}: {status}: {said}"));
        }
    }
    Ok(())
}

fn wrong_syntax(block: &Block) -> Option<String> {
    let output = Command::new("bash")
        .args(["-n", "-c", &block.text])
        .output()
        .expect("bash can be run");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Scripts that are not there, and flags that a program or script does not know.
fn wrong_names(block: &Block) -> Vec<String> {
    let mut wrong = vec![];
    for line in block.text.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let own = line.split(" -- ").next().unwrap_or_default();
        let words: Vec<&str> = own.split_whitespace().filter(|w| *w != "sudo").collect();
        let Some(first) = words.first() else { continue };
        let script = tree().join(first);
        if ["scripts/", "benches/", "examples/", ".ci/"]
            .iter()
            .any(|top| first.starts_with(top))
        {
            match fs::read_to_string(&script) {
                Ok(text) => wrong.extend(
                    flags_in(own)
                        .into_iter()
                        .filter(|flag| !text.contains(flag.as_str()))
                        .map(|flag| format!("{first} has no flag {flag}")),
                ),
                Err(e) => wrong.push(format!("{first}: {e}")),
            }
        }
        let program = match (*first, words.get(1)) {
            ("tmem-memserver", _) => Some((artefacts::memserver(), vec![])),
            ("tmem", Some(command)) => Some((artefacts::tmem(), vec![*command])),
            _ => None,
        };
        if let Some((program, command)) = program {
            let known = flags_of(&program, &command);
            wrong.extend(
                flags_in(own)
                    .difference(&known)
                    .map(|flag| format!("{first} has no flag {flag}")),
            );
        }
    }
    wrong
}
