//! Functions that the program calls and this library is put before.
//!
//! | file | what it does |
//! |---|---|
//! | `next` | the list of these functions, and what is called without this library |
//! | `syscall` | `syscall`, which can be any of the calls below |
//! | `fork` | forks: what becomes of the child |
//! | `exec` | programs that are started and cannot be paged |
//! | `leave` | the end of the program |
//! | `credentials` | users, groups and capabilities, which the engine's tasks follow |
//! | `seccomp` | filters of system calls, which are not for the engine |
//! | `rlimit` | limits of the address space, of data and of tasks, of which tmem is no part |
//! | `malloc` | allocation: large blocks, and room for them |
//! | `unmap` | what unmaps or empties memory, which must not meet a zap |
//! | `mremap` | `mremap` of memory that is adopted in part |
//! | `mlock` | `mlockall`, which leaves out what is tmem's |
//! | `mincore` | `mincore`, which counts evicted pages as present |
//! | `robust_mutex` | robust mutexes, whose pages must stay |
//! | `user_uffd` | userfaultfds of the program's own |
//! | `io` | `read`, `write` and their like, which do more for two kinds of descriptors |
//! | `mem_file` | the program's own memory as a file, `/proc/self/mem` |
//! | `debugger` | memory of other processes, for debuggers |
//! | `direct` | direct input, on kernels that cannot move pages |
//! | `uncached` | file systems whose files are always read so |
//! | `io_uring` | buffers that a program registers with io_uring |
//! | `user_memory` | memory that is named in calls, and may not be there |
//! | `by_handle` | functions that are looked up by a handle of the C library |
//! | `lend` | calls that lend pages to a pipe or a socket |
//!
//! Each function is a few instructions ([`interpose`]): until the library pages the program
//! they jump to the next function of the name, with the caller's registers and stack as they
//! were, and do nothing else. So a program that is not paged calls what it would call anyway:
//! errors, `dlerror`, cancellation and signals are as they are without the library.

mod by_handle;
pub(crate) mod credentials;
pub(crate) mod debugger;
mod direct;
pub(crate) mod exec;
pub(crate) mod fork;
mod io;
mod io_uring;
mod leave;
mod lend;
mod malloc;
mod mem_file;
mod mincore;
mod mlock;
mod mremap;
pub(crate) mod next;
mod rlimit;
mod robust_mutex;
mod seccomp;
mod syscall;
mod uncached;
mod unmap;
mod user_memory;
mod user_uffd;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Release;

/// The program is paged, or about to be: calls do more than to be passed on.
pub(crate) static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Has calls do what they are for, from before the engine starts on; or passed on only.
pub(crate) fn activate(on: bool) {
    ACTIVE.store(on, Release);
}

/// Puts functions of this library before others of the same name.
///
/// `name => Function, own, WHEN, OR` exports `name`, which goes on with `own` while one of the
/// flags `WHEN` and `OR` is set, or [`ACTIVE`] where none is named, and else jumps to the next
/// function. The functions take no floating-point arguments.
macro_rules! interpose {
    ($($(#[$doc:meta])* $name:ident => $function:ident, $own:path $(, $when:path)*;)*) => {$(
        $crate::interpose::interpose!(@flags $(#[$doc])* $name, $function, $own, $($when),*);
    )*};
    (@flags $(#[$doc:meta])* $name:ident, $function:ident, $own:path,) => {
        $crate::interpose::interpose!(@flags $(#[$doc])* $name, $function, $own,
            $crate::interpose::ACTIVE);
    };
    (@flags $(#[$doc:meta])* $name:ident, $function:ident, $own:path, $when:path) => {
        $crate::interpose::interpose!(@one $(#[$doc])* $name, $function, $own,
            ["cmp byte ptr [rip + {when}], 0", "jne {own}"], [when = sym $when,]);
    };
    (@flags $(#[$doc:meta])* $name:ident, $function:ident, $own:path, $when:path, $or:path) => {
        $crate::interpose::interpose!(@one $(#[$doc])* $name, $function, $own,
            ["cmp byte ptr [rip + {when}], 0", "jne {own}",
             "cmp byte ptr [rip + {or}], 0", "jne {own}"], [when = sym $when, or = sym $or,]);
    };
    (@one $(#[$doc:meta])* $name:ident, $function:ident, $own:path,
        [$($check:literal),*], [$($flag:tt)*]) => {
        $(#[$doc])*
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                $($check,)*
                "mov r11, qword ptr [rip + {next} + {at}]",
                "test r11, r11",
                "jz 2f",
                "jmp r11",
                "2:",
                "mov r11d, {index}",
                "jmp {find}",
                $($flag)*
                own = sym $own,
                next = sym $crate::interpose::next::NEXT,
                at = const $crate::interpose::next::Function::$function as usize
                    * size_of::<usize>(),
                index = const $crate::interpose::next::Function::$function as usize,
                find = sym $crate::interpose::next::find_and_jump,
            )
        }
    };
}
pub(crate) use interpose;

/// The text of instructions that leave the arguments of a call as they were: `rax`, which for
/// a variadic function counts the vector registers, and the six that hold integers. The stack
/// is aligned for calls within them. What they are to leave behind belongs into `r11`.
macro_rules! keeping_arguments {
    ($($line:literal),*) => {
        concat!(
            "push rax\n",
            "push rdi\n",
            "push rsi\n",
            "push rdx\n",
            "push rcx\n",
            "push r8\n",
            "push r9\n",
            $($line, "\n",)*
            "pop r9\n",
            "pop r8\n",
            "pop rcx\n",
            "pop rdx\n",
            "pop rsi\n",
            "pop rdi\n",
            "pop rax\n",
        )
    };
}
pub(crate) use keeping_arguments;

/// Defines a function that has `note` see its first three arguments, and then jumps to the
/// next function with all arguments and the stack as they were: what that does may depend on
/// its caller, and a thread may be cancelled in it.
macro_rules! noted {
    ($($name:ident => $function:ident, $note:path;)*) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                $crate::interpose::keeping_arguments!("call {note}"),
                "jmp qword ptr [rip + {next} + {at}]",
                note = sym $note,
                next = sym NEXT,
                at = const Function::$function as usize * size_of::<usize>(),
            )
        }
    )*};
}
pub(crate) use noted;
