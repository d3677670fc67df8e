//! Sizes: small enough for every change, or those of the promise. And by what
//! servers are reached.

/// Whether `TMEM_TEST_SCALE=full` asks for full sizes.
pub fn is_full() -> bool {
    std::env::var("TMEM_TEST_SCALE").is_ok_and(|v| v == "full")
}

/// `small`, or `full` when full sizes are asked for.
pub fn pick<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// Whether `TMEM_TEST_EMULATED` says that this machine is emulated: a program
/// outruns the engine there, so that how well budgets are kept says nothing.
pub fn is_emulated() -> bool {
    std::env::var_os("TMEM_TEST_EMULATED").is_some()
}

/// The address of this machine's RDMA device, if `TMEM_TEST_RDMA` names it:
/// then servers listen there, and programs reach them over RDMA.
pub fn rdma() -> Option<std::net::IpAddr> {
    let text = std::env::var("TMEM_TEST_RDMA").ok()?;
    Some(text.parse().expect("TMEM_TEST_RDMA is an address"))
}
