//! The engine on a model of the kernel and of memory servers, driven through random
//! interleavings and compared with a plain map of bytes: see `docs/design/model.md`.
//!
//! | file | what it is |
//! |---|---|
//! | `world` | the model's memory: mappings, pages, messages, held callers |
//! | `kernel` | the kernel trait over it |
//! | `paging` | what the kernel does with pages |
//! | `program` | threads, what they change, and the plain map |
//! | `machine` | the engine, the model and the servers, step by step |
//! | `meet` | steps that have two things meet which seldom meet by chance |
//! | `child` | what a forked child would find |
//! | `steps` | random steps, and the test |

mod child;
mod kernel;
mod machine;
mod meet;
mod paging;
mod program;
mod steps;
mod world;
