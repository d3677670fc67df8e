//! Limits that a program sets to its own address space, data and tasks: what tmem maps and
//! starts is not to count (`RLIMIT_AS`, `RLIMIT_DATA`, `RLIMIT_NPROC`).
//!
//! The kernel counts address space, also what is only reserved. So a limit is set higher
//! by what tmem has, and told as it was asked for. Programs that are then started
//! inherit it, and what tmem has in them is as much again.
//!
//! The kernel counts the tasks of a user, the engine's as well. Without them a forked child
//! could not go on, so each process that the program may have counts with all of its own.

use super::interpose;
use super::next::{Function, next};
use libc::{c_int, c_uint, pid_t, rlimit};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use tmem_pager::sys::space::SPACE;

/// What tmem maps beside its heaps and the space for its engine: this library, small things.
const REST: u64 = 16 << 20;

/// The most tasks of tmem's that serve one process: the engine, two guards, a zap worker.
const TASKS: u64 = 4;

/// With a limit below this, the engine opens what it needs before the limit is set.
const FEW: u64 = 128;

type Prlimit = unsafe extern "C" fn(pid_t, c_uint, *const rlimit, *mut rlimit) -> c_int;

interpose! {
    /// `prlimit(2)`.
    prlimit => Prlimit, own_prlimit;
    /// `prlimit64`, which is the same on machines of 64 bits.
    prlimit64 => Prlimit64, own_prlimit;
    /// `setrlimit(2)`.
    setrlimit => Setrlimit, own_setrlimit;
    /// `setrlimit64`, which is the same on machines of 64 bits.
    setrlimit64 => Setrlimit64, own_setrlimit;
    /// `getrlimit(2)`.
    getrlimit => Getrlimit, own_getrlimit;
    /// `getrlimit64`, which is the same on machines of 64 bits.
    getrlimit64 => Getrlimit64, own_getrlimit;
}

/// A limit that was set higher than asked for.
struct Raised {
    asked: AtomicU64,
    set: AtomicU64,
}

impl Raised {
    const fn none() -> Raised {
        Raised {
            asked: AtomicU64::new(libc::RLIM_INFINITY),
            set: AtomicU64::new(libc::RLIM_INFINITY),
        }
    }

    fn note(&self, asked: u64, set: u64) {
        self.asked.store(asked, Relaxed);
        self.set.store(set, SeqCst);
    }

    /// What to say of a limit.
    fn told(&self, limit: u64) -> u64 {
        // Somebody else may have set it since.
        match self.set.load(SeqCst) == limit {
            true => self.asked.load(Relaxed),
            false => limit,
        }
    }
}

/// The limits of the address space, of data and of tasks: for each the soft and the hard one.
static RAISED: [[Raised; 2]; 3] = [const { [const { Raised::none() }; 2] }; 3];

fn raised(resource: c_uint) -> Option<&'static [Raised; 2]> {
    match resource {
        libc::RLIMIT_AS => Some(&RAISED[0]),
        libc::RLIMIT_DATA => Some(&RAISED[1]),
        libc::RLIMIT_NPROC => Some(&RAISED[2]),
        _ => None,
    }
}

/// What tmem adds to a limit of `asked`.
fn own(resource: c_uint, asked: u64) -> u64 {
    match crate::start::pool_bytes() {
        Some(_) if resource == libc::RLIMIT_NPROC => own_tasks(asked),
        Some(pool) => own_bytes(pool),
        None => 0,
    }
}

/// Tasks of tmem's beside as many processes as are asked for. A program that asks for no other
/// process than itself is not to have any.
fn own_tasks(asked: u64) -> u64 {
    match asked {
        0 | 1 => 0,
        _ => asked.saturating_mul(TASKS),
    }
}

/// Bytes that tmem maps, or is going to, in this process.
fn own_bytes(pool: u64) -> u64 {
    let heaps = crate::heap::undisturbed(|| {
        let ranges = crate::heap::ranges();
        ranges.iter().map(|r| r.len() as u64).sum::<u64>()
    });
    heaps + pool.max(SPACE.range().len() as u64) + REST
}

