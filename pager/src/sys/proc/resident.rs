//! The resident memory of the process, by kinds.

use super::Proc;
use crate::sys::roots::open_in_proc;
use rustix::io::Errno;

/// Resident memory of the process by kinds, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Private memory: anonymous pages, and changed pages of private file mappings.
    pub private: u64,
    /// Memory that may be shared with other processes and has no file on a disk: shared
    /// anonymous mappings, System V segments, files of `tmpfs`.
    pub shared: u64,
    /// Pages of files, which the kernel can reclaim by itself.
    pub files: u64,
    /// Address space that is locked (`mlock`), or pinned for devices.
    pub locked: u64,
    /// Huge pages of the reserved pool (`hugetlbfs`), which are in none of the others.
    pub huge: u64,
}

impl Resident {
    /// Returns the same without so many pages of private memory.
    #[must_use]
    pub fn without(self, pages: u64) -> Resident {
        Resident {
            private: self.private.saturating_sub(pages),
            ..self
        }
    }

    /// Returns what the kernel reports as the resident size.
    pub fn all(&self) -> u64 {
        self.private + self.shared + self.files
    }

    /// Returns the pages that count against a budget. Pages of files do not, since the
    /// kernel reclaims them when memory is short.
    pub fn counted(&self) -> u64 {
        self.private + self.shared
    }

    /// Parses the kinds that only `status` has.
    fn of_status(text: &str) -> Option<Resident> {
        let pages = |name: &str| kib(text, name).map(|kib| kib / 4);
        Some(Resident {
            private: 0,
            shared: pages("RssShmem:")?,
            files: pages("RssFile:")?,
            locked: pages("VmLck:")? + pages("VmPin:").unwrap_or(0),
            huge: pages("HugetlbPages:").unwrap_or(0),
        })
    }
}

/// Returns the number of KiB in the line of `text` that begins with `name`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    number.and_then(|n| n.trim().parse::<u64>().ok())
}

/// Memory of the process that other processes may have as well, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Private memory, and the same with each page divided by the number of processes that
    /// have it.
    pub private: (u64, u64),
    /// Shared memory, divided in the same way.
    pub shared: u64,
}

/// `status` is read again when the pages of files and shared memory have changed by this
/// much, or after so many uses: it takes six times as long as `statm`, which does not
/// distinguish the two.
const CHANGED: u64 = 64;
const LOOKS: u32 = 16;

impl Proc {
    /// Returns the resident memory of the process.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn resident(&mut self) -> Result<Resident, Errno> {
        let [_, all, others] = self.statm()?;
        // The two numbers are not read at the same moment.
        let others = others.min(all);
        self.asked += 1;
        let changed = |r: &Resident| (r.shared + r.files).abs_diff(others) >= CHANGED;
        if self.asked >= LOOKS || self.read.as_ref().is_none_or(changed) {
            let mut buf = [0u8; 4096];
            let n = rustix::io::pread(&self.status, &mut buf, 0)?;
            let text = core::str::from_utf8(&buf[..n]).ok();
            self.read = text.and_then(Resident::of_status);
            self.asked = 0;
        }
        let read = self.read.unwrap_or(Resident {
            // If the kernel does not say which is which, everything counts.
            shared: others,
            ..Resident::default()
        });
        let shared = read.shared.min(others);
        Ok(Resident {
            private: all - others,
            shared,
            files: others - shared,
            ..read
        })
    }

    /// Returns the memory that other processes may have as well. The kernel walks all page
    /// tables for it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn shares(&self) -> Result<Shares, Errno> {
        let mut buf = [0u8; 2048];
        let n = match &self.lists {
            Some(lists) => rustix::io::pread(&lists.rollup, &mut buf, 0)?,
            None => {
                let fd = open_in_proc(c"thread-self/smaps_rollup")?;
                rustix::io::read(&fd, &mut buf)?
            }
        };
        let text = core::str::from_utf8(&buf[..n]).map_err(|_| Errno::INVAL)?;
        let pages = |name: &str| kib(text, name).map(|kib| kib / 4).ok_or(Errno::INVAL);
        Ok(Shares {
            private: (pages("Anonymous:")?, pages("Pss_Anon:")?),
            shared: pages("Pss_Shmem:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_wire::PAGE_SIZE;

    #[test]
    fn resident_memory_is_told_by_its_kinds() {
        let mut proc = Proc::open().unwrap();
        let before = proc.resident().unwrap();
        let len = 8 << 20;
        let pages = (len / PAGE_SIZE) as u64;
        let shared = crate::sys::mem::Region::shared(len).unwrap();
        let private = crate::sys::mem::Region::anywhere(len).unwrap();
        for region in [&shared, &private] {
            for at in (region.start..region.end()).step_by(PAGE_SIZE) {
                // SAFETY: new mappings.
                unsafe { core::ptr::write_volatile(at as *mut u8, 1) };
            }
        }
        let after = proc.resident().unwrap();
        // Other tests run at the same time, and kernels before 6.17 report some pages late.
        let slack = 1024;
        assert!(
            after.shared + slack >= before.shared + pages,
            "{before:?} {after:?}"
        );
        assert!(
            after.private + slack >= before.private + pages,
            "{before:?} {after:?}"
        );
        assert!(after.counted() + after.files == after.all());
        shared.unmap();
        private.unmap();
    }

    #[test]
    fn kinds_of_memory_are_found_in_the_text_of_the_status() {
        let text = "Name:\tx\nVmLck:\t      8 kB\nVmPin:\t      4 kB\nRssAnon:\t  104 kB\n\
            RssFile:\t    1340 kB\nRssShmem:\t      12 kB\nHugetlbPages:\t    2048 kB\n";
        let expected = Resident {
            private: 0,
            shared: 3,
            files: 335,
            locked: 3,
            huge: 512,
        };
        assert_eq!(Resident::of_status(text), Some(expected));
        assert_eq!(Resident::of_status("RssFile: 3 kB\n"), None);
    }
}
