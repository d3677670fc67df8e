//! Finds the paged programs that this user may look at.
//!
//! A paged process maps memory that `tmem run`, or its own engine, holds open. `/proc` tells
//! who maps it, and opens it for the owner of the holder and for root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tmem_pager::own::Own;
use tmem_pager::stats::Shared;

use super::area::Area;
use super::program::{Program, View};

/// Names of the memory files, as `/proc` shows them.
const SHARED: &str = "/memfd:tmem-stats (deleted)";
const OWN: &str = "/memfd:tmem-own (deleted)";

/// All paged programs, in the order of their numbers.
pub(crate) fn all() -> Vec<Program> {
    let mut groups: BTreeMap<(u64, &'static str), Vec<u32>> = BTreeMap::new();
    for pid in numbers(Path::new("/proc")) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for mapped in mapped(&maps) {
            let pids = groups.entry(mapped).or_default();
            if pids.last() != Some(&pid) {
                pids.push(pid);
            }
        }
    }
    let mut programs = Vec::new();
    for ((inode, name), pids) in groups {
        let Some(path) = pids.iter().find_map(|pid| holder(*pid, inode, name)) else {
            continue;
        };
        programs.extend(of_group(name, &path, &pids));
    }
    programs.sort_by_key(|program| program.pid);
    programs
}

/// Those that a number stands for: a process, or all of the `tmem run` that has it.
pub(crate) fn by_number(pid: u32) -> Result<Vec<Program>, String> {
    let all = all();
    let is_it = |program: &&Program| program.pid == pid;
    if all.iter().any(|program| is_it(&program)) {
        return Ok(all.into_iter().filter(|p| p.pid == pid).collect());
    }
    let of_run: Vec<_> = all.into_iter().filter(|p| p.group.contains(&pid)).collect();
    if !of_run.is_empty() {
        return Ok(of_run);
    }
    Err(match Path::new(&format!("/proc/{pid}")).exists() {
        true => format!(
            "process {pid} is not paged, or is another user's: `tmem ps` lists those that can be \
             seen"
        ),
        false => format!("there is no process {pid}: `tmem ps` lists those that are paged"),
    })
}

/// The numbers that name entries of a folder.
fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The memory files that a process maps, by inode and name: its own, and those of processes
/// that it was forked from.
fn mapped(maps: &str) -> impl Iterator<Item = (u64, &'static str)> {
    maps.lines().filter_map(|line| {
        let name = [SHARED, OWN].into_iter().find(|name| line.ends_with(name));
        let inode = line.split_ascii_whitespace().nth(4)?.parse().ok()?;
        Some((inode, name?))
    })
}

/// Where `/proc` has the memory file, if a task of this process holds it.
fn holder(pid: u32, inode: u64, name: &str) -> Option<PathBuf> {
    // The engine began before all of the program's threads but the first.
    let tasks = numbers(Path::new(&format!("/proc/{pid}/task")));
    tasks.into_iter().find_map(|task| {
        let folder = PathBuf::from(format!("/proc/{pid}/task/{task}/fd"));
        numbers(&folder).into_iter().rev().find_map(|fd| {
            let path = folder.join(fd.to_string());
            let is_named = fs::read_link(&path).is_ok_and(|to| to == Path::new(name));
            let is_it = is_named && fs::metadata(&path).is_ok_and(|file| file.ino() == inode);
            is_it.then_some(path)
        })
    })
}

/// The programs that show themselves in one memory file.
fn of_group(name: &str, path: &Path, pids: &[u32]) -> Vec<Program> {
    let inner: Vec<(u32, u32)> = pids.iter().map(|pid| (*pid, inner_number(*pid))).collect();
    // What is of another release cannot be read.
    let views: Vec<View> = match name {
        SHARED => {
            let Ok(area) = Area::<Shared>::open(path).map(Rc::new) else {
                return Vec::new();
            };
            let living = area.get().family.living().count();
            let view = |place| View::Shared(area.clone(), place);
            (0..living).map(view).collect()
        }
        _ => Area::<Own>::open(path).map(View::Own).into_iter().collect(),
    };
    let named = views.into_iter().filter_map(|view| {
        let number = view.shown()?.pid;
        let (pid, _) = inner.iter().find(|(_, inner)| *inner == number)?;
        Some(Program::new(*pid, pids.to_vec(), view))
    });
    named.collect()
}

/// The number of a process in its own PID namespace.
fn inner_number(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    inner(&status).unwrap_or(pid)
}

fn inner(status: &str) -> Option<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_file_is_found_among_mappings() {
        let maps = "7f00-7f01 rw-p 00000000 00:00 0 \n\
                    7f01-7f02 rw-s 00000000 00:01 4242 /memfd:tmem-own (deleted)\n\
                    7f02-7f03 r-xp 00000000 00:01 99 /usr/lib/libc.so.6\n";
        assert_eq!(mapped(maps).collect::<Vec<_>>(), [(4242, OWN)]);
        let other = "7f00-7f01 rw-p 00000000 00:00 0 /tmp/memfd:tmem-own\n";
        assert_eq!(mapped(other).count(), 0);
    }

    #[test]
    fn a_process_in_a_container_has_two_numbers() {
        assert_eq!(inner("Name:\tx\nNSpid:\t4711\t12\n"), Some(12));
        assert_eq!(inner("NSpid:\t4711\n"), Some(4711));
        assert_eq!(inner("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_that_is_not_paged_is_told_from_none() {
        let error = by_number(std::process::id()).err().unwrap();
        assert!(error.contains("is not paged"), "{error}");
        let error = by_number(u32::MAX).err().unwrap();
        assert!(error.contains("there is no process"), "{error}");
    }
}