/// What to set where `asked` is asked for, and no more than `most` may be had.
fn higher(asked: u64, most: u64, own: u64) -> u64 {
    match asked {
        libc::RLIM_INFINITY => asked,
        // To ask for more than may be had is refused, or takes rights.
        _ if asked > most => asked.saturating_add(own),
        _ => asked.saturating_add(own).min(most),
    }
}

/// `prlimit(2)`.
///
/// # Safety
/// As for the C library's.
pub(crate) unsafe extern "C" fn own_prlimit(
    pid: pid_t,
    resource: c_uint,
    new: *const rlimit,
    old: *mut rlimit,
) -> c_int {
    let real = next(Function::Prlimit);
    // SAFETY: it is prlimit.
    let real = unsafe { std::mem::transmute::<usize, Prlimit>(real) };
    let this = pid == 0 || pid as u32 == std::process::id();
    // SAFETY: by the caller.
    let asked = unsafe { new.as_ref() };
    let few = |l: &rlimit| resource == libc::RLIMIT_NOFILE && l.rlim_cur < FEW;
    let engines = this && super::credentials::is_the_programs();
    if engines && asked.is_some_and(few) && crate::start::pool_bytes().is_some() {
        tmem_pager::engine::have_all();
    }
    let Some(raised) = raised(resource).filter(|_| this) else {
        // SAFETY: by the caller.
        return unsafe { real(pid, resource, new, old) };
    };
    let mut before = rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: by the caller; `new` is read as the kernel would read it, null or not.
    unsafe {
        if real(0, resource, std::ptr::null(), &raw mut before) != 0 {
            return -1;
        }
        let told = rlimit {
            rlim_cur: raised[0].told(before.rlim_cur),
            rlim_max: raised[1].told(before.rlim_max),
        };
        if let Some(asked) = asked {
            let higher = |asked| higher(asked, before.rlim_max, own(resource, asked));
            let set = rlimit {
                rlim_cur: higher(asked.rlim_cur),
                rlim_max: higher(asked.rlim_max),
            };
            // What is wrong with what was asked is to be said of that.
            let set = match asked.rlim_cur > asked.rlim_max {
                true => *asked,
                false => set,
            };
            if real(0, resource, &raw const set, std::ptr::null_mut()) != 0 {
                return -1;
            }
            // A child of `vfork` has limits of its own, but the memory of its parent.
            if super::credentials::is_the_programs() {
                raised[0].note(asked.rlim_cur, set.rlim_cur);
                raised[1].note(asked.rlim_max, set.rlim_max);
            }
        }
        if let Some(old) = old.as_mut() {
            *old = told;
        }
    }
    0
}

unsafe extern "C" fn own_setrlimit(resource: c_uint, new: *const rlimit) -> c_int {
    // SAFETY: by the caller.
    unsafe { own_prlimit(0, resource, new, std::ptr::null_mut()) }
}

unsafe extern "C" fn own_getrlimit(resource: c_uint, old: *mut rlimit) -> c_int {
    // SAFETY: by the caller.
    unsafe { own_prlimit(0, resource, std::ptr::null(), old) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_higher_as_far_as_may_be() {
        const NONE: u64 = libc::RLIM_INFINITY;
        assert_eq!(higher(NONE, NONE, 5), NONE);
        assert_eq!(higher(100, NONE, 5), 105);
        assert_eq!(higher(100, 103, 5), 103);
        assert_eq!(higher(100, 99, 5), 105);
        assert_eq!(higher(NONE - 1, NONE, 5), NONE);
    }

    #[test]
    fn a_program_that_may_have_no_other_process_gets_none() {
        assert_eq!([0, 1, 2, 6].map(own_tasks), [0, 0, 8, 24]);
        assert_eq!(own_tasks(u64::MAX), u64::MAX);
    }

    #[test]
    fn limits_are_told_as_they_were_asked_for() {
        let limit = Raised::none();
        assert_eq!(limit.told(7), 7);
        limit.note(100, 105);
        assert_eq!((limit.told(105), limit.told(104)), (100, 104));
    }
}
