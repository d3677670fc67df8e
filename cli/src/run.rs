//! `tmem run`.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tmem_config::{
    AGENT_VARIABLE, FAMILY_VARIABLE, Layer, Level, Local, Memory, Options, Scheme, ServerAddr,
    Size, behind_others, check_local, check_output, read_secret,
};
use tmem_metrics::Endpoint;
use tmem_pager::stats::Totals;
use tmem_rdma::Agent;
use tmem_wire::FEATURE_RDMA;

use crate::args::RunArgs;
use crate::embedded::Embedded;
use crate::handover::Handover;
use crate::metrics::Programs;
use crate::plot::Plot;
use crate::program::{self, Missing};
use crate::servers::Answer;
use crate::stats::{self, Stats};
use crate::{OWN_FAILURE, auto, child, library, names, servers, signals, uffd};

/// Variables that are for this command and not for the program.
pub(crate) const NOT_HANDED_ON: [&str; 9] = [
    "TMEM_CONFIG",
    "TMEM_LOCAL_MIN",
    "TMEM_LOCAL_MAX",
    "TMEM_METRICS",
    "TMEM_PLOT",
    "TMEM_STATS_FILE",
    "TMEM_SUMMARY",
    "TMEM_UNPAGED_OK",
    FAMILY_VARIABLE,
];

/// Runs the program; the exit status.
pub(crate) fn run(args: RunArgs) -> i32 {
    match try_run(args) {
        Ok(status) => status,
        Err((status, text)) => {
            eprintln!("tmem: {text}");
            status
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "taken by `map_err`, which gives values"
)]
fn own(text: impl ToString) -> (i32, String) {
    (OWN_FAILURE, text.to_string())
}

fn try_run(args: RunArgs) -> Result<i32, (i32, String)> {
    let below = Layer::from_env().map_err(own)?;
    let layer = args.flags.or(below).with_file().map_err(own)?;
    let mut options = layer.finish();
    let wants_server = servers::take_embedded(&mut options.servers).map_err(own)?;
    if options.servers.is_empty() && options.secret_file.is_some() {
        return Err(own(
            "a secret file is for servers that are named with --server, by their addresses; without \
             one, pages stay in this machine",
        ));
    }
    let argv = args.program;
    let memory = Memory::get().map_err(own)?;
    let local = budget(&options, &memory)?;
    let name = argv[0].to_string_lossy().into_owned();
    let found = program::find(&argv[0], env::var_os("PATH").as_deref()).map_err(|m| match m {
        Missing::NotFound => (127, format!("{name}: program not found")),
        Missing::NotExecutable => (126, format!("{name}: not an executable file")),
    })?;
    if let Some(path) = &options.stats_file {
        check_output(path).map_err(|e| own(format!("--stats-file {}: {e}", path.display())))?;
    }
    if let Some(path) = &options.plot {
        check_output(path).map_err(|e| own(format!("--plot {}: {e}", path.display())))?;
    }
    let endpoint = options.metrics.map(listen).transpose()?;
    if let Some(folder) = &options.spill {
        check_spill(folder).map_err(|e| own(format!("--spill {}: {e}", folder.display())))?;
    }
    let stats = Stats::new().map_err(|e| own(format!("memory for statistics: {e}")))?;
    if !options.per_process {
        stats.limit(local);
    }
    let follows = options.local == Some(Local::Auto);
    let checked = pageable(&found, &mut options);
    // From here on signals go to the program. The server's threads get none.
    let blocked = signals::block();
    if let Some(endpoint) = endpoint {
        serve(endpoint, &stats, &found, options.log)?;
    }
    let checked = checked.and_then(|mut ways| {
        let embedded = match wants_server {
            true => Some(embed(&mut options, &mut ways, &memory)?),
            false => None,
        };
        let handover = stats
            .memory()
            .and_then(|memory| Handover::start(memory, ways.secret.clone()))
            .map_err(|e| Obstacle::Surroundings(format!("handing over to the program: {e}")))?;
        names::look_for(&stats, &options.servers);
        if follows && let Ok(stats) = stats.again() {
            auto::follow(stats, &options, memory);
        }
        Ok((ways, embedded, handover))
    });
    let (vars, unset) = match &checked {
        Ok((ways, embedded, handover)) => {
            if options.log >= Level::Warn {
                if let Some(embedded) = embedded {
                    eprintln!("tmem: {}", embedded.notice());
                } else if options.servers.is_empty() {
                    eprintln!("tmem: {}", local_notice(&options));
                }
            }
            let vars = variables(&options, local, ways, handover)?;
            (vars, NOT_HANDED_ON.to_vec())
        }
        Err(reason) if options.strict => {
            return Err(own(format!("{reason}; not started, as `strict` asks")));
        }
        Err(reason @ Obstacle::Surroundings(_)) if !options.unpaged_ok => {
            let text = "not started (with --unpaged-ok it would run without paging)";
            return Err(own(format!("{reason}; {text}")));
        }
        Err(reason) => {
            eprintln!("tmem: {reason}; {name} runs without paging");
            (Vec::new(), Vec::new())
        }
    };
    let unset: Vec<&str> = unset
        .into_iter()
        .filter(|name| vars.iter().all(|(set, _)| set != name))
        .collect();
    let plot = options.plot.as_deref();
    let plot = plot.map(|path| plot_of(path, &stats, &found)).transpose()?;
    let start = Instant::now();
    let ended = child::run(&argv, &vars, &unset, &blocked, None, &|pid| {
        stats.await_core(pid);
    })
    .map_err(|e| (126, format!("{name}: {e}")))?;
    let time = start.elapsed();
    let mut totals = stats.totals();
    totals.local_budget_bytes = totals.local_budget_bytes.max(local);
    totals.peak_resident_bytes = totals.peak_resident_bytes.max(ended.max_resident);
    if let Some(Err(text)) = plot.map(Plot::end) {
        eprintln!("tmem: {text}");
    }
    report(&options, &totals, time);
    Ok(ended.status)
}

/// Listens where metrics are to be asked for.
fn listen(addr: SocketAddr) -> Result<Endpoint, (i32, String)> {
    Endpoint::bind(addr).map_err(|e| own(format!("--metrics {addr}: {e}")))
}

/// Begins to record what is to be drawn.
fn plot_of(path: &Path, stats: &Stats, program: &Path) -> Result<Plot, (i32, String)> {
    let begun = stats.again();
    let begun = begun.and_then(|stats| Plot::begin(path, name_of(program), stats));
    begun.map_err(|e| own(format!("--plot {}: {e}", path.display())))
}

/// What a program is called.
fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Answers for the processes that keep these statistics.
fn serve(
    endpoint: Endpoint,
    stats: &Stats,
    program: &Path,
    level: Level,
) -> Result<(), (i32, String)> {
    let addr = endpoint.addr();
    let started = stats.again().and_then(|stats| {
        endpoint.serve(Programs {
            stats,
            name: name_of(program),
        })
    });
    started.map_err(|e| own(format!("--metrics {addr}: {e}")))?;
    if level >= Level::Info {
        eprintln!("tmem: metrics on http://{addr}/metrics");
    }
    Ok(())
}

/// The budget in bytes. Prints a warning if it does not fit this machine.
fn budget(options: &Options, memory: &Memory) -> Result<u64, (i32, String)> {
    let wish = options
        .local
        .ok_or_else(|| own("no local budget: use --local SIZE"))?;
    let bytes = match wish {
        Local::Size(size) => size.bytes(memory.most()),
        Local::Auto if options.per_process => {
            return Err(own(
                "--local auto is for all processes together: leave --per-process out",
            ));
        }
        Local::Auto => auto::first(options, memory),
    };
    let (local, warning) = check_local(bytes, memory);
    if let Some(text) = warning.filter(|_| options.log >= Level::Warn) {
        eprintln!("tmem: {text}");
    }
    Ok(local)
}

/// What paging a program needs.
pub(crate) struct Ways {
    /// The library to preload.
    pub(crate) library: PathBuf,
    /// The agent for servers with RDMA.
    pub(crate) agent: Option<Agent>,
    /// The secret of the servers.
    pub(crate) secret: Option<Vec<u8>>,
}

/// Why a program cannot be paged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Obstacle {
    /// The program itself cannot be paged. With several programs, the user may know that of one.
    #[error("cannot page this program: {0}")]
    Program(String),
    /// Something is missing that the user can provide.
    #[error("{0}")]
    Surroundings(String),
}

