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
//! | `large` | allocations larger than the machine's memory |
//! | `filter` | filters of system calls, which are not for the engine |
//! | `direct` | direct input, on kernels that cannot move pages |
//! | `limits` | limits of the address space and of data, of which tmem is no part |
//! | `look` | `mincore`, which counts what is elsewhere |
//! | `own` | userfaultfds of the program's own |
//! | `remap` | `mremap` of memory that is adopted in part |
//! | `robust` | robust mutexes, whose pages must stay |
//! | `unmap` | what unmaps or empties memory, which must not meet a zap |
//!
//! Nothing here runs while a program is paged but `exec` and the last nine; the engine runs in a
//! thread of its own, without the C library.

mod direct;
mod environment;
mod exec;
mod family;
mod figures;
mod filter;
mod fork;
mod heap;
mod keep;
mod large;
mod limits;
mod look;
mod naming;
mod own;
mod remap;
mod rings;
mod robust;
mod start;
mod target;
mod unmap;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();
