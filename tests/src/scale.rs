//! Sizes: small enough for every change, or those of the promise.

/// Whether `TMEM_TEST_SCALE=full` asks for full sizes.
pub fn is_full() -> bool {
    std::env::var("TMEM_TEST_SCALE").is_ok_and(|v| v == "full")
}

/// `small`, or `full` when full sizes are asked for.
pub fn pick<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}
