//! The options of sanitizers in the environment.

use std::ffi::OsString;

/// The variables that the runtimes of the sanitizers read, the one that counts last.
const VARIABLES: [&str; 2] = ["ASAN_OPTIONS", "LSAN_OPTIONS"];

/// Whether a sanitizer that can look for leaks does so, by the environment variables that
/// `lookup` finds. It does by default.
pub fn looks_for_leaks(lookup: impl Fn(&str) -> Option<OsString>) -> bool {
    let values: Vec<String> = VARIABLES
        .iter()
        .filter_map(|name| lookup(name))
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let options = values
        .iter()
        .flat_map(|value| value.split([' ', ',', ':', '\n', '\t', '\r']));
    let mut wishes = options.filter_map(|option| option.strip_prefix("detect_leaks="));
    let last = wishes
        .next_back()
        .map(|wish| wish.trim_matches(['"', '\'']));
    !matches!(last, Some("0" | "no" | "false"))
}

/// The variable of the address sanitizer, and its value with one more option: other libraries
/// may be loaded before its own. Without it the sanitizer ends every program with libtmem.so.
pub fn behind_others(lookup: impl Fn(&str) -> Option<OsString>) -> (&'static str, OsString) {
    const WISH: &str = "verify_asan_link_order=0";
    let name = VARIABLES[0];
    let mut value = lookup(name).unwrap_or_default();
    if !value.is_empty() {
        value.push(":");
    }
    value.push(WISH);
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(asan: Option<&str>, lsan: Option<&str>) -> bool {
        looks_for_leaks(|name| match name {
            "ASAN_OPTIONS" => asan.map(OsString::from),
            "LSAN_OPTIONS" => lsan.map(OsString::from),
            _ => None,
        })
    }

    #[test]
    fn a_wish_is_added_to_what_is_there() {
        let (name, value) = behind_others(|_| Some("detect_leaks=0".into()));
        assert_eq!(name, "ASAN_OPTIONS");
        assert_eq!(value, "detect_leaks=0:verify_asan_link_order=0");
        assert_eq!(behind_others(|_| None).1, "verify_asan_link_order=0");
    }

    #[test]
    fn leaks_are_looked_for_unless_an_option_says_no() {
        assert!(of(None, None));
        assert!(of(Some("verbosity=1"), None));
        assert!(!of(Some("verbosity=1:detect_leaks=0"), None));
        assert!(!of(None, Some("detect_leaks=false")));
        assert!(of(Some("detect_leaks=0 detect_leaks=1"), None));
        assert!(of(Some("detect_leaks=0"), Some("detect_leaks='1'")));
        assert!(!of(Some("detect_leaks=\"0\""), Some("")));
    }
}
