//! Amounts of memory as people write them.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// What a size may look like, for messages.
pub const SIZE_ALLOWED: &str = "bytes; a number with K, M, G or T, powers of 1024 (512M, 2G, \
     1.5GiB); or a percentage of the memory (50%)";

/// Millionths of a percent in a percent.
const PERCENT_SCALE: u128 = 1_000_000;

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// A share of the memory that there is ([`crate::Memory::most`]), in millionths of a
    /// percent (at most 100 000 000).
    Share(u32),
}

impl Size {
    /// The amount in bytes where there are `memory` bytes in all.
    pub fn bytes(self, memory: u64) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Share(share) => {
                let bytes = u128::from(memory) * u128::from(share) / (100 * PERCENT_SCALE);
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Writes a form that [`parse_size`] reads back as the same size.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Size::Bytes(bytes) => write!(f, "{bytes}"),
            Size::Share(share) => {
                let (whole, part) = (
                    u128::from(share) / PERCENT_SCALE,
                    u128::from(share) % PERCENT_SCALE,
                );
                if part == 0 {
                    write!(f, "{whole}%")
                } else {
                    write!(f, "{}%", format!("{whole}.{part:06}").trim_end_matches('0'))
                }
            }
        }
    }
}

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Size, Invalid> {
        parse_size(text)
    }
}

/// Reads `512M`, `2G`, `1.5GiB`, plain bytes, or `50%` of the memory. Units are
/// powers of 1024, whether written `G`, `GB` or `GiB`, in any case.
///
/// # Errors
/// [`Invalid`] says what is wrong and what is allowed.
pub fn parse_size(text: &str) -> Result<Size, Invalid> {
    let invalid = |reason: &'static str| Invalid::new(text, reason, SIZE_ALLOWED);
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(invalid("is empty"));
    }
    let unit_at = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(unit_at);
    let unit = unit.trim_start().to_ascii_lowercase();
    let wrong = |at: usize| {
        let before = text.len() - text.trim_start().len() + at;
        let place = text[..before].chars().count() as u32;
        invalid("is not a size").at((before < text.trim_end().len()).then_some(place))
    };
    let number =
        Decimal::parse(number).ok_or_else(|| wrong(first_wrong(number).unwrap_or(unit_at)))?;
    let scale = match unit.as_str() {
        "" | "b" => {
            if number.digits != 0 {
                return Err(invalid("is a fraction of a byte"));
            }
            1
        }
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "%" => {
            let share = number
                .times(PERCENT_SCALE)
                .filter(|s| *s <= 100 * PERCENT_SCALE);
            let share = share.ok_or_else(|| invalid("is more than all of the memory"))?;
            return Ok(Size::Share(share as u32));
        }
        _ => return Err(wrong(trimmed.len() - trimmed[unit_at..].trim_start().len())),
    };
    let bytes = number
        .times(scale)
        .and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .map(Size::Bytes)
        .ok_or_else(|| invalid("is too large"))
}

/// The byte of a number that should not be there, if it is none of those that are missing: a
/// second point, or a point at the start.
fn first_wrong(number: &str) -> Option<usize> {
    let point = number.find('.')?;
    let second = number[point + 1..].find('.').map(|at| point + 1 + at);
    if point == 0 { Some(0) } else { second }
}

/// A decimal number, exactly: `mantissa / 10^digits`.
struct Decimal {
    mantissa: u128,
    digits: u32,
}

impl Decimal {
    /// Reads digits with at most one point between them, 24 digits at most.
    fn parse(text: &str) -> Option<Decimal> {
        let (whole, part) = text
            .split_once('.')
            .map_or((text, None), |(w, p)| (w, Some(p)));
        let part_is_bad = part.is_some_and(|p| p.is_empty() || p.contains('.'));
        if whole.is_empty() || part_is_bad || text.len() > 25 {
            return None;
        }
        let part = part.unwrap_or("");
        let mantissa = format!("{whole}{part}").parse().ok()?;
        Some(Decimal {
            mantissa,
            digits: part.len() as u32,
        })
    }

    /// The number times `scale`, rounded down.
    fn times(&self, scale: u128) -> Option<u128> {
        Some(self.mantissa.checked_mul(scale)? / 10u128.pow(self.digits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_forms_are_read() {
        let bytes = |text| match parse_size(text) {
            Ok(Size::Bytes(bytes)) => bytes,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(bytes("512M"), 512 << 20);
        assert_eq!(bytes("2G"), 2 << 30);
        assert_eq!(bytes("1.5GiB"), 3 << 29);
        assert_eq!(bytes(" 7 kb "), 7 << 10);
        assert_eq!(bytes("123456"), 123_456);
        assert_eq!(bytes("1t"), 1 << 40);
        assert_eq!(bytes("0"), 0);
        assert_eq!(bytes("18446744073709551615"), u64::MAX);
        assert_eq!(parse_size("50%").unwrap().bytes(1 << 30), 1 << 29);
        assert_eq!(parse_size("12.5%").unwrap().bytes(800), 100);
        assert_eq!(parse_size("100%").unwrap().bytes(u64::MAX), u64::MAX);
    }

    #[test]
    fn refusals_name_the_value_the_reason_and_what_is_allowed() {
        for (text, reason) in [
            ("", "is empty"),
            ("M", "is not a size"),
            ("-1G", "is not a size, because of `-` in place 1"),
            ("1..5G", "is not a size, because of `.` in place 3"),
            ("1.G", "is not a size, because of `G` in place 3"),
            (".5G", "is not a size, because of `.` in place 1"),
            (" 2 parsecs", "is not a size, because of `p` in place 4"),
            ("512Q", "is not a size, because of `Q` in place 4"),
            ("1e9", "is not a size, because of `e` in place 2"),
            ("1.5", "is a fraction of a byte"),
            ("101%", "is more than all of the memory"),
            ("18446744073709551616", "is too large"),
            ("99999999T", "is too large"),
        ] {
            let message = parse_size(text).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("`{text}` {reason}; allowed: {SIZE_ALLOWED}")
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, share in 0u32..=100_000_000) {
            for size in [Size::Bytes(bytes), Size::Share(share)] {
                prop_assert_eq!(parse_size(&size.to_string()).unwrap(), size);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn any_number_like_text_is_read_or_refused(text in "[0-9.]{0,40}[KMGTkmgtibB% ]{0,4}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn units_scale(n in 0u64..1 << 23, (unit, shift) in prop_oneof![
            Just(("K", 10)), Just(("M", 20)), Just(("G", 30)), Just(("TiB", 40)),
        ]) {
            prop_assert_eq!(parse_size(&format!("{n}{unit}")).unwrap(), Size::Bytes(n << shift));
        }

        #[test]
        fn a_share_of_ram_never_exceeds_it(share in 0u32..=100_000_000, ram: u64) {
            prop_assert!(Size::Share(share).bytes(ram) <= ram);
        }
    }
}
