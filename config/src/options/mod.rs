//! The options of `tmem run` and of the library.

mod declare;
mod file;
mod loss;
mod toml;
mod value;

pub use declare::{Declaration, Group};
pub use loss::{OnLoss, Redundancy};
pub use value::{AutoMode, Evict, Level, PagePath};

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::{ConfigError, Invalid, Local, ServerAddr, Size};
use declare::{final_type, first, options, or_default};
use toml::Toml;
use value::Value;

options! {
    local: Local => {
        flag: "local" "SIZE",
        variable: "TMEM_LOCAL",
        key: Some("local"),
        group: Memory,
        help: "Memory that may stay in local RAM, for all processes together (required)",
        more: "SIZE is a number with K, M, G or T (powers of 1024: 512M, 2G, 1.5GiB), plain bytes, \
               or a share such as 50%: of the machine's RAM, or of the cgroup's limit where that is \
               lower. At least 16M. With auto the budget follows the machine while the program runs: it \
               takes memory that is free while it waits for pages, and gives it back when others \
               need it; for `tmem run` only. Private and shared memory counts, pages of mapped files do not.",
    }
    local_min: Size => {
        flag: "local-min" "SIZE",
        variable: "TMEM_LOCAL_MIN",
        key: Some("local-min"),
        group: Memory,
        help: "With --local auto, the memory that the program has at least",
        more: "",
    }
    local_max: Size => {
        flag: "local-max" "SIZE",
        variable: "TMEM_LOCAL_MAX",
        key: Some("local-max"),
        group: Memory,
        help: "With --local auto, the memory that the program has at most",
        more: "",
    }
    per_process: bool = false => {
        flag: "per-process",
        variable: "TMEM_PER_PROCESS",
        key: Some("per-process"),
        group: Memory,
        help: "Let each process have the whole of --local, instead of all together",
        more: "",
    }
    servers: Vec<ServerAddr> = Vec::new() => {
        flag: "server" "ADDR",
        variable: "TMEM_SERVERS",
        key: Some("servers"),
        group: Memory,
        help: "Memory server to send pages to; may be given several times",
        more: "ADDR is host:port, tcp://host:port or rdma://host:port, IPv6 as [::1]:7070; commas \
               separate several. Without a scheme `tmem run` uses RDMA where both ends have it, else \
               TCP; a program that is started with LD_PRELOAD uses TCP. `,zone=NAME` after an address \
               names what fails together, such as a rack: copies of a page go to different zones. \
               embedded starts a memory server within `tmem run`, to try the network path.",
    }
    local_tier: Size => {
        flag: "local-tier" "SIZE",
        variable: "TMEM_LOCAL_TIER",
        key: Some("local-tier"),
        group: Memory,
        help: "Memory of this machine for evicted pages, compressed, beyond --local",
        more: "Without --server all evicted pages go there, and the default is the memory that the machine \
               or the cgroup has beyond --local. With --server it takes what the servers have no \
               room for, and is not used unless this option or --spill is given. For all processes \
               together. See docs/local-tier.md.",
    }
    spill: PathBuf => {
        flag: "spill" "DIR",
        variable: "TMEM_SPILL",
        key: Some("spill"),
        group: Memory,
        help: "Folder for a file that takes what the local tier has no memory for",
        more: "The file has no name, and ends with the program. It is not encrypted.",
    }
    redundancy: Redundancy => {
        flag: "redundancy" "KIND",
        variable: "TMEM_REDUNDANCY",
        key: Some("redundancy"),
        group: Memory,
        help: "On how many servers each page is, so that the loss of one loses nothing",
        more: "copies=2 takes twice the memory of servers. The default is copies=2 where servers on \
               two or more addresses are named, else none. See docs/reliability.md.",
    }
    repair_rate: Size = Size::Bytes(256 << 20) => {
        flag: "repair-rate" "SIZE",
        variable: "TMEM_REPAIR_RATE",
        key: Some("repair-rate"),
        group: Memory,
        help: "How much is copied in a second, at most, once a server with copies is lost",
        more: "",
    }
    on_loss: OnLoss = OnLoss::Sigbus => {
        flag: "on-loss" "WHAT",
        variable: "TMEM_ON_LOSS",
        key: Some("on-loss"),
        group: Memory,
        help: "What becomes of threads that touch a page that only a lost server had",
        more: "WHAT is sigbus, wait or wait=DURATION, as in wait=10m. With wait they sleep until the \
               server is back with its memory, and everything else goes on.",
    }
    secret_file: PathBuf => {
        flag: "secret-file" "FILE",
        variable: "TMEM_SECRET_FILE",
        key: Some("secret-file"),
        group: Memory,
        help: "File with the secret that the memory servers know",
        more: "`tmem keygen FILE` makes one. A secret has at least 16 bytes; one newline at the end \
               of the file does not count. Only the file's owner may be able to write it. A server \
               that does not prove that it knows the secret is not used.",
    }
    config: PathBuf => {
        flag: "config" "FILE",
        variable: "TMEM_CONFIG",
        key: None,
        group: Memory,
        help: "TOML file to read options from",
        more: "Relative paths in it are relative to its folder.",
    }
    strict: bool = false => {
        flag: "strict",
        variable: "TMEM_STRICT",
        key: Some("strict"),
        group: Start,
        help: "Start no program that cannot be paged, and none before its pager is ready",
        more: "`tmem run` then ends with status 125. It holds for what the program starts as well.",
    }
    unpaged_ok: bool = false => {
        flag: "unpaged-ok",
        variable: "TMEM_UNPAGED_OK",
        key: Some("unpaged-ok"),
        group: Start,
        help: "Run the program without paging where servers, library or permission are missing",
        more: "Otherwise `tmem run` ends with status 125. --strict wins over it. A program that is \
               started with LD_PRELOAD always runs, unless TMEM_STRICT is set.",
    }
    log: Level = Level::Warn => {
        flag: "log" "LEVEL",
        variable: "TMEM_LOG",
        key: Some("log"),
        group: Output,
        help: "How much tmem says on stderr",
        more: "",
    }
    summary: bool = false => {
        flag: "summary",
        variable: "TMEM_SUMMARY",
        key: Some("summary"),
        group: Output,
        help: "Print statistics on stderr when the program exits",
        more: "",
    }
    stats_file: PathBuf => {
        flag: "stats-file" "FILE",
        variable: "TMEM_STATS_FILE",
        key: Some("stats-file"),
        group: Output,
        help: "Write statistics to this file, as JSON, when the program exits",
        more: "A new file is made, or a regular one replaced; a pipe or a character device is \
               written to, and so is /dev/stdout. Symbolic links are not followed. With \
               LD_PRELOAD each process has a file of its own: %p in the name stands for its process \
               ID, and without %p all but the first process append it, as in stats.json.1234.",
    }
    plot: PathBuf => {
        flag: "plot" "FILE",
        variable: "TMEM_PLOT",
        key: Some("plot"),
        group: Output,
        help: "Draw memory, faults and waiting over the program's life into this file, as SVG",
        more: "The file is written when the program exits. For `tmem run` only.",
    }
    metrics: SocketAddr => {
        flag: "metrics" "ADDR",
        variable: "TMEM_METRICS",
        key: Some("metrics"),
        group: Output,
        help: "Answer metrics (/metrics) and health checks (/healthz, /readyz) over HTTP here",
        more: "An IP address and a port, as in 127.0.0.1:9171; port 0 takes a free one, which --log \
               info tells. The figures are those of all processes together. For `tmem run` only.",
    }
    page_path: PagePath = PagePath::Auto => {
        flag: "page-path" "PATH",
        variable: "TMEM_PAGE_PATH",
        key: Some("page-path"),
        group: Paging,
        help: "How pages leave and enter the program",
        more: "auto moves them (UFFDIO_MOVE) where the kernel can, from Linux 6.8 on, else copies \
               them, which is several times slower.",
    }
    compress: AutoMode = AutoMode::Auto => {
        flag: "compress" "WHEN",
        variable: "TMEM_COMPRESS",
        key: Some("compress"),
        group: Paging,
        help: "Compress pages on the network (LZ4)",
        more: "auto does so where it was measured to be quicker, as over 1 Gbit/s. Over TCP only.",
    }
    compressed_cache: AutoMode = AutoMode::Auto => {
        flag: "compressed-cache" "WHEN",
        variable: "TMEM_COMPRESSED_CACHE",
        key: Some("compressed-cache"),
        group: Paging,
        help: "Keep compressed copies of evicted pages in local memory (LZ4)",
        more: "Such pages are restored without contacting a server. The copies count against the \
               budget. auto keeps them where servers are so slow that it pays.",
    }
    evict: Evict = Evict::Needed => {
        flag: "evict" "WHEN",
        variable: "TMEM_EVICT",
        key: Some("evict"),
        group: Paging,
        help: "When pages leave",
        more: "needed evicts what exceeds the budget. all is a stress test: it evicts everything \
               about every millisecond, and starts the program only once paging has begun.",
    }
}

