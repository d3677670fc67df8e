//! How much memory this process may have: the machine's, or less where a cgroup limits it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Memory that this process may have, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// RAM of the machine.
    pub ram: u64,
    /// The lowest limit of the cgroup that the process is in, and of those around it.
    pub cgroup: Option<u64>,
}

impl Memory {
    /// Reads how much memory this process may have.
    ///
    /// # Errors
    /// When `/proc/meminfo` cannot be read or does not say. Cgroups that cannot be read
    /// limit nothing.
    pub fn get() -> io::Result<Memory> {
        let ram = crate::ram_bytes()?;
        let of = |file| fs::read_to_string(file).unwrap_or_default();
        let (cgroups, mounts) = (of("/proc/self/cgroup"), of("/proc/self/mountinfo"));
        let limit = lowest(&MEMORY, &cgroups, &mounts, |path| {
            fs::read_to_string(path).ok()
        });
        Ok(Memory {
            ram,
            // Version 1 has a number for "none" that is larger than any machine.
            cgroup: limit.filter(|limit| *limit < ram),
        })
    }

    /// Returns what the cgroups of this process leave it, in bytes: the least that is left
    /// below a limit. Clean pages of files count as left. `None` without a limit.
    pub fn left_by_cgroups() -> Option<u64> {
        let of = |file| fs::read_to_string(file).unwrap_or_default();
        let (cgroups, mounts) = (of("/proc/self/cgroup"), of("/proc/self/mountinfo"));
        least_left(&cgroups, &mounts, |path| fs::read_to_string(path).ok())
    }

    /// The most that the process may have. Shares such as `50%` are shares of this.
    pub fn most(&self) -> u64 {
        self.cgroup.map_or(self.ram, |limit| limit.min(self.ram))
    }
}

/// The version of a hierarchy of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What a cgroup limits, and the files with the limits in each version.
#[derive(Clone, Copy)]
pub(crate) struct Controller {
    pub(crate) name: &'static str,
    pub(crate) one: &'static [&'static str],
    pub(crate) two: &'static [&'static str],
}

const MEMORY: Controller = Controller {
    name: "memory",
    one: &["memory.limit_in_bytes"],
    two: &["memory.max", "memory.high"],
};

impl Controller {
    fn files(self, version: Version) -> &'static [&'static str] {
        match version {
            Version::One => self.one,
            Version::Two => self.two,
        }
    }

    /// The lowest limit of one cgroup.
    fn limit(
        self,
        version: Version,
        folder: &Path,
        read: impl Fn(&Path) -> Option<String>,
    ) -> Option<u64> {
        let files = self.files(version).iter();
        files
            .filter_map(|file| read(&folder.join(file))?.trim().parse().ok())
            .min()
    }
}

impl Version {
    /// The file that says how much memory is in use.
    fn used(self) -> &'static str {
        match self {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }
    }

    /// The field of `memory.stat` for pages of files that were not used of late.
    fn inactive_file(self) -> &'static str {
        match self {
            Version::One => "total_inactive_file ",
            Version::Two => "inactive_file ",
        }
    }
}

/// The lowest limit of the cgroups that `cgroups` and `mounts` name (see [`folders`]).
pub(crate) fn lowest(
    of: &Controller,
    cgroups: &str,
    mounts: &str,
    read: impl Fn(&Path) -> Option<String>,
) -> Option<u64> {
    let limits = folders(of, cgroups, mounts).into_iter();
    limits
        .filter_map(|(version, folder)| of.limit(version, &folder, &read))
        .min()
}

/// What the cgroups that limit memory leave.
fn least_left(cgroups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let left = |(version, folder): (Version, PathBuf)| {
        let limit = MEMORY.limit(version, &folder, &read)?;
        let used: u64 = read(&folder.join(version.used()))?.trim().parse().ok()?;
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let inactive = stat
            .lines()
            .find_map(|line| line.strip_prefix(version.inactive_file()));
        let inactive = inactive.and_then(|text| text.trim().parse().ok());
        Some(limit.saturating_sub(used.saturating_sub(inactive.unwrap_or(0))))
    };
    let folders = folders(&MEMORY, cgroups, mounts).into_iter();
    folders.filter_map(left).min()
}

