//! Permission for userfaultfd, by each of its three ways.

use std::env;
use std::fs;
use std::io;
use std::path::Path;

use crate::uffd;

use super::finding::{Finding, State};

/// What may be used here.
struct Ways {
    /// By `/dev/userfaultfd`.
    device: io::Result<()>,
    has_device: bool,
    /// By the system call.
    call: io::Result<()>,
    /// The sysctl, if the kernel has it.
    sysctl: Option<bool>,
    /// Whether this process has CAP_SYS_PTRACE.
    capability: bool,
    /// The user to give permission to.
    user: String,
}

/// Looks at what this process may use.
pub(crate) fn look() -> Vec<Finding> {
    let setting = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").ok();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    findings(&Ways {
        device: uffd::by_device(),
        has_device: Path::new("/dev/userfaultfd").exists(),
        call: uffd::by_call(),
        sysctl: setting.map(|text| text.trim() == "1"),
        capability: has_ptrace(&status),
        user: user(|name| env::var(name).ok()),
    })
}

/// Bit of CAP_SYS_PTRACE.
const CAP_SYS_PTRACE: u32 = 19;

fn has_ptrace(status: &str) -> bool {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> CAP_SYS_PTRACE & 1 != 0)
}

/// Who is to get permission: with `sudo` the one who called it.
fn user(variable: impl Fn(&str) -> Option<String>) -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(variable);
    let is_plain = |name: &String| {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        !name.is_empty() && !name.starts_with('-') && name.chars().all(is_fit)
    };
    named.filter(is_plain).unwrap_or_else(|| "$USER".to_owned())
}

const RULE: &str = "/etc/udev/rules.d/60-tmem.rules";

fn findings(ways: &Ways) -> Vec<Finding> {
    let usable = ways.device.is_ok() || ways.call.is_ok();
    let mut found = vec![overall(ways, usable)];
    let way = |about, works: bool, text: String| {
        let state = if works { State::Ok } else { State::Note };
        Finding::new(about, state, text)
    };
    let device = match (&ways.device, ways.has_device) {
        (Ok(()), _) => "may be used: the best way, since only who is let in has it".to_owned(),
        (Err(error), true) => format!("may not be used: {error}"),
        (Err(_), false) => "is not there: it needs Linux 6.1, and in a container to be passed \
                            in (--device /dev/userfaultfd)"
            .to_owned(),
    };
    found.push(way("  /dev/userfaultfd", ways.device.is_ok(), device));
    let sysctl = match ways.sysctl {
        Some(true) => "is 1: every user may use it",
        Some(false) => "is 0: only who has a capability may use the system call",
        None => "is not there: this kernel lets everybody use the system call, or nobody",
    };
    let on = ways.sysctl == Some(true);
    found.push(way("  vm.unprivileged_userfaultfd", on, sysctl.to_owned()));
    let capability = match ways.capability {
        true => "is had: by root it is; programs that give it up need another way",
        false => "is not had: by root it is, and it allows much besides",
    };
    found.push(way(
        "  CAP_SYS_PTRACE",
        ways.capability,
        capability.to_owned(),
    ));
    if usable
        && let Err(error) = &ways.call
        && error.raw_os_error() == Some(libc::ENOSYS)
    {
        let text = "the system call is refused by a seccomp filter; the device is used";
        found.push(Finding::new("  seccomp", State::Note, text));
    }
    found
}

fn overall(ways: &Ways, usable: bool) -> Finding {
    const ABOUT: &str = "userfaultfd";
    if usable {
        return Finding::new(ABOUT, State::Ok, "programs of this user can be paged");
    }
    if matches!(&ways.call, Err(e) if e.raw_os_error() == Some(libc::ENOSYS)) && !ways.has_device {
        let text = "the system call is missing or refused by a seccomp filter, as in containers";
        return Finding::new(ABOUT, State::Problem, text).remedy(
            "pass the device into the container: docker run --device /dev/userfaultfd …, and \
             let its user write it",
        );
    }
    let user = &ways.user;
    let text = format!("no permission: programs of {user} cannot be paged");
    let finding = Finding::new(ABOUT, State::Problem, text);
    match ways.has_device {
        true => finding
            .remedy("give a group access to the device, and log in again")
            .commands([
                "getent group tmem >/dev/null || groupadd --system tmem".to_owned(),
                format!("echo 'KERNEL==\"userfaultfd\", GROUP=\"tmem\", MODE=\"0660\"' > {RULE}"),
                "chgrp tmem /dev/userfaultfd && chmod 660 /dev/userfaultfd".to_owned(),
                format!("usermod -aG tmem {user}"),
            ]),
        false => finding
            .remedy("let all users use userfaultfd, now and after the next start")
            .commands([
                "sysctl -w vm.unprivileged_userfaultfd=1",
                "echo vm.unprivileged_userfaultfd=1 > /etc/sysctl.d/60-tmem.conf",
            ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(code))
    }

    fn ways() -> Ways {
        Ways {
            device: refused(libc::EACCES),
            has_device: true,
            call: refused(libc::EPERM),
            sysctl: Some(false),
            capability: false,
            user: "alice".to_owned(),
        }
    }

    #[test]
    fn one_way_is_enough() {
        for ways in [
            Ways {
                device: Ok(()),
                ..ways()
            },
            Ways {
                call: Ok(()),
                ..ways()
            },
        ] {
            assert!(findings(&ways).iter().all(|f| f.state != State::Problem));
        }
    }

    #[test]
    fn the_remedy_is_the_device_where_there_is_one() {
        let found = &findings(&ways())[0];
        assert_eq!(found.state, State::Problem);
        assert!(
            found
                .commands
                .contains(&"usermod -aG tmem alice".to_owned())
        );
        let without = Ways {
            has_device: false,
            ..ways()
        };
        let found = &findings(&without)[0];
        assert!(found.commands[0].contains("vm.unprivileged_userfaultfd=1"));
    }

    #[test]
    fn a_filter_is_told_from_a_missing_permission() {
        let filtered = Ways {
            has_device: false,
            device: refused(libc::ENOENT),
            call: refused(libc::ENOSYS),
            ..ways()
        };
        let found = &findings(&filtered)[0];
        assert!(found.text.contains("seccomp") && found.commands.is_empty());
        assert!(
            found
                .remedy
                .as_ref()
                .is_some_and(|r| r.contains("--device"))
        );
    }

    #[test]
    fn capabilities_and_the_user_are_read() {
        assert!(has_ptrace("Name: x\nCapEff:\t0000000000080000\n"));
        assert!(!has_ptrace("CapEff:\t0000000000000000\n"));
        let of = |name: &'static str, value: &'static str| {
            user(move |n| (n == name).then(|| value.to_owned()))
        };
        assert_eq!(of("SUDO_USER", "bob"), "bob");
        assert_eq!(of("USER", "x; rm"), "$USER");
    }
}
