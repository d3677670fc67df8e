//! Messages on stderr, for people or for machines.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;
use tmem_config::Level;
use tmem_memserver::Log;

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object in a line, with time, level and message.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(format!("`{text}` is not known; allowed: text or json")),
        }
    }
}

/// Takes messages up to `level`.
pub(crate) fn to_stderr(level: Level, format: Format) -> Log {
    if format == Format::Json {
        // Nobody else in this process has set one.
        let _ = tracing::subscriber::set_global_default(
            tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_target(false)
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(std::io::stderr)
                .finish(),
        );
    }
    Arc::new(move |of, text| {
        if of > level {
            return;
        }
        match (format, of) {
            (Format::Text, _) => {
                // Nobody is left to tell when stderr is closed.
                let _ = writeln!(std::io::stderr(), "tmem-memserver: {text}");
            }
            (Format::Json, Level::Error) => tracing::error!("{text}"),
            (Format::Json, Level::Warn) => tracing::warn!("{text}"),
            (Format::Json, Level::Info) => tracing::info!("{text}"),
            (Format::Json, Level::Debug) => tracing::debug!("{text}"),
        }
    })
}
