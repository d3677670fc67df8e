//! Starts workloads, natively and under tmem, by the means of `tmem run`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::process::Stdio;

use serde::de::DeserializeOwned;
use tmem_benches::outcome::Outcome;
use tmem_benches::report::{Paged, Whole};
use tmem_config::{FAMILY_VARIABLE, Layer, Memory, Options};

use super::progress::Progress;
use super::work::Work;
use crate::embedded::Embedded;
use crate::handover::Handover;
use crate::run::{NOT_HANDED_ON, Ways, embed, pageable, variables};
use crate::servers::take_embedded;
use crate::signals::{self, Blocked};
use crate::stats::Stats;
use crate::{OWN_FAILURE, child};

/// Why the suite ends early: the exit status, and a message.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) status: i32,
    pub(super) text: Option<String>,
}

impl Stop {
    /// A failure of the command itself.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "taken by `map_err`, which gives values"
    )]
    pub(super) fn own(text: impl ToString) -> Stop {
        Stop {
            status: OWN_FAILURE,
            text: Some(text.to_string()),
        }
    }
}

/// What all workloads have in common.
pub(super) struct Runner {
    options: Options,
    ways: Ways,
    program: PathBuf,
    blocked: Blocked,
    /// Ends with this, so that it is there for all workloads.
    embedded: Option<Embedded>,
    /// Nothing is started before all is planned.
    pub(super) progress: Progress,
}

impl Runner {
    /// Checks that this machine can page, and the servers.
    pub(super) fn new(mut options: Options, memory: &Memory) -> Result<Runner, Stop> {
        // A workload that ran without paging would measure nothing.
        options.strict = true;
        let program = std::env::current_exe().map_err(Stop::own)?;
        take_embedded(&mut options.servers).map_err(Stop::own)?;
        let mut ways = pageable(&program, &mut options).map_err(Stop::own)?;
        // From here on signals go to the workloads. The server's threads get none.
        let blocked = signals::block();
        // Without a server the network path is measured all the same.
        let embedded = match options.servers.is_empty() && options.local_tier.is_none() {
            true => Some(embed(&mut options, &mut ways, memory).map_err(Stop::own)?),
            false => None,
        };
        Ok(Runner {
            options,
            ways,
            program,
            blocked,
            embedded,
            progress: Progress::new(),
        })
    }

