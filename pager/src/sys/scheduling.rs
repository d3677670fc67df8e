//! Which CPUs a thread runs on, and how soon after it is woken.

use super::syscall::syscall3;

/// A set of CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpus([u64; 16]);

impl Cpus {
    /// Returns a set with one CPU.
    pub fn one(cpu: u32) -> Cpus {
        let mut set = Cpus::default();
        if let Some(word) = set.0.get_mut(cpu as usize / 64) {
            *word = 1 << (cpu % 64);
        }
        set
    }
}

/// Returns the CPUs that the calling thread may run on.
pub fn cpus() -> Cpus {
    let mut set = Cpus::default();
    // SAFETY: sched_getaffinity(0, size, &set). A kernel that knows more CPUs refuses, and
    // leaves the set empty.
    unsafe { syscall3(204, 0, size_of::<Cpus>(), &raw mut set as usize) };
    set
}

/// Binds the calling thread to these CPUs, if it may. The kernel refuses an empty set.
pub fn run_on(set: &Cpus) {
    put_on(0, set);
}

/// Binds thread `tid` to these CPUs, if it may.
pub fn put_on(tid: u32, set: &Cpus) {
    let size = size_of::<Cpus>();
    // SAFETY: sched_setaffinity(tid, size, &set).
    unsafe { syscall3(203, tid as usize, size, &raw const *set as usize) };
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The time slice of a thread that has to run soon (Linux 6.12).
const SLICE_NS: u64 = 100_000;
const SCHED_RR: u32 = 2;
const RESET_ON_FORK: u64 = 1;

/// Tasks that this thread starts are scheduled as usual. Only a privileged user may remove
/// this flag, so it is set in each call: otherwise a user who may only give up a priority
/// could not.
fn schedule(attr: SchedAttr) -> bool {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        flags: RESET_ON_FORK,
        ..attr
    };
    // SAFETY: sched_setattr(0, &attr, 0), whose argument contains its size.
    unsafe { syscall3(314, 0, &raw const attr as usize, 0) == 0 }
}

/// Makes the calling thread run soon after it is woken, as far as this user may: with a
/// high weight and short time slices. Ends a real-time priority.
pub fn hurry() {
    // The last one is the current value, which the kernel refuses to nobody. getpriority
    // returns 20 minus that value. SAFETY: getpriority(PRIO_PROCESS, 0).
    let own = 20 - unsafe { syscall3(140, 0, 0, 0) } as i32;
    [-20, 0, own].into_iter().any(|nice| {
        schedule(SchedAttr {
            nice,
            runtime: SLICE_NS,
            ..SchedAttr::default()
        })
    });
}

/// Makes the calling thread run at once when it is woken, before all threads without a
/// real-time priority, if this user may; else as [`hurry`]. For a thread that sleeps nearly
/// all the time, since [`super::sleep::pause`] does not yield to other threads then.
///
/// A weight counts only within a group of processes. On a busy machine a session's group,
/// with everything in it, may wait for a CPU for a tenth of a second.
pub fn hurry_most() {
    // This must come first. While a thread is a real-time one, the scheduler keeps what it
    // has run too long, measured with the weight that it had at the beginning. With a lower
    // weight than afterwards, a tenth of a millisecond would count as ten.
    hurry();
    schedule(SchedAttr {
        policy: SCHED_RR,
        priority: 1,
        ..SchedAttr::default()
    });
}
