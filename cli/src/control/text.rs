//! Figures as people read them.

/// Bytes, with three digits at most before the unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ if value < 9.95 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// A rate, such as 12.3k.
pub(crate) fn count(value: f64) -> String {
    match value {
        v if v < 999.5 => format!("{v:.0}"),
        v if v < 99_950.0 => format!("{:.1}k", v / 1e3),
        v if v < 999_500.0 => format!("{:.0}k", v / 1e3),
        v => format!("{:.1}M", v / 1e6),
    }
}

/// A share of 1 in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// What fits into `width` columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, text) in [
            (0, "0B"),
            (999, "999B"),
            (1023, "1.0K"),
            (64 << 20, "64M"),
            (1000 << 20, "1.0G"),
            (3 << 29, "1.5G"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (12_345.0, "12.3k"),
            (2e6, "2.0M"),
        ] {
            assert_eq!(count(value), text);
        }
        assert_eq!(percent(0.456), "46%");
        assert_eq!(
            (cut("abcdef", 4), cut("abc", 4)),
            ("abc…".to_owned(), "abc".to_owned())
        );
    }
}
