//! `libtmem.so`: what a program is started with to be paged.
//!
//! | file | what it does |
//! |---|---|
//! | `start` | reads the options and starts the engine, before `main` |
//! | `interpose` | functions that the program calls and this library is put before |
//! | `link` | loaded libraries and their symbols, without the dynamic linker |
//! | `heap` | the allocator of everything in this library |
//! | `never_paged` | the memory that the engine must never page |
//! | `mem_functions` | the memory functions that compiled code calls, apart from the program's |
//! | `raw` | system calls without the C library |
//! | `errno` | the calling thread's `errno` |
//! | `environment` | what is told to processes that this one starts |
//! | `family` | what `tmem run` shares with the processes under it |
//! | `figures` | where figures are kept, and what is said of them at the end |
//! | `naming` | files with figures, one for each process |
//! | `obstacle` | programs that cannot be paged |
//! | `target` | what in a program's file keeps it from being paged |
//!
//! While a program is paged nothing here runs but what is in `interpose`. The engine runs in
//! a thread of its own, without the C library.

mod environment;
mod errno;
mod family;
mod figures;
mod heap;
mod interpose;
mod link;
mod mem_functions;
mod naming;
mod never_paged;
mod obstacle;
mod raw;
mod redundancy;
mod start;
mod target;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();
