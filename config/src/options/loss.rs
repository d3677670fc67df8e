//! What is done about servers that are lost.

use super::value::{Value, parse};
use crate::Invalid;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::str::FromStr;

/// What is done so that the loss of a server loses no page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redundancy {
    /// Each page is on one server.
    #[default]
    None,
    /// Each page is on so many servers.
    Copies(u8),
}

impl Redundancy {
    /// How many servers have each page.
    pub fn copies(self) -> usize {
        match self {
            Redundancy::None => 1,
            Redundancy::Copies(copies) => usize::from(copies),
        }
    }
}

const REDUNDANCY_ALLOWED: &str = "none, copies=2 or copies=3";

impl FromStr for Redundancy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Redundancy, Invalid> {
        match text.trim() {
            "none" => Ok(Redundancy::None),
            "copies=2" => Ok(Redundancy::Copies(2)),
            "copies=3" => Ok(Redundancy::Copies(3)),
            code if code.starts_with("ec=") => Err(Invalid::new(
                text,
                "is not supported (there are copies, and no erasure codes)",
                REDUNDANCY_ALLOWED,
            )),
            _ => Err(Invalid::new(text, "is not known", REDUNDANCY_ALLOWED)),
        }
    }
}

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Redundancy::None => f.write_str("none"),
            Redundancy::Copies(copies) => write!(f, "copies={copies}"),
        }
    }
}

impl Value for Redundancy {
    const ALLOWED: &'static str = REDUNDANCY_ALLOWED;
    const IS_CHOICE: bool = true;

    fn read(text: &OsStr) -> Result<Redundancy, Invalid> {
        parse(text)
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }
}

/// What becomes of threads that touch a page that only a lost server had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// They get SIGBUS.
    #[default]
    Sigbus,
    /// They wait for the server to be back with its memory: for so many seconds, or for
    /// ever.
    Wait(Option<u64>),
}

impl OnLoss {
    /// How long a server is waited for, in milliseconds; `None` if it is not.
    pub fn wait_ms(self) -> Option<u64> {
        match self {
            OnLoss::Sigbus => None,
            OnLoss::Wait(None) => Some(u64::MAX),
            OnLoss::Wait(Some(seconds)) => Some(seconds.saturating_mul(1000)),
        }
    }
}

const ON_LOSS_ALLOWED: &str = "sigbus, wait or wait=DURATION, as in wait=30s, wait=10m or wait=2h";

/// Units of a duration in seconds, the largest first.
const UNITS: [(char, u64); 3] = [('h', 3600), ('m', 60), ('s', 1)];

impl FromStr for OnLoss {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<OnLoss, Invalid> {
        let duration = match text.trim() {
            "sigbus" => return Ok(OnLoss::Sigbus),
            "wait" => return Ok(OnLoss::Wait(None)),
            other => other.strip_prefix("wait="),
        };
        let unit = |text: &str| {
            UNITS
                .iter()
                .find(|(unit, _)| text.ends_with(*unit))
                .copied()
        };
        let seconds = duration.and_then(|text| {
            let (unit, seconds) = unit(text)?;
            let number = text.strip_suffix(unit)?;
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let number: u64 = number.parse().ok().filter(|_| is_number)?;
            number.checked_mul(seconds).filter(|s| *s > 0)
        });
        let invalid = || Invalid::new(text, "is not known", ON_LOSS_ALLOWED);
        seconds.map(|s| OnLoss::Wait(Some(s))).ok_or_else(invalid)
    }
}

impl fmt::Display for OnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnLoss::Sigbus => f.write_str("sigbus"),
            OnLoss::Wait(None) => f.write_str("wait"),
            OnLoss::Wait(Some(seconds)) => write!(f, "wait={seconds}s"),
        }
    }
}

impl Value for OnLoss {
    const ALLOWED: &'static str = ON_LOSS_ALLOWED;

    fn read(text: &OsStr) -> Result<OnLoss, Invalid> {
        parse(text)
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_read_and_erasure_codes_are_refused_by_name() {
        for text in ["none", "copies=2", "copies=3"] {
            assert_eq!(text.parse::<Redundancy>().unwrap().to_string(), text);
        }
        for text in ["", "copies=1", "copies=4", "copies", "2"] {
            let refused = text.parse::<Redundancy>().unwrap_err().to_string();
            assert!(refused.contains(REDUNDANCY_ALLOWED), "{refused}");
        }
        let refused = "ec=4+2".parse::<Redundancy>().unwrap_err().to_string();
        assert!(refused.contains("no erasure codes"), "{refused}");
    }

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, seconds) in [("wait=30s", 30), ("wait=10m", 600), (" wait=2h ", 7200)] {
            let read: OnLoss = text.parse().unwrap();
            assert_eq!(read, OnLoss::Wait(Some(seconds)));
            assert_eq!(read.to_string().parse::<OnLoss>().unwrap(), read);
        }
        for text in [
            "", "wait=", "wait=5", "wait=m", "wait=-5s", "wait=0s", "wait=+5s", "wai",
        ] {
            assert!(text.parse::<OnLoss>().is_err(), "{text}");
        }
        assert_eq!("wait".parse(), Ok(OnLoss::Wait(None)));
        assert_eq!("sigbus".parse(), Ok(OnLoss::Sigbus));
    }
}
