//! Core files that the kernel writes when the program crashes.

use super::proc::path::open_of_process;
use super::proc::{text_of_status, wait_status};
use super::program;
use rustix::ioctl::{self, Opcode, Updater, opcode};

/// The bit of a wait status that tells of a core.
const DUMPED: i32 = 0x80;

/// What the kernel says of the program while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A core is being written.
    pub is_dumping: bool,
    /// The process that the program's end is told to, or 0.
    pub parent: u32,
}

/// Looks at the program. Returns `None` if the kernel shows nothing of it any more.
pub fn look() -> Option<Seen> {
    let file = open_of_process(program::id(), "status")?;
    text_of_status(&file, seen)
}

fn seen(status: &str) -> Option<Seen> {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse::<u32>().ok()
    };
    Some(Seen {
        is_dumping: number("CoreDumping:").unwrap_or(0) != 0,
        parent: number("PPid:")?,
    })
}

/// Tells whether the kernel has written a core of the program, which has left its memory.
/// Returns `None` if that is unknown: before Linux 6.15, once the program's parent has
/// learned of its end.
pub fn was_written() -> Option<bool> {
    let status = || reaped_with().or_else(|| wait_status(program::id()));
    // The parent may be told between the two questions.
    status().or_else(status).map(|status| status & DUMPED != 0)
}

/// `struct pidfd_info` in its first form.
#[repr(C)]
struct Info {
    mask: u64,
    ids: [u32; 13],
    exit_code: i32,
}

/// Returns the program's wait status, once its parent knows it.
fn reaped_with() -> Option<i32> {
    const GET_INFO: Opcode = opcode::read_write::<Info>(0xff, 11);
    const EXIT: u64 = 1 << 3;
    let mut info = Info {
        mask: EXIT,
        ids: [0; 13],
        exit_code: 0,
    };
    // SAFETY: the argument has the layout of `struct pidfd_info`.
    unsafe { ioctl::ioctl(program::fd()?, Updater::<{ GET_INFO }, _>::new(&mut info)) }.ok()?;
    (info.mask & EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_and_the_parent_are_in_the_status() {
        let dumping = "Name:\ta\nPPid:\t17\nCoreDumping:\t1\n";
        let parent = 17;
        let is_dumping = true;
        assert_eq!(seen(dumping), Some(Seen { is_dumping, parent }));
        // Kernels before 4.15 do not say it.
        assert_eq!(seen("PPid:\t17\n").map(|s| s.is_dumping), Some(false));
        assert_eq!(seen("Name:\ta\n"), None);
        let own = look().unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(!own.is_dumping);
    }

    #[test]
    fn a_program_that_runs_has_left_no_core() {
        assert_eq!(was_written(), Some(false));
    }
}
