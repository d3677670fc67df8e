//! Credentials of a task: user, groups and capabilities, which every task has for itself.

use super::proc::path::open_of_thread;
use super::syscall::syscall3;
use super::thread;
use alloc::vec::Vec;
use core::str::FromStr;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

/// The credentials of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The real, effective, saved and file-system user.
    uids: [u32; 4],
    gids: [u32; 4],
    groups: Vec<u32>,
    /// Permitted and effective capabilities.
    permitted: u64,
    effective: u64,
}

impl Credentials {
    /// Returns the credentials of a thread of this process, in terms of the calling task's
    /// user namespace.
    pub fn of(tid: u32) -> Option<Credentials> {
        let fd = open_of_thread(tid, "status")?;
        let mut text = Vec::new();
        loop {
            let at = text.len();
            text.resize(at + 4096, 0);
            let n = rustix::io::read(&fd, &mut text[at..]).ok()?;
            text.truncate(at + n);
            if n == 0 {
                break;
            }
        }
        // The first line is a name that may hold any bytes.
        let end = text.iter().position(|b| *b == b'\n')?;
        parse(core::str::from_utf8(&text[end..]).ok()?)
    }

    /// Tells whether a task with these credentials has no rights that an attacker could
    /// gain by overwriting its stack.
    pub fn is_plain(&self) -> bool {
        let [uid, ..] = self.uids;
        uid != 0 && self.uids == [uid; 4] && self.permitted == 0
    }

    /// Gives the calling task these credentials, except capabilities that it may not have.
    /// Whether others may inspect the process does not change.
    ///
    /// # Errors
    /// Those of the kernel. Earlier steps are not undone.
    pub fn take(&self) -> Result<(), Errno> {
        const SETGROUPS: usize = 116;
        const SETRESUID: usize = 117;
        const SETRESGID: usize = 119;
        const SETFSUID: usize = 122;
        const SETFSGID: usize = 123;
        let was = dumpable_behavior();
        // Capabilities that are only disabled for the moment are needed here.
        let [_, own] = capabilities()?;
        set_capabilities(own, own)?;
        let before = Credentials::of(thread::id()).unwrap_or_default();
        if before.groups != self.groups {
            let (groups, len) = (self.groups.as_ptr(), self.groups.len());
            call(SETGROUPS, [len, groups.addr(), 0])?;
        }
        if before.gids != self.gids {
            call(SETRESGID, all(self.gids))?;
            // This call returns the value from before, not an error.
            let _ = call(SETFSGID, [self.gids[3] as usize, 0, 0]);
        }
        if before.uids != self.uids {
            // Without this, the kernel would drop all capabilities together with the user.
            let keep = rustix::thread::set_keep_capabilities(true);
            let result = call(SETRESUID, all(self.uids));
            let _ = keep.and_then(|()| rustix::thread::set_keep_capabilities(false));
            result?;
            let _ = call(SETFSUID, [self.uids[3] as usize, 0, 0]);
        }
        let [_, own] = capabilities()?;
        let permitted = own & self.permitted;
        set_capabilities(permitted & self.effective, permitted)?;
        if was == Ok(DumpableBehavior::Dumpable) && dumpable_behavior() != was {
            set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        }
        Ok(())
    }
}

fn parse(status: &str) -> Option<Credentials> {
    let line = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let four = |name| -> Option<[u32; 4]> {
        let ids: Vec<u32> = numbers(line(name)?)?;
        ids.try_into().ok()
    };
    let mask = |name| u64::from_str_radix(line(name)?.trim(), 16).ok();
    Some(Credentials {
        uids: four("Uid")?,
        gids: four("Gid")?,
        groups: numbers(line("Groups")?)?,
        permitted: mask("CapPrm")?,
        effective: mask("CapEff")?,
    })
}

fn numbers<T: FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace()
        .map(|n| n.parse().ok())
        .collect()
}

fn all([real, effective, saved, _]: [u32; 4]) -> [usize; 3] {
    [real, effective, saved].map(|id| id as usize)
}

