//! The local tier: whether there is one, how much memory it may have, and where it spills.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tmem_config::Options;
use tmem_pager::engine::LocalSettings;

/// A tier with less is of no use.
const LEAST: u64 = 16 << 20;

/// The settings, and the folder for spill files, which is open for as long as the result is
/// kept. `most` is the memory that the program may have, and `budget` what it has without the
/// tier.
pub(super) fn local_tier(
    options: &Options,
    most: u64,
    budget: u64,
) -> Result<(Option<LocalSettings>, Option<OwnedFd>), String> {
    let is_alone = options.servers.is_empty();
    if !is_alone && options.local_tier.is_none() && options.spill.is_none() {
        return Ok((None, None));
    }
    let rest = most.saturating_sub(budget).max(LEAST);
    let bytes = options.local_tier.map_or(rest, |size| size.bytes(most));
    let folder = options.spill.as_deref().map(open).transpose()?;
    let settings = LocalSettings {
        bytes: bytes.max(LEAST),
        folder: folder.as_ref().map(AsRawFd::as_raw_fd),
    };
    Ok((Some(settings), folder))
}

fn open(folder: &Path) -> Result<OwnedFd, String> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(folder);
    let cannot = |e| format!("the folder for spill files {}: {e}", folder.display());
    opened.map(File::into).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmem_config::Size;

    fn bytes(options: &Options) -> Option<u64> {
        let (settings, _) = local_tier(options, 1 << 30, 1 << 28).expect("settings");
        settings.map(|s| s.bytes)
    }

    #[test]
    fn without_servers_it_has_what_is_left_and_beside_servers_what_was_given() {
        let mut options = Options::default();
        assert_eq!(bytes(&options), Some(3 << 28));
        options.servers = vec!["node:1".parse().expect("a server")];
        assert_eq!(bytes(&options), None);
        options.local_tier = Some(Size::Bytes(1 << 25));
        assert_eq!(bytes(&options), Some(1 << 25));
        options.local_tier = None;
        options.spill = Some(std::env::temp_dir());
        assert_eq!(bytes(&options), Some(3 << 28));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let options = Options {
            spill: Some("/dev/null".into()),
            ..Options::default()
        };
        let text = local_tier(&options, 1 << 30, 1 << 28).expect_err("no folder");
        assert!(text.contains("/dev/null"), "{text}");
    }
}
