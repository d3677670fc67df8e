//! Numbers as people read them.

/// A time given in nanoseconds, with three digits: `87.3 ns`, `1.25 us`.
pub fn time(ns: f64) -> String {
    scaled(ns, 1000.0, &[" ns", " us", " ms", " s"])
}

/// A number of events: `731`, `12.4k`, `3.05M`.
pub fn count(n: f64) -> String {
    if n < 1000.0 && n.fract() == 0.0 {
        return format!("{n}");
    }
    scaled(n, 1000.0, &["", "k", "M", "G", "T"])
}

/// An amount of memory given in bytes, in powers of 1024: `512M`, `38.4M`.
pub fn bytes(n: u64) -> String {
    let units = ["", "K", "M", "G", "T"];
    let exact = units.iter().enumerate().rev().find(|(power, _)| {
        n >= (1 << (10 * power)) * u64::from(*power > 0) && n.is_multiple_of(1 << (10 * power))
    });
    match exact {
        Some((power, unit)) if n >> (10 * power) < 10_000 => {
            format!("{}{unit}", n >> (10 * power))
        }
        _ => scaled(n as f64, 1024.0, &units),
    }
}

/// A ratio: `0.87x`, `12.3x`, `1204x`.
pub fn ratio(r: f64) -> String {
    format!("{}x", digits(r))
}

/// A share of 100: `12.5 %`.
pub fn percent(p: f64) -> String {
    format!("{p} %")
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut at = 0;
    // From what would be written as the step itself on.
    while value >= step * 0.9995 && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    format!("{}{}", digits(value), units[at])
}

/// Three digits, or all of the whole part.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(0.5), "0.50 ns");
        assert_eq!(time(87.31), "87.3 ns");
        assert_eq!(time(999.7), "1.00 us");
        assert_eq!(time(1_250.0), "1.25 us");
        assert_eq!(time(3.2e12), "3200 s");
        assert_eq!(count(731.0), "731");
        assert_eq!(count(12_400.0), "12.4k");
        assert_eq!(bytes(512 << 20), "512M");
        assert_eq!(bytes(4096), "4K");
        assert_eq!(bytes(40_265_318), "38.4M");
        assert_eq!(bytes(0), "0");
        assert_eq!(ratio(12.34), "12.3x");
        assert_eq!(percent(12.5), "12.5 %");
        assert_eq!(percent(50.0), "50 %");
    }
}