/// What paging needs, or why the program cannot be paged.
pub(crate) fn pageable(program: &Path, options: &mut Options) -> Result<Ways, Obstacle> {
    if let Some(reason) = program::obstacle(program) {
        return Err(Obstacle::Program(reason));
    }
    let library = library::find().map_err(Obstacle::Surroundings)?;
    if !uffd::usable() {
        let text = "no permission for userfaultfd: as root, run \
                    `sysctl vm.unprivileged_userfaultfd=1` or give this user access to \
                    /dev/userfaultfd";
        return Err(Obstacle::Surroundings(text.to_owned()));
    }
    let secret = options.secret_file.as_deref().map(read_secret).transpose();
    let secret = secret.map_err(|e| Obstacle::Surroundings(e.to_string()))?;
    let agent = check_servers(options, secret.as_deref()).map_err(Obstacle::Surroundings)?;
    Ok(Ways {
        library,
        agent,
        secret,
    })
}

/// Checks that a spill file can be made in a folder.
fn check_spill(folder: &Path) -> std::io::Result<()> {
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(folder);
    match opened {
        // The engine then makes a file with a name, and removes that.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP)) => Ok(()),
        result => result.map(drop),
    }
}

/// The message that this machine gains no memory.
fn local_notice(options: &Options) -> String {
    let spills = options.spill.as_ref().map(|folder| {
        let folder = folder.display();
        format!(", and in a file in {folder} beyond that")
    });
    format!(
        "no memory server named (--server): evicted pages stay in this machine's memory, \
         compressed{}",
        spills.unwrap_or_default()
    )
}

