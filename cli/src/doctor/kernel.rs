//! The kernel, and what it can do for paging.

use std::fs;

use tmem_pager::sys::uffd::{OpenError, Uffd, feature};

use super::finding::{Finding, State};

/// The first kernel that pages programs at all.
const LEAST: (u32, u32) = (5, 11);
/// Transparent huge pages.
const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Looks at the kernel of this machine.
pub(crate) fn look() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let wanted = feature::MOVE | feature::POISON | feature::THREAD_ID | feature::EXACT_ADDRESS;
    let features = Uffd::open(wanted).map(|uffd| uffd.features);
    let thp = fs::read_to_string(THP).ok();
    let mut findings = vec![version(release.trim(), features)];
    findings.push(huge_pages(thp.as_deref()));
    findings
}

/// What a kernel of this release enables, with the features that userfaultfd has if it can be
/// asked.
fn version(release: &str, features: Result<u64, OpenError>) -> Finding {
    const ABOUT: &str = "kernel";
    let number = number(release);
    if number.is_some_and(|number| number < LEAST) || features == Err(OpenError::Unsupported) {
        let text = format!("Linux {release}: its userfaultfd is missing or too old");
        return Finding::new(ABOUT, State::Problem, text)
            .remedy("boot Linux 5.11 or later; 6.8 or later is several times quicker");
    }
    let has = |bit, since| match features {
        Ok(features) => features & bit != 0,
        Err(_) => number.is_some_and(|number| number >= since),
    };
    let moves = has(feature::MOVE, (6, 8));
    let poisons = has(feature::POISON, (6, 6));
    let how = if moves { "moved" } else { "copied" };
    let lost = match poisons {
        true => "SIGBUS where it touches a lost page",
        false => "SIGKILL where it touches a lost page",
    };
    let text = format!("Linux {release}: pages are {how}; a program gets {lost}");
    match moves {
        true => Finding::new(ABOUT, State::Ok, text),
        false => Finding::new(ABOUT, State::Warning, text)
            .remedy("boot Linux 6.8 or later, which moves pages instead of copying them"),
    }
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next()?.parse().ok();
    Some((next()?, next()?))
}

/// Whether programs get huge pages; `setting` is the kernel's file.
fn huge_pages(setting: Option<&str>) -> Finding {
    const ABOUT: &str = "huge pages";
    let chosen = setting.and_then(|text| text.split('[').nth(1)?.split(']').next());
    let text = match chosen {
        Some("never") => {
            return Finding::new(
                ABOUT,
                State::Note,
                "transparent huge pages are off: a program that fits its budget runs as \
                 natively, which is slower here than it could be",
            )
            .remedy("to have them where programs ask for them")
            .commands([format!("echo madvise > {THP}")]);
        }
        Some(chosen) => format!("transparent huge pages: {chosen}; memory that leaves is split"),
        None => "this kernel has no transparent huge pages".to_owned(),
    };
    Finding::new(ABOUT, State::Ok, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(number("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(number("5.10"), Some((5, 10)));
        assert_eq!(number("strange"), None);
    }

    #[test]
    fn an_old_kernel_is_a_problem_and_one_that_copies_a_warning() {
        let no = Err(OpenError::NoPermission);
        assert_eq!(version("5.10.0", no).state, State::Problem);
        assert_eq!(
            version("6.1.0", Err(OpenError::Unsupported)).state,
            State::Problem
        );
        let old = version("6.1.0", no);
        assert_eq!(old.state, State::Warning);
        assert!(old.text.contains("copied") && old.text.contains("SIGKILL"));
        // What the kernel says counts for more than its number.
        assert_eq!(version("6.12.0", Ok(0)).state, State::Warning);
        let new = version("6.1.0", Ok(feature::MOVE | feature::POISON));
        assert_eq!(new.state, State::Ok);
        assert!(new.text.contains("moved") && new.text.contains("SIGBUS"));
    }

    #[test]
    fn the_setting_of_huge_pages_is_read() {
        assert_eq!(
            huge_pages(Some("always madvise [never]\n")).state,
            State::Note
        );
        assert!(
            huge_pages(Some("always [madvise] never\n"))
                .text
                .contains(": madvise")
        );
        assert_eq!(huge_pages(None).state, State::Ok);
    }
}
