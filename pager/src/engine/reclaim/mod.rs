//! Pages that leave the program.

pub(crate) mod async_dma;
pub(crate) mod balance;
pub(crate) mod compressed;
pub(crate) mod evict;
pub mod lending;
pub(crate) mod retry_list;
pub(crate) mod stress;
pub(crate) mod zap;
pub(crate) mod zap_worker;