/// Starts an embedded server. It lives as long as the result.
pub(crate) fn embed(
    options: &mut Options,
    ways: &mut Ways,
    memory: &Memory,
) -> Result<Embedded, Obstacle> {
    let embedded = Embedded::start(options.log, memory).map_err(Obstacle::Surroundings)?;
    options.servers.push(embedded.address());
    options.secret_file = Some(embedded.secret_file());
    ways.secret = Some(embedded.secret());
    Ok(embedded)
}

/// Checks the named servers and chooses their transports. Returns the agent for those with
/// RDMA.
fn check_servers(options: &mut Options, secret: Option<&[u8]>) -> Result<Option<Agent>, String> {
    if options.servers.is_empty() {
        return Ok(None);
    }
    let level = options.log;
    let mut agent = None;
    let mut get = || {
        let agent = agent.get_or_insert_with(|| start_agent(level).map_err(|e| e.to_string()));
        agent.clone()
    };
    let forced = options.servers.iter().any(|s| s.scheme == Scheme::Rdma);
    let asked = if forced {
        get()
    } else {
        Err("no server with RDMA was named".to_owned())
    };
    let (mut problems, mut full) = (Vec::new(), 0);
    let by = asked.as_ref().map_err(String::as_str);
    let answers = servers::check(&options.servers, secret, by, level);
    for (server, answer) in options.servers.iter_mut().zip(answers) {
        if answer.as_ref().is_ok_and(|answer| answer.full) {
            problems.push(format!("server {server} is full"));
            full += 1;
        }
        match answer {
            Err(text) => problems.push(format!("server {server} {text}")),
            Ok(Answer { features, .. })
                if server.scheme == Scheme::Any && features & FEATURE_RDMA != 0 =>
            {
                let by_rdma = ServerAddr {
                    scheme: Scheme::Rdma,
                    ..server.clone()
                };
                // If RDMA does not work, TCP does.
                let reached = get().and_then(|a| servers::ask(&by_rdma, secret, Ok(&a), level));
                match reached {
                    Ok(_) => *server = by_rdma,
                    Err(text) if level >= Level::Info => {
                        eprintln!("tmem: server {server} is used over TCP; over RDMA it {text}");
                    }
                    Err(_) => {}
                }
            }
            Ok(_) => {}
        }
    }
    let none_left = problems.len() == options.servers.len();
    if none_left && (full == 0 || options.strict) {
        return Err(problems.join("; "));
    }
    // A full server may have memory later, and is asked again then.
    let (rest, least) = match none_left {
        true => ("asked again when memory is needed", Level::Info),
        false => ("going on with the others", Level::Warn),
    };
    if level >= least {
        problems
            .iter()
            .for_each(|text| eprintln!("tmem: {text}; {rest}"));
    }
    let used = options.servers.iter().any(|s| s.scheme == Scheme::Rdma);
    Ok(agent.and_then(Result::ok).filter(|_| used))
}

/// An agent within this process.
pub(crate) fn start_agent(level: Level) -> Result<Agent, tmem_rdma::Error> {
    Agent::start(Arc::new(move |of, text| {
        if level >= of {
            eprintln!("tmem: {text}");
        }
    }))
}

/// What the shim finds in its environment.
pub(crate) fn variables(
    options: &Options,
    local: u64,
    ways: &Ways,
    handover: &Handover,
) -> Result<Vec<(&'static str, OsString)>, (i32, String)> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(own);
    let effective = Layer {
        local: Some(Local::Size(Size::Bytes(local))),
        servers: Some(options.servers.clone()),
        local_tier: options.local_tier,
        spill: options.spill.as_ref().map(absolute).transpose()?,
        redundancy: options.redundancy,
        repair_rate: Some(options.repair_rate),
        on_loss: Some(options.on_loss),
        strict: Some(options.strict),
        log: Some(options.log),
        page_path: Some(options.page_path),
        evict: Some(options.evict),
        compress: Some(options.compress),
        compressed_cache: Some(options.compressed_cache),
        secret_file: options.secret_file.as_ref().map(absolute).transpose()?,
        ..Layer::default()
    };
    let mut vars = effective.to_env();
    vars.push((FAMILY_VARIABLE, handover.addr().to_string().into()));
    vars.push(("LD_PRELOAD", library::preload(&ways.library)));
    vars.push(behind_others(|name| env::var_os(name)));
    if let Some(agent) = &ways.agent {
        vars.push((AGENT_VARIABLE, agent.addr().to_string().into()));
    }
    Ok(vars)
}

fn report(options: &Options, totals: &Totals, time: std::time::Duration) {
    if let Some(path) = &options.stats_file
        && let Err(error) = stats::write_json(path, totals)
    {
        eprintln!(
            "tmem: statistics not written to {}: {error}",
            path.display()
        );
    }
    let overrun = stats::overrun(totals, options.per_process);
    if let Some(text) = overrun.filter(|_| options.log >= Level::Warn) {
        eprintln!("tmem: {text}");
    }
    if options.summary {
        eprint!("{}", stats::summary(totals, time));
    }
}
