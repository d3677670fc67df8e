//! Manual pages and completions, for packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{OWN_FAILURE, args};

/// Write manual pages and completions for shells into a folder
#[derive(clap::Args)]
pub(crate) struct GenerateArgs {
    /// The folder, which is made if it is not there
    folder: PathBuf,
}

/// Writes them; the exit status.
pub(crate) fn run(args: &GenerateArgs) -> i32 {
    match write(&args.folder) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("tmem: {}: {error}", args.folder.display());
            OWN_FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let command = args::Args::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = command.clone();
        clap_complete::generate_to(shell, &mut command, "tmem", folder)?;
    }
    clap_mangen::generate_to(command, folder)
}
