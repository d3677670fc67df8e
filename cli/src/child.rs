//! Runs the program, in the same terminal and process group, and passes signals on to it.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tmem_pager::sys::detached::is_in_first_namespace;

use crate::open_files;
use crate::signals::{self, Blocked};

/// What engines and their guards are called.
const ENGINES: [&str; 2] = ["(tmem-engine)", "(tmem-guard)"];
/// How long they are waited for, and how long between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(1);

/// How the program ended.
pub(crate) struct Ended {
    /// Its exit status, or 128 and the signal that killed it.
    pub(crate) status: i32,
    /// The most memory resident at once in it, or in one of the descendants
    /// that it waited for, in bytes; the kernel does not tell these apart.
    pub(crate) max_resident: u64,
}

/// Starts the program and waits for its end. It gets the signal mask that was
/// before the block, and where no other output is given, this process's. Calls `crashed` with
/// its process where the kernel has written a core of it, before it is reaped.
pub(crate) fn run(
    argv: &[OsString],
    env: &[(&str, OsString)],
    unset: &[&str],
    blocked: &Blocked,
    output: Option<Stdio>,
    crashed: &dyn Fn(libc::pid_t),
) -> io::Result<Ended> {
    let Some((program, args)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)));
    for name in unset {
        command.env_remove(name);
    }
    if let Some(output) = output {
        command.stdout(output);
    }
    // SAFETY: what is called is allowed between fork and exec.
    unsafe {
        let mask = blocked.before;
        let parent = std::process::id();
        command.pre_exec(move || {
            end_with(parent)
                .and_then(|()| open_files::restore())
                .and_then(|()| signals::restore(&mask))
        });
    }
    let buries = std::process::id() == 1 || takes_orphans();
    let child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    let ended = watch(pid, &blocked.outside, buries, crashed);
    if buries {
        bury_engines(pid);
    }
    Ok(ended)
}

/// Has the kernel end the calling process when its parent is killed. Programs that are not
/// paged end as well: they have no engine that would notice.
fn end_with(parent: u32) -> io::Result<()> {
    // SAFETY: plain calls, which may be made between fork and exec.
    let (failed, now) = unsafe {
        let failed = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        (failed, libc::getppid())
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // The parent was killed before. 0 is a parent in another PID namespace.
    if now != 0 && u32::try_from(now) != Ok(parent) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

fn watch(
    pid: libc::pid_t,
    outside: &libc::sigset_t,
    buries: bool,
    crashed: &dyn Fn(libc::pid_t),
) -> Ended {
    let mut stopped = false;
    loop {
        let Some(info) = signals::take(outside) else {
            continue;
        };
        match info.si_signo {
            libc::SIGCHLD => {
                if has_left_a_core(pid) {
                    crashed(pid);
                }
                if let Some(ended) = changes(pid, &mut stopped) {
                    return ended;
                }
                if buries {
                    bury_others(pid);
                }
            }
            libc::SIGCONT => {
                if let Some(ended) = changes(pid, &mut stopped) {
                    return ended;
                }
                // A shell wakes the whole group; the program needs a second
                // signal only where it was not reached.
                if stopped {
                    send(pid, libc::SIGCONT);
                }
            }
            // The kernel sent it for a key in the terminal. The program got it too.
            _ if info.si_code > 0 => {}
            signal => send(pid, signal),
        }
    }
}

/// Whether the program has ended, and the kernel has written a core of it.
fn has_left_a_core(pid: libc::pid_t) -> bool {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: room for the answer, which is zero while it has not ended.
    let info = unsafe {
        libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), flags);
        info.assume_init()
    };
    info.si_code == libc::CLD_DUMPED
}

/// Notes a change of the program's state. Returns its end, if that was it.
fn changes(pid: libc::pid_t, stopped: &mut bool) -> Option<Ended> {
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
        // SAFETY: room for both answers.
        let (got, usage) = unsafe {
            let got = libc::wait4(pid, &raw mut status, flags, usage.as_mut_ptr());
            (got, usage.assume_init())
        };
        if got != pid {
            return None;
        }
        let max_resident = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
        if libc::WIFEXITED(status) {
            return Some(Ended {
                status: libc::WEXITSTATUS(status),
                max_resident,
            });
        }
        if libc::WIFSIGNALED(status) {
            return Some(Ended {
                status: 128 + libc::WTERMSIG(status),
                max_resident,
            });
        }
        *stopped = libc::WIFSTOPPED(status);
        // With the program stopped from the terminal, the job has stopped:
        // the shell has to see it. A SIGSTOP sent to the program alone is no
        // such thing, and its SIGCONT would not reach this process.
        let job = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        if *stopped && job.contains(&libc::WSTOPSIG(status)) {
            // SAFETY: no preconditions.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
    }
}

/// Has processes that lose their parent come to this one, where the first process might make
/// something of their end: in a container that may be anything. Whether they do.
fn takes_orphans() -> bool {
    // SAFETY: sets an attribute of this process.
    !is_in_first_namespace() && unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } == 0
}

/// Reaps processes whose parents have ended.
fn bury_others(pid: libc::pid_t) {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: room for the answer, which is zero where nobody has ended.
        let other = unsafe {
            libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags);
            info.assume_init().si_pid()
        };
        // The program itself is reaped elsewhere.
        if other == 0 || other == pid {
            return;
        }
        // SAFETY: a child of this process that has ended.
        unsafe { libc::waitpid(other, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// The same for engines, which end after their programs: for as long as these take, and no
/// longer, or they would go on to whoever takes orphans in after this process.
fn bury_engines(pid: libc::pid_t) {
    let begun = Instant::now();
    bury_others(pid);
    while has_engines() && begun.elapsed() < PATIENCE {
        std::thread::sleep(NAP);
        bury_others(pid);
    }
}

/// Whether a child of this process is an engine or one of its guards.
fn has_engines() -> bool {
    let parent = std::process::id().to_string();
    let of_engine = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        ENGINES.iter().any(|name| {
            // The name, the state, and the parent.
            let rest = stat.split_once(name).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split(' ').nth(2)) == Some(parent.as_str())
        })
    };
    std::fs::read_dir("/proc").is_ok_and(|entries| entries.flatten().any(of_engine))
}

fn send(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: the process is not waited for yet, so its id is still its own.
    // It fails only if the program has changed its user.
    unsafe { libc::kill(pid, signal) };
}