    /// The servers.
    pub(super) fn servers(&self) -> Vec<String> {
        self.options
            .servers
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Whether the server is within this process.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// What measures the floors of workloads of `bytes` beside the first server.
    pub(super) fn floors(&self, bytes: u64, time: std::time::Duration) -> Option<Work> {
        let server = self.options.servers.first()?;
        Some(Work::Floors {
            // An IPv6 address needs its brackets.
            address: match server.host.contains(':') {
                true => format!("[{}]:{}", server.host, server.port),
                false => format!("{}:{}", server.host, server.port),
            },
            secret_file: self.options.secret_file.clone(),
            bytes,
            time,
        })
    }

    /// Runs a workload without tmem.
    pub(super) fn native<T: DeserializeOwned + Default>(&self, work: &Work) -> Result<T, Stop> {
        self.start(work, &[])
    }

    /// Runs a workload with a budget of `local` bytes.
    pub(super) fn paged(&self, work: &Work, local: u64) -> Result<Paged, Stop> {
        if self.progress.plans() {
            self.progress.plan(work);
            return Ok(Paged::default());
        }
        let stats = Stats::new().map_err(Stop::own)?;
        let handover = self.hand_over(&stats)?;
        let vars = self.variables(local, &handover)?;
        let outcome: Outcome = self.start(work, &vars)?;
        let totals = stats.totals();
        let [fault_p50_us, fault_p99_us, fault_p999_us] =
            [0.5, 0.99, 0.999].map(|q| totals.fault_us(q));
        Ok(Paged {
            outcome,
            whole: Whole {
                budget_bytes: local,
                peak_resident_bytes: totals.peak_resident_bytes,
                self_faults: totals.self_faults,
                evicted_pages: totals.evicted_pages,
                fault_p50_us,
                fault_p99_us,
                fault_p999_us,
            },
        })
    }

    /// Measures starts of a small program: medians in microseconds without
    /// the library and with it.
    pub(super) fn starts(&self, count: usize, local: u64) -> Result<(f64, f64), Stop> {
        let stats = Stats::new().map_err(Stop::own)?;
        let handover = self.hand_over(&stats)?;
        let mut vars = self.variables(local, &handover)?;
        // The workload itself preloads the library where it is wanted. A strict start
        // would wait until the servers have been looked at, which under `tmem run`
        // has been done by then.
        let unwanted = ["LD_PRELOAD", FAMILY_VARIABLE, "TMEM_STRICT"];
        vars.retain(|(name, _)| !unwanted.contains(name));
        let library = self.ways.library.clone();
        self.start(&Work::Start { count, library }, &vars)
    }

    fn hand_over(&self, stats: &Stats) -> Result<Handover, Stop> {
        stats
            .memory()
            .and_then(|memory| Handover::start(memory, self.ways.secret.clone()))
            .map_err(Stop::own)
    }

    fn variables(
        &self,
        local: u64,
        handover: &Handover,
    ) -> Result<Vec<(&'static str, OsString)>, Stop> {
        variables(&self.options, local, &self.ways, handover).map_err(|(_, text)| Stop::own(text))
    }

    fn start<T: DeserializeOwned + Default>(
        &self,
        work: &Work,
        vars: &[(&str, OsString)],
    ) -> Result<T, Stop> {
        if self.progress.plans() {
            self.progress.plan(work);
            return Ok(T::default());
        }
        let answer = self.answer(work, vars)?;
        self.progress.done(work);
        Ok(answer)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        work: &Work,
        vars: &[(&str, OsString)],
    ) -> Result<T, Stop> {
        if let Some(signal) = signals::asked_to_end() {
            return Err(Stop {
                status: 128 + signal,
                text: None,
            });
        }
        let work = serde_json::to_string(work).map_err(Stop::own)?;
        let argv = [
            self.program.clone().into_os_string(),
            "bench-workload".into(),
            work.into(),
        ];
        // A file and not a pipe, since it is only read when the workload has ended.
        let mut output = memory_file().map_err(Stop::own)?;
        let copy = output.try_clone().map_err(Stop::own)?;
        let unset: Vec<&str> = NOT_HANDED_ON
            .into_iter()
            .filter(|name| vars.iter().all(|(set, _)| set != name))
            .collect();
        let ended = child::run(
            &argv,
            vars,
            &unset,
            &self.blocked,
            Some(Stdio::from(copy)),
            &|_| (),
        );
        let ended = ended.map_err(|e| Stop::own(format!("a workload cannot be started: {e}")))?;
        if ended.status != 0 {
            // The workload has printed what is wrong, unless it was killed.
            let text = (ended.status > 128)
                .then(|| format!("a workload was killed by signal {}", ended.status - 128));
            return Err(Stop {
                status: ended.status,
                text,
            });
        }
        let mut line = String::new();
        output
            .rewind()
            .and_then(|()| output.read_to_string(&mut line))
            .map_err(Stop::own)?;
        serde_json::from_str(&line).map_err(|e| Stop::own(format!("a workload gave no stats: {e}")))
    }
}

/// Options from the environment and its file. Flags go before them.
pub(super) fn options(flags: Layer) -> Result<Options, Stop> {
    let below = Layer::from_env().map_err(Stop::own)?;
    let layer = flags.or(below).with_file().map_err(Stop::own)?;
    let options = layer.finish();
    if options.servers.is_empty() && options.secret_file.is_some() {
        return Err(Stop::own(
            "a secret file is for servers that are named with --server",
        ));
    }
    Ok(options)
}

/// A file without a name.
fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"tmem-bench".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