/// The folders of the cgroups that `cgroups` (`/proc/self/cgroup`) names, from each up to
/// the root of its mount in `mounts` (`/proc/self/mountinfo`), as far as they limit this.
fn folders(of: &Controller, cgroups: &str, mounts: &str) -> Vec<(Version, PathBuf)> {
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = if controllers.is_empty() {
            Version::Two
        } else if controllers.split(',').any(|name| name == of.name) {
            Version::One
        } else {
            continue;
        };
        for (root, mount) in mounts.lines().filter_map(|line| mounted(of, line, version)) {
            // What is mounted may begin further down than the root of the hierarchy.
            let Ok(within) = Path::new(path).strip_prefix(&root) else {
                continue;
            };
            let folder = mount.join(within);
            let up = folder.ancestors().take_while(|f| f.starts_with(&mount));
            found.extend(up.map(|folder| (version, folder.to_owned())));
        }
    }
    found
}

/// Root and mount point of a hierarchy with such limits, if a line of `mountinfo` is of one.
fn mounted(of: &Controller, line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let fits = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|name| name == of.name),
        Version::Two => kind == "cgroup2",
    };
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, before.next()?);
    fits.then(|| (unescaped(root), unescaped(mount)))
}

/// A path of `mountinfo`, where blanks and the like are given as octal numbers.
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn limit(cgroups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<&Path, &str> = files.iter().map(|(p, t)| (Path::new(*p), *t)).collect();
        lowest(&MEMORY, cgroups, mounts, |path| {
            files.get(path).map(|t| (*t).to_owned())
        })
    }

    const TWO: &str = "30 23 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.high", "900\n"),
            ("/sys/fs/cgroup/a/memory.max", "800\n"),
            ("/sys/fs/cgroup/a/memory.high", "max\n"),
            ("/sys/fs/cgroup/other/memory.max", "1\n"),
        ];
        assert_eq!(limit("0::/a/b\n", TWO, &files), Some(800));
        let high = [("/sys/fs/cgroup/a/b/memory.high", "700\n"), files[2]];
        assert_eq!(limit("0::/a/b\n", TWO, &high), Some(700));
        assert_eq!(limit("0::/\n", TWO, &files), None);
    }

    #[test]
    fn the_first_version_is_read_where_it_has_the_controller() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let files = [
            (
                "/sys/fs/cgroup/memory/job/memory.limit_in_bytes",
                "314572800\n",
            ),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("/sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
        ];
        let cgroups = "9:name=systemd:/x\n4:memory:/job\n1:cpu:/\n0::/\n";
        assert_eq!(limit(cgroups, mounts, &files), Some(314_572_800));
    }

    #[test]
    fn what_is_left_is_the_least_and_counts_clean_pages_of_files() {
        let files: HashMap<&Path, &str> = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.high", "900\n"),
            ("/sys/fs/cgroup/a/b/memory.current", "500\n"),
            (
                "/sys/fs/cgroup/a/b/memory.stat",
                "anon 1\ninactive_file 200\n",
            ),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a/memory.current", "800\n"),
        ]
        .map(|(path, text)| (Path::new(path), text))
        .into();
        let read = |path: &Path| files.get(path).map(|t| (*t).to_owned());
        assert_eq!(least_left("0::/a/b\n", TWO, read), Some(200));
        assert_eq!(least_left("0::/a/b/c\n", TWO, read), Some(200));
        assert_eq!(least_left("0::/\n", TWO, read), None);
        let alone = |path: &Path| read(path).filter(|_| path.starts_with("/sys/fs/cgroup/a/b"));
        assert_eq!(least_left("0::/a/b\n", TWO, alone), Some(600));
    }

    #[test]
    fn in_a_container_the_mount_begins_further_down() {
        let mounts = "30 23 0:26 /pod/c1 /sys/fs/cg\\040roup ro - cgroup2 cgroup rw\n";
        let files = [
            ("/sys/fs/cg roup/memory.max", "600"),
            ("/sys/fs/cg roup/in/memory.max", "700"),
        ];
        assert_eq!(limit("0::/pod/c1/in\n", mounts, &files), Some(600));
        assert_eq!(limit("0::/elsewhere\n", mounts, &files), None);
    }

    #[test]
    fn nothing_is_made_of_text_that_is_not_understood() {
        assert_eq!(limit("0\n::\nx:y\n", "- \n a - cgroup2\n", &[]), None);
        assert_eq!(unescaped("/a\\12x\\b"), PathBuf::from("/a\\12x\\b"));
    }

    #[test]
    fn shares_are_of_the_smaller_of_both() {
        let limited = Memory {
            ram: 1000,
            cgroup: Some(300),
        };
        assert_eq!(limited.most(), 300);
        let free = Memory {
            cgroup: None,
            ..limited
        };
        assert_eq!(free.most(), 1000);
        let own = Memory::get().unwrap();
        assert!(own.most() <= own.ram && own.most() > 0);
    }
}
