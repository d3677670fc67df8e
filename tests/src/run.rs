//! How a program is run: natively, under `tmem run`, or with the shim alone.

use crate::cgroup::Cgroup;
use crate::process::as_from_a_shell;
use crate::running::{Places, Running};
use crate::{Outcome, artefacts};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Error;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How pages are taken out of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagePath {
    /// What the kernel has.
    Auto,
    /// UFFDIO_MOVE.
    Move,
    /// The way of older kernels.
    Copy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Native,
    Tmem,
    Preload,
}

/// A program to run, and how. Native until a budget or a server is named.
#[derive(Clone, Debug)]
pub struct Run {
    program: PathBuf,
    args: Vec<OsString>,
    stdin: Option<PathBuf>,
    stdin_pipe: bool,
    how: How,
    flags: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    wrapper: Vec<OsString>,
    bin: Option<PathBuf>,
    cgroup: Option<PathBuf>,
    time_limit: Duration,
}

impl Run {
    /// `program` without arguments, its standard input empty.
    pub fn new(program: impl Into<PathBuf>) -> Run {
        Run {
            program: program.into(),
            args: vec![],
            stdin: None,
            stdin_pipe: false,
            how: How::Native,
            flags: vec![],
            env: vec![],
            wrapper: vec![],
            bin: None,
            cgroup: None,
            time_limit: Duration::from_secs(crate::scale::pick(300, 3600)),
        }
    }

    /// Further arguments of the program.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Run {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Standard input from a file.
    pub fn stdin(mut self, path: &Path) -> Run {
        self.stdin = Some(path.to_owned());
        self
    }

    /// Standard input from a pipe: [`Running::say`] writes to it.
    pub fn stdin_pipe(mut self) -> Run {
        self.stdin_pipe = true;
        self
    }

    /// A variable for the program, and for tmem.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Under `tmem run`.
    pub fn tmem(mut self) -> Run {
        self.how = How::Tmem;
        self
    }

    /// With the shim preloaded and nothing else. Budget and servers are then
    /// given with [`Run::env`].
    pub fn preload(mut self) -> Run {
        self.how = How::Preload;
        self
    }

    /// Under `tmem run` with a budget of `bytes`.
    pub fn local(self, bytes: u64) -> Run {
        self.tmem().flags(["--local".to_owned(), bytes.to_string()])
    }

    /// Under `tmem run` with these servers; none is the embedded one.
    pub fn servers(self, servers: impl IntoIterator<Item = SocketAddr>) -> Run {
        let scheme = match crate::scale::rdma() {
            Some(_) => "rdma://",
            None => "",
        };
        let flags = servers
            .into_iter()
            .flat_map(|s| ["--server".to_owned(), format!("{scheme}{s}")]);
        self.tmem().flags(flags)
    }

    /// Forces a page path.
    pub fn page_path(self, path: PagePath) -> Run {
        match path {
            PagePath::Auto => self,
            PagePath::Move => self.flags(["--page-path", "move"]),
            PagePath::Copy => self.flags(["--page-path", "copy"]),
        }
    }

    /// Further flags of `tmem run`.
    pub fn flags<A: AsRef<OsStr>>(mut self, flags: impl IntoIterator<Item = A>) -> Run {
        self.flags
            .extend(flags.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A command that runs `tmem` (or, natively, the program), such as
    /// `setpriv` with its options.
    pub fn wrapper<A: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = A>) -> Run {
        self.wrapper
            .extend(command.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Artefacts from another folder than the build's.
    pub fn artefacts(mut self, dir: &Path) -> Run {
        self.bin = Some(dir.to_owned());
        self
    }

    /// Everything inside a memory cgroup.
    pub fn cgroup(mut self, cgroup: &Cgroup) -> Run {
        self.cgroup = Some(cgroup.members());
        self
    }

    /// After this long it counts as hung.
    pub fn time_limit(mut self, limit: Duration) -> Run {
        self.time_limit = limit;
        self
    }

    /// Runs it to its end.
    pub fn run(&self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    pub fn spawn(&self) -> Running {
        let places = Places::new(!self.wrapper.is_empty());
        let mut command = self.command(&places);
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command.stdin(match (&self.stdin, self.stdin_pipe) {
            (Some(path), _) => File::open(path).expect("the input can be opened").into(),
            (None, true) => Stdio::piped(),
            (None, false) => Stdio::null(),
        });
        command.stdout(File::create(places.stdout()).expect("a file can be made"));
        command.stderr(File::create(places.stderr()).expect("a file can be made"));
        self.prepare(&mut command);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Running::new(child, places, self.time_limit, format!("{command:?}"))
    }

    fn command(&self, places: &Places) -> Command {
        let bin = |name: &str| match &self.bin {
            Some(dir) => dir.join(name),
            None => artefacts::dir().join(name),
        };
        let mut words = self.wrapper.clone();
        if self.how == How::Tmem {
            words.extend([bin("tmem").into(), "run".into(), "--stats-file".into()]);
            words.push(places.stats().into());
            words.extend(self.flags.iter().cloned());
            words.push("--".into());
        }
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if self.how == How::Preload {
            command.env("LD_PRELOAD", bin("libtmem.so"));
        }
        // What the tests' own surroundings say must not decide what they see.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("TMEM_") || name_text.starts_with("CARGO") {
                command.env_remove(&name);
            }
        }
        command.env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH");
        command
    }

    /// What happens between fork and exec. That there is a hook at all makes
    /// the standard library fork: a vforked child would begin with the peak
    /// memory of this process.
    fn prepare(&self, command: &mut Command) {
        as_from_a_shell(command);
        let members = self.cgroup.as_ref().map(|path| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("the cgroup can be written")
        });
        // SAFETY: the hook makes system calls only.
        unsafe {
            command.pre_exec(move || {
                use std::io::Write;
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(Error::last_os_error());
                }
                match &members {
                    Some(file) => (&*file).write_all(b"0"),
                    None => Ok(()),
                }
            });
        }
    }
}
