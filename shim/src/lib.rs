//! `libtmem.so`: what a program is started with to be paged.
//!
//! | file | what it does |
//! |---|---|
//! | `start` | reads the options and starts the engine, before `main` |
//! | `heap` | the allocator of everything in this library |
//! | `keep` | the memory that the engine must never page |
//! | `environment` | what is told to processes that this one starts |
//! | `exec` | programs that are started and cannot be paged |
//! | `target` | what in a program's file keeps it from being paged |
//! | `family` | what `tmem run` shares with the processes under it |
//! | `figures` | where figures are kept, and what is said of them at the end |
//! | `naming` | files with figures, one for each process |
//! | `fork` | what becomes of a forked child |
//! | `bind` | has this library call the C library itself |
//! | `obstacle` | programs that cannot be paged |
//! | `memory` | the memory functions that compiled code calls, apart from the program's |
//! | `next` | what is called without this library, and how calls are passed on |
//! | `symbols` | looks symbols up without the dynamic linker |
//! | `errno` | the calling thread's `errno` |
//! | `large` | allocations larger than the machine's memory |
//! | `filter` | filters of system calls, which are not for the engine |
//! | `credentials` | users, groups and capabilities, which the engine's tasks follow |
//! | `direct` | direct input, on kernels that cannot move pages |
//! | `lend` | calls that lend pages to a pipe or a socket |
//! | `leave` | the end of the program |
//! | `limits` | limits of the address space and of data, of which tmem is no part |
//! | `lock` | `mlockall`, which is to leave out what is tmem's |
//! | `look` | `mincore`, which counts what is elsewhere |
//! | `own` | userfaultfds of the program's own |
//! | `remap` | `mremap` of memory that is adopted in part |
//! | `rings` | buffers that a program registers with io_uring |
//! | `robust` | robust mutexes, whose pages must stay |
//! | `unmap` | what unmaps or empties memory, which must not meet a zap |
//!
//! Nothing here runs while a program is paged but what is interposed: the last fourteen,
//! `exec` and `fork`. The engine runs in a thread of its own, without the C library.

mod bind;
mod credentials;
mod direct;
mod environment;
mod errno;
mod exec;
mod family;
mod figures;
mod filter;
mod fork;
mod heap;
mod keep;
mod large;
mod leave;
mod lend;
mod limits;
mod lock;
mod look;
mod memory;
mod naming;
mod next;
mod obstacle;
mod own;
mod remap;
mod rings;
mod robust;
mod start;
mod symbols;
mod target;
mod unmap;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();
