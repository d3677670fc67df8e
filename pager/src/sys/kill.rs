//! Ends processes: the program, all that share its memory, and the calling one.

use super::sharers::{each_sharer, is_alone, shares};
use super::syscall::syscall3;
use super::{departure, program, sleep, thread};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use rustix::process::{Pid, Signal};

/// Ends the process with all of its threads, with this status.
pub fn exit_process(status: i32) -> ! {
    loop {
        // SAFETY: exit_group(status) touches no memory.
        unsafe { syscall3(231, status as usize, 0, 0) };
    }
}

/// Ends the process by this signal, even if the program ignores or handles it. The program
/// has no threads any more.
pub fn end_by_signal(signal: i32) -> ! {
    // The handler (the default), flags, restorer and mask.
    let default = [0usize; 4];
    // SAFETY: rt_sigaction(signal, &default, null, 8) only reads `default`.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 13usize => _, in("rdi") signal as usize,
            in("rsi") default.as_ptr(), in("rdx") 0usize, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    thread::set_mask(0);
    // SAFETY: kill(process, signal) touches no memory.
    unsafe { syscall3(62, thread::leader() as usize, signal as usize, 0) };
    kill_process()
}

/// Ends the calling thread's process at once by SIGKILL. In a process of the engine's own,
/// ends the program and every process that shares its memory.
pub fn kill_process() -> ! {
    if program::is_task() {
        end_all();
    }
    loop {
        let me = rustix::process::getpid();
        // It never fails. The loop is for the return type.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

/// Ends the program if the task that holds a lock of the engine's tasks was killed. Called
/// from time to time by a task that waits for such a lock, with the number of turns it has
/// waited.
pub fn end_if_holder_is_dead(turns: u64) {
    // Nobody holds a lock for so long, even on a busy machine.
    const MANY: u64 = 1 << 24;
    if program::is_task() && (program::has_lost_its_engine() || turns >= MANY) {
        end_all();
    }
}

/// Ends the program and all processes that share its memory by SIGKILL, and then the
/// calling task. The task keeps the userfaultfd open until nobody is left who could read
/// zeros. It does not use the heap, whose lock a killed task may have held.
pub(super) fn end_all() -> ! {
    const NAP_US: u64 = 500;
    // A process that starts while the list is read appears in the next list.
    const LOOKS: u32 = 2;
    let mut looks = 0;
    while looks < LOOKS {
        let left = departure::has_left();
        if let Some(fd) = program::fd().filter(|_| !left) {
            // A process that may not be killed waits for its memory for ever.
            let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
        }
        let sharers = each_sharer(kill);
        if left && sharers == 0 {
            looks += 1;
        } else {
            looks = 0;
            sleep::sleep_us(NAP_US);
        }
    }
    // One of the engine's tasks ends last, when the kernel says that nobody else uses the
    // memory, even if `/proc` does not show them.
    let own = program::own_id();
    while is_last(own) && !is_alone() {
        for task in program::tasks() {
            if task != own && shares(task) == Some(true) {
                kill(task);
            }
        }
        sleep::sleep_us(NAP_US);
    }
    thread::exit()
}

/// Tells whether the engine's process `own` ends last: the first that asks does, or another
/// if that was killed.
fn is_last(own: u32) -> bool {
    let last = program::LAST.load(Acquire);
    if last != own && (last == 0 || shares(last) != Some(true)) {
        let _ = program::LAST.compare_exchange(last, own, AcqRel, Relaxed);
    }
    program::LAST.load(Acquire) == own
}

/// Kills a process, if it exists and may be killed.
fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}