fn call(number: usize, [a, b, c]: [usize; 3]) -> Result<(), Errno> {
    // SAFETY: these calls change the credentials of the calling task, and read only the
    // list of groups that they are given.
    match unsafe { syscall3(number, a, b, c) } {
        error @ -4095..0 => Err(Errno::from_raw_os_error(-error as i32)),
        _ => Ok(()),
    }
}

/// Version 3 of `capget(2)`, for the calling task.
const VERSION: [u32; 2] = [0x2008_0522, 0];

/// Returns the calling task's effective and permitted capabilities.
fn capabilities() -> Result<[u64; 2], Errno> {
    let mut data = [0u32; 6];
    let mut header = VERSION;
    // The kernel writes to the header if it does not know its version.
    let header = (&raw mut header).addr();
    call(125, [header, (&raw mut data).addr(), 0])?;
    Ok([0, 1].map(|which| u64::from(data[which]) | u64::from(data[which + 3]) << 32))
}

/// Does something with all capabilities that the calling task is permitted. Some of them
/// may not be in effect, since the program has given them up for a while.
pub(super) fn raised<R>(what: impl FnOnce() -> Option<R>) -> Option<R> {
    let [effective, permitted] = capabilities().ok()?;
    if effective == permitted {
        return None;
    }
    set_capabilities(permitted, permitted).ok()?;
    let result = what();
    // The task gives up capabilities, which the kernel never refuses.
    let _ = set_capabilities(effective, permitted);
    result
}

/// Sets them. Inheritable capabilities become empty: they matter only at an `execve`, which
/// the task never makes.
fn set_capabilities(effective: u64, permitted: u64) -> Result<(), Errno> {
    let low = |mask: u64| mask as u32;
    let high = |mask: u64| (mask >> 32) as u32;
    let data = [
        low(effective),
        low(permitted),
        0,
        high(effective),
        high(permitted),
        0,
    ];
    let mut header = VERSION;
    let header = (&raw mut header).addr();
    call(126, [header, (&raw const data).addr(), 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_task_is_understood() {
        let text = "\nUmask:\t0022\nUid:\t0\t65534\t0\t65534\nGid:\t1\t2\t3\t4\n\
            Groups:\t4 24 65534 \nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n\
            CapEff:\t0000000000000000\n";
        let found = parse(text).unwrap();
        assert_eq!(found.uids, [0, 65534, 0, 65534]);
        assert_eq!(
            (found.gids, &*found.groups),
            ([1, 2, 3, 4], &[4, 24, 65534][..])
        );
        assert_eq!((found.permitted, found.effective), (0x1ff_ffff_ffff, 0));
        assert!(!found.is_plain());
        assert_eq!(parse("\nUid:\t0\t0\t0\n"), None);
    }

    #[test]
    fn a_task_takes_credentials_and_has_them_back_where_it_may() {
        // A thread's changes concern only itself.
        std::thread::spawn(|| {
            let own = Credentials::of(thread::id()).unwrap();
            own.take().unwrap();
            let mut same = Credentials::of(thread::id()).unwrap();
            assert_eq!(same, own);
            if own.uids != [0; 4] || own.permitted >> 6 & 3 != 3 {
                return;
            }
            let other = Credentials {
                uids: [0, 65534, 0, 65534],
                gids: [65534; 4],
                groups: std::vec![7, 8],
                permitted: own.permitted,
                effective: 0,
            };
            other.take().unwrap();
            same = Credentials::of(thread::id()).unwrap();
            assert_eq!(same, other);
            own.take().unwrap();
            assert_eq!(Credentials::of(thread::id()).unwrap(), own);
            let plain = Credentials {
                uids: [65534; 4],
                permitted: 0,
                ..other
            };
            plain.take().unwrap();
            same = Credentials::of(thread::id()).unwrap();
            assert_eq!(same, plain);
            assert!(same.is_plain());
            assert!(own.take().is_err());
        })
        .join()
        .unwrap();
    }
}
