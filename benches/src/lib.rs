//! What benchmarks share: memory with known contents, ways to use it, the floors of the machine,
//! and reports.

mod error;
pub mod eviction;
pub mod floors;
pub mod fresh;
pub mod histogram;
pub mod memory;
pub mod outcome;
pub mod page;
pub mod pattern;
pub mod plots;
pub mod report;
pub mod spawn;
pub mod svg;
pub mod table;
pub mod tables;
pub mod units;
pub mod walk;
pub mod zipf;

pub use error::Error;

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
