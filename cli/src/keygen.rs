//! `tmem keygen`.

use std::io::{self, Write};

use tmem_config::{new_secret, write_secret};

use crate::OWN_FAILURE;
use crate::args::KeygenArgs;

/// Makes a secret; the exit status.
pub(crate) fn run(args: &KeygenArgs) -> i32 {
    match try_run(args) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("tmem: {text}");
            OWN_FAILURE
        }
    }
}

fn try_run(args: &KeygenArgs) -> Result<(), String> {
    let secret = new_secret().map_err(|e| format!("no random bytes: {e}"))?;
    let Some(path) = &args.file else {
        let written = writeln!(io::stdout(), "{secret}");
        return written.map_err(|e| format!("the secret could not be printed: {e}"));
    };
    write_secret(path, &secret).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!(
                "{} exists already, and is kept; name a new file",
                path.display()
            )
        }
        _ => format!("{}: {error}", path.display()),
    })
}
