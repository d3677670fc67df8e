//! The C programs that do the same natively and under tmem, with arguments for
//! memory of some 16 to 24 MiB: what the tests run with all pages leaving, and
//! what `scripts/soak` runs over and over.

use crate::Run;
use crate::cc::{program, program_with};
use std::path::Path;

/// Stands for a folder to write to.
pub const FOLDER: &str = "{folder}";
/// Stands for the library of `loading`.
pub const LIBRARY: &str = "{library}";
/// Stands for the library of `lent_late`.
pub const LENDER: &str = "{lender}";

/// A program and its arguments. Several lines of one program are several cases.
const CASES: &[(&str, &[&str])] = &[
    ("fill", &["24", "seq", "2"]),
    ("fill", &["24", "random", "2"]),
    ("statics", &[]),
    ("threads", &["16", "4", "3000"]),
    ("rewrite", &["16", "20000", "2"]),
    ("churn", &["16", "20"]),
    ("locks", &["16", "3"]),
    ("signals", &["16", "3"]),
    ("syscalls", &["16", FOLDER]),
    ("kernel", &["16", FOLDER]),
    ("fuse", &["16", FOLDER]),
    ("merged", &["24"]),
    ("merged", &["24", "all"]),
    ("locked", &["16"]),
    ("locked", &["16", "both"]),
    ("faults", &["16"]),
    ("protections", &["16"]),
    ("barrier", &["16", "3"]),
    ("guarded", &["24"]),
    ("resident", &["24"]),
    ("inspected", &["24"]),
    ("self_mem", &["24"]),
    ("cores", &["24"]),
    ("loading", &["24", FOLDER, LIBRARY]),
    ("holes", &["16"]),
    ("small", &["16", "2"]),
    ("executable", &["16"]),
    ("moves", &["300", "16", "4"]),
    ("reuse", &["600", "16", "4"]),
    ("blocks", &["600", "16", "4"]),
    ("heap", &["24"]),
    ("heap", &["24", "4"]),
    ("columns", &["24"]),
    ("objects", &["24"]),
    ("pointers", &["24"]),
    ("pointers", &["24", "0"]),
    ("pointers", &["24", "0", "1"]),
    ("records", &["24", "20000"]),
    ("vm_model", &["3", "500", "48", "3"]),
    ("vm_model", &["4", "500", "48", "1"]),
    ("lent", &["24", "pipe"]),
    ("lent", &["24", "gift"]),
    ("lent", &["24", "changed"]),
    ("lent", &["24", "tcp"]),
    ("lent_raw", &["24", "pipe"]),
    ("lent_raw", &["24", "gift"]),
    ("lent_raw", &["24", "tcp"]),
    ("lent_late", &["24", LENDER, "library"]),
    ("lent_late", &["24", LENDER, "handle"]),
    ("lent_late", &["24", LENDER, "other"]),
    ("spawns", &["16"]),
    ("jobs", &["24"]),
    ("stops", &["24", "100"]),
    ("forks", &["16", "3"]),
    ("fork_many", &["16", "40"]),
    ("fork_ways", &["16", "exec"]),
    ("fork_ways", &["16", "advised"]),
    ("fork_ways", &["16", "advised-early"]),
    ("fork_ways", &["16", "advised-raw"]),
    ("fork_ways", &["16", "advised-early-raw"]),
    ("fork_ways", &["16", "advised-handle"]),
    ("fork_ways", &["16", "advised-other"]),
    ("leaving", &["16", "return"]),
    ("leaving", &["16", "exit"]),
    ("leaving", &["16", "_exit"]),
    ("leaving", &["16", "quick_exit"]),
    ("leaving", &["16", "abort"]),
    ("leaving", &["16", "segv"]),
    ("leaving", &["16", "kill"]),
    ("leaving", &["16", "first-thread"]),
    ("leaving", &["16", "raw"]),
    ("leaving", &["16", "raw-threads"]),
    ("leaving", &["16", "stop"]),
    ("confined", &["16", "chroot"]),
    ("confined", &["16", "setuid"]),
    ("confined", &["16", "dumpable"]),
    ("confined", &["16", "private"]),
    ("confined", &["16", "unshare"]),
    ("confined", &["16", "limits"]),
    ("confined", &["16", "limits-early"]),
    ("confined", &["16", "space"]),
    ("confined", &["16", "file-size"]),
    ("confined", &["16", "closed"]),
    ("confined", &["16", "seccomp"]),
    ("confined", &["16", "seccomp-busy"]),
    ("confined", &["16", "seccomp-all"]),
    ("confined", &["16", "strict"]),
    ("confined", &["16", "strict-end"]),
    ("confined", &["16", "signals"]),
    ("calls", &["16", "error"]),
    ("calls", &["16", "errno"]),
    ("calls", &["16", "cancel", FOLDER]),
    ("calls", &["16", "vfork"]),
    ("confined_fork", &["16", "setuid"]),
    ("confined_fork", &["16", "setuid", "twice"]),
    ("confined_fork", &["16", "setuid", "early"]),
    ("confined_fork", &["16", "seteuid", "twice"]),
    ("confined_fork", &["16", "dumpable", "twice"]),
    ("confined_fork", &["16", "chroot", "twice"]),
    ("confined_fork", &["16", "chroot", "early"]),
    ("confined_fork", &["16", "proc", "twice"]),
    ("confined_fork", &["16", "proc", "early"]),
    ("confined_fork", &["16", "files", "early"]),
    ("confined_fork", &["16", "all", "twice"]),
    ("confined_fork", &["16", "network"]),
    ("confined_fork", &["16", "network", "twice"]),
    ("confined_fork", &["16", "files"]),
    ("confined_fork", &["16", "files", "twice"]),
    ("confined_fork", &["16", "connections"]),
    ("confined_fork", &["16", "connections", "twice"]),
    ("confined_fork", &["16", "few", "twice"]),
    ("confined_fork", &["16", "alone"]),
    ("confined_fork", &["16", "calls"]),
    ("confined_fork", &["16", "calls", "twice"]),
    ("confined_fork", &["16", "killed"]),
    ("confined_fork", &["16", "killed", "twice"]),
    ("credentials", &["16"]),
    ("credentials", &["16", "early"]),
    ("credentials", &["16", "raw"]),
    ("reaper", &["16"]),
    ("sharers", &["16"]),
    ("ends", &["16"]),
    ("killed_helpers", &["16", "8"]),
    ("killed_helpers", &["16", "8", "1", "all"]),
    ("supervisor", &["16"]),
    ("outside", &["16"]),
];

/// A case, ready to be run.
pub struct Case {
    /// The program and its arguments.
    pub name: String,
    /// How it is run natively.
    pub run: Run,
}

/// The cases of these programs, which write to `folder`. All programs where none
/// is named.
pub fn cases(programs: &[&str], folder: &Path) -> Vec<Case> {
    for name in programs {
        let known = CASES.iter().any(|(program, _)| program == name);
        assert!(known, "no program {name} in the catalogue");
    }
    CASES
        .iter()
        .filter(|(name, _)| programs.is_empty() || programs.contains(name))
        .map(|(name, args)| Case {
            name: [&[*name], *args].concat().join(" "),
            run: args
                .iter()
                .fold(Run::new(program(name)), |run, arg| match *arg {
                    FOLDER => run.args([folder]),
                    LIBRARY => run.args([program_with("library", &["-shared", "-fPIC"])]),
                    LENDER => run.args([program_with("lender", &["-shared", "-fPIC"])]),
                    arg => run.args([arg]),
                }),
        })
        .collect()
}
