//! Which kind of task the engine is.

/// Whether the environment asks for an engine that is a thread of the program's process
/// (`TMEM_ENGINE=thread`) instead of a process of its own.
pub fn wants_thread() -> bool {
    std::env::var_os("TMEM_ENGINE").is_some_and(|value| value == "thread")
}
