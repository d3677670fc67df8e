//! File systems that may write what is read straight into the caller's memory, whatever a
//! file was opened with: FUSE (where its server asks for direct I/O), 9p, CIFS and other
//! network file systems. For a kernel that cannot move pages this is direct input: see
//! [`super::direct`].

use crate::raw::raw_syscall;
use libc::c_int;
use std::mem::zeroed;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use tmem_pager::sys::confined;

/// Their numbers (`f_type` of `statfs(2)`): FUSE, 9p, CIFS, SMB2, Ceph, NFS, AFS.
const KINDS: [u32; 7] = [
    0x6573_5546,
    0x0102_1997,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x0000_6969,
    0x6b41_4653,
];

/// Minor device numbers of such mounts that were seen, plus one; 0 for none. The question
/// what a file system is may go to its server. Other mounts are asked again, since the
/// number may become that of another file system.
static SEEN: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];

/// Whether a descriptor is of a regular file of such a file system. Under a seccomp filter,
/// which may end the program for asking, none is.
pub(super) fn is_uncached(fd: c_int) -> bool {
    !confined::is_confined() && minor_of(fd).is_some_and(|minor| is_known(minor) || ask(fd, minor))
}

/// The minor device number of a regular file, if it is on no block device. This does not ask
/// the file system's server.
fn minor_of(fd: c_int) -> Option<u32> {
    // SAFETY: all zeros is a value of this structure.
    let mut found: libc::statx = unsafe { zeroed() };
    let how = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let args = [
        fd as usize,
        c"".as_ptr().addr(),
        how as usize,
        libc::STATX_TYPE as usize,
        (&raw mut found).addr(),
        0,
    ];
    // SAFETY: statx(fd, "", how, what, &found).
    let result = unsafe { raw_syscall(libc::SYS_statx, args) };
    let is_regular = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    (result == 0 && is_regular && found.stx_dev_major == 0).then_some(found.stx_dev_minor)
}

fn is_known(minor: u32) -> bool {
    SEEN.iter().any(|seen| seen.load(Relaxed) == minor + 1)
}

/// Asks for the kind of file system, and notes one that is among [`KINDS`], or does not answer:
/// a server of FUSE need not.
fn ask(fd: c_int, minor: u32) -> bool {
    // SAFETY: all zeros is a value of this structure.
    let mut found: libc::statfs = unsafe { zeroed() };
    let args = [fd as usize, (&raw mut found).addr(), 0, 0, 0, 0];
    // SAFETY: fstatfs(fd, &found).
    let result = unsafe { raw_syscall(libc::SYS_fstatfs, args) };
    let is_one = result != 0 || KINDS.contains(&(found.f_type as u32));
    if is_one {
        // Where there is no place left, it is asked again.
        let note = |seen: &AtomicU32| seen.compare_exchange(0, minor + 1, Relaxed, Relaxed);
        let _ = SEEN.iter().find(|seen| note(seen).is_ok());
    }
    is_one
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn files_that_the_kernel_caches_are_not_among_them() {
        for path in ["/proc/self/maps", "/dev/null", "/proc"] {
            let file = std::fs::File::open(path).unwrap();
            assert!(!is_uncached(file.as_raw_fd()), "{path}");
        }
        assert!(!is_uncached(-1));
    }

    #[test]
    fn what_was_seen_is_known() {
        assert!(!is_known(4_000_000));
        SEEN[15].store(4_000_001, Relaxed);
        assert!(is_known(4_000_000));
    }
}