impl Layer {
    /// Reads the `TMEM_*` variables. An empty one counts as unset.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] names the variable, its value and what is allowed.
    pub fn from_env() -> Result<Layer, ConfigError> {
        Layer::from_vars(|name| env::var_os(name))
    }

    /// Reads the TOML file at `path`. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// Those of reading it; and where it is not TOML, has an unknown key, or a value that its
    /// key does not take.
    pub fn from_file(path: &Path) -> Result<Layer, ConfigError> {
        file::read(path)
    }

    /// Lays this layer over the file that it names, if it names one.
    ///
    /// # Errors
    /// As [`Layer::from_file`].
    pub fn with_file(self) -> Result<Layer, ConfigError> {
        match self.config.as_deref() {
            Some(path) => {
                let file = Layer::from_file(path)?;
                Ok(self.or(file))
            }
            None => Ok(self),
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Layer::default().finish()
    }
}

fn from_variable<T: Value>(
    variable: &'static str,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    T::read(&value)
        .map(Some)
        .map_err(|invalid| ConfigError::Variable { variable, invalid })
}

fn from_flag<T: Value>(
    flag: &'static str,
    values: Option<Vec<OsString>>,
) -> Result<Option<T>, ConfigError> {
    let Some(values) = values else {
        return Ok(None);
    };
    let value = match T::IS_SWITCH {
        true => OsString::from("yes"),
        false => values.join(OsStr::new(",")),
    };
    T::read(&value)
        .map(Some)
        .map_err(|invalid| ConfigError::Flag { flag, invalid })
}

#[cfg(test)]
mod tests;
