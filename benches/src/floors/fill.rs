//! Fresh memory, filled: what the kernel's own first touch costs.

use std::time::{Duration, Instant};

use crate::fresh::Fresh;

/// Bytes filled at a time.
const PIECE: usize = 64 << 20;

/// Fills memory for about `time`; 10^9 bytes per second.
pub(super) fn fill(time: Duration) -> f64 {
    let start = Instant::now();
    let (mut bytes, mut ns) = (0, 0.0);
    while bytes == 0 || start.elapsed() < time {
        let mut fresh = Fresh::new(PIECE);
        let span = fresh.fill(fresh.left());
        bytes += span.bytes;
        ns += span.ns;
    }
    bytes as f64 / ns
}
