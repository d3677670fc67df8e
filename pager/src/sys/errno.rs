//! Kernel errors in words.

use core::fmt;
use rustix::io::Errno;

/// An error number, shown as what it means and, if possible, what the user can do about it.
/// The C library's texts are not available to the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Words(pub Errno);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::CONNREFUSED => "connection refused",
            Errno::CONNRESET => "connection reset by the server",
            Errno::CONNABORTED => "connection aborted",
            Errno::PIPE => "connection closed by the server",
            Errno::TIMEDOUT => "connection timed out",
            Errno::HOSTUNREACH => "no route to the host",
            Errno::HOSTDOWN => "the host is down",
            Errno::NETUNREACH => "the network is unreachable",
            Errno::NETDOWN => "the network is down",
            Errno::ADDRNOTAVAIL => "no local address or port is available",
            Errno::ACCESS | Errno::PERM => "not permitted",
            Errno::MFILE => {
                "too many open files for this process; raise its limit (`ulimit -n`, RLIMIT_NOFILE)"
            }
            Errno::NFILE => {
                "too many open files on this machine; raise its limit (`sysctl fs.file-max`)"
            }
            Errno::NOMEM | Errno::NOBUFS => {
                "the kernel has no memory for it, or a limit is reached (RLIMIT_AS, RLIMIT_DATA, a \
                 cgroup's, or `sysctl vm.max_map_count`)"
            }
            Errno::AGAIN => {
                "the kernel cannot do it now, or a limit is reached (RLIMIT_NPROC, a cgroup's \
                 pids.max, or RLIMIT_MEMLOCK)"
            }
            Errno::NOSYS => {
                "the kernel does not know this call, or a filter of system calls forbids it"
            }
            Errno::NOENT => "it is not there",
            Errno::NODEV | Errno::NXIO => "there is no such device",
            Errno::INVAL => "the kernel takes it for invalid",
            Errno::BUSY => "it is in use",
            Errno::NOSPC => "no space is left on the disk",
            Errno::DQUOT => "the quota of the disk is used up",
            Errno::FBIG => "the limit of the size of a file is reached",
            Errno::EXIST => "it is there already",
            Errno::FAULT => "the memory is not there",
            Errno::IO => "reading or writing failed",
            Errno::SRCH => "the process has ended",
            other => return write!(f, "error {} of the kernel", other.raw_os_error()),
        })
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_with_the_remedy() {
        let words = |e| std::format!("{}", Words(e));
        assert!(words(Errno::MFILE).contains("ulimit -n"));
        assert!(words(Errno::NFILE).contains("fs.file-max"));
        assert!(words(Errno::NOMEM).contains("vm.max_map_count"));
        assert_eq!(words(Errno::XDEV), "error 18 of the kernel");
    }
}
