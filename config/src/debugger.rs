//! What `tmem debug` hands over.

/// Set for a debugger: it reads what is elsewhere in the programs that it debugs.
pub const DEBUGGER_VARIABLE: &str = "TMEM_DEBUGGER";
