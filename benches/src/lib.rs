//! What benchmarks share: memory with known contents, and ways to use it.

pub mod memory;
pub mod spawn;

/// The middle value; of an even number, the upper of the two middle ones.
///
/// # Panics
/// When there are no values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(super::median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(&mut [5.0]), 5.0);
    }
}
