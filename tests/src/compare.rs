//! Native runs beside paged ones.

use crate::{MIB, MemServer, Outcome, PagePath, Run};

/// Servers and page path of a paged run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How many memory servers.
    pub servers: usize,
    /// How pages are taken out.
    pub path: PagePath,
    /// Whether all of them leave all the time, whatever the budget.
    pub all_leave: bool,
    /// Whether the local tier has little memory, and a file for the rest.
    pub spills: bool,
}

impl Setting {
    /// One server and what the kernel has.
    pub const PLAIN: Setting = Setting {
        servers: 1,
        path: PagePath::Auto,
        all_leave: false,
        spills: false,
    };
    /// No server: the local tier.
    pub const LOCAL_TIER: Setting = Setting {
        servers: 0,
        ..Setting::PLAIN
    };
    /// The local tier, and what it has no memory for in a file.
    pub const SPILL: Setting = Setting {
        spills: true,
        ..Setting::LOCAL_TIER
    };
    /// Two servers.
    pub const TWO_SERVERS: Setting = Setting {
        servers: 2,
        ..Setting::PLAIN
    };
    /// The way of older kernels.
    pub const COPY: Setting = Setting {
        path: PagePath::Copy,
        ..Setting::PLAIN
    };

    /// The same with all pages leaving all the time.
    #[must_use]
    pub const fn all_leave(self) -> Setting {
        Setting {
            all_leave: true,
            ..self
        }
    }
}

/// Runs the program natively, then at each share (in percent) of its native
/// peak, and fails unless the paged runs do exactly what the native one did,
/// within their budgets.
pub fn at_shares(program: &Run, setting: Setting, shares: &[u64]) {
    let native = program.run().ok();
    eprintln!(
        "native: {:.2} s, peak {} MiB",
        native.seconds,
        native.max_rss / MIB
    );
    for share in shares {
        // With the smaller inputs of everyday runs, the libraries alone are
        // larger than a tenth of the whole.
        let budget = (native.max_rss * share / 100).max(SMALLEST);
        at_budget(program, &native, setting, budget);
    }
}

/// Runs the C program `name` natively and with a budget of `mib` MiB, and
/// compares.
pub fn program_at(name: &str, args: &[&str], setting: Setting, mib: u64) -> Outcome {
    let program = Run::new(crate::cc::program(name)).args(args);
    let native = program.run().ok();
    at_budget(&program, &native, setting, mib * MIB)
}

/// The smallest budget for software with its libraries.
const SMALLEST: u64 = 32 * MIB;

/// Runs the program with `budget` bytes; the servers are there until dropped.
pub fn paged_at(program: &Run, setting: Setting, budget: u64) -> (Outcome, Vec<MemServer>) {
    let servers: Vec<_> = (0..setting.servers).map(|_| MemServer::roomy()).collect();
    let mut run = program.clone().local(budget).page_path(setting.path);
    // A short program is not to be over before its pager has begun.
    run = run.flags(match setting.all_leave {
        true => &["--evict", "all"][..],
        false => &["--strict"],
    });
    if setting.spills {
        let folder = std::env::temp_dir();
        run = run.flags(["--local-tier", "16M", "--spill"]);
        run = run.flags([folder]);
    }
    let paged = run.servers(servers.iter().map(MemServer::address)).run();
    (paged, servers)
}

/// Whether the paged run did what the native one did, and no page was lost, and
/// the pager never waited for itself.
///
/// # Errors
/// What was different.
pub fn same(native: &Outcome, paged: &Outcome) -> Result<(), String> {
    let differs = |what: &str| Err(format!("{what}: {}", paged.describe()));
    if paged.end != native.end.as_run_tells() {
        return differs("the end");
    }
    if paged.digest() != native.digest() {
        return differs("the output");
    }
    if unexpected(paged) != native.stderr() {
        return differs("standard error");
    }
    match &paged.stats {
        None => differs("no figures"),
        Some(figures) if figures.lost_pages != 0 => differs("lost pages"),
        Some(figures) if figures.self_faults != 0 => differs("faults of the pager's own"),
        Some(_) => Ok(()),
    }
}

/// Standard error of a paged run, without the line that there is no server. Where the pager got no processor when it wanted one,
/// the line that the budget was exceeded is left out: [`assert_sound`] sees by how much it
/// may have been.
fn unexpected(paged: &Outcome) -> String {
    let was_late = paged
        .stats
        .as_ref()
        .is_some_and(|s| s.late_look_us > IN_TIME);
    let is_left_out = |line: &&str| {
        was_late && line.starts_with("tmem: the budget of ")
            || line.starts_with("tmem: no memory server named")
    };
    let stderr = paged.stderr();
    stderr
        .split_inclusive('\n')
        .filter(|line| !is_left_out(line))
        .collect()
}

/// Runs the program with `budget` bytes, compares it with the native run, and
/// returns the paged one.
pub fn at_budget(program: &Run, native: &Outcome, setting: Setting, budget: u64) -> Outcome {
    let (paged, servers) = paged_at(program, setting, budget);
    eprintln!("{} MiB, {setting:?}: {}", budget / MIB, paged.describe());
    if let Err(difference) = same(native, &paged) {
        panic!("{difference}");
    }
    assert_sound(&paged, budget);
    let figures = paged.figures();
    assert!(
        figures.evicted_pages > 0,
        "nothing was evicted: {}",
        paged.describe()
    );
    if setting.path == PagePath::Copy {
        assert!(
            figures.copied_pages > 0,
            "nothing was copied: {}",
            paged.describe()
        );
    }
    if setting.spills {
        assert!(figures.spilled_bytes > 0, "{}", paged.describe());
    }
    if setting.servers > 1 {
        let stored: Vec<_> = servers.iter().map(|s| s.stats().pages_written).collect();
        // Little that was written may fit one slab.
        let much = figures.written_pages > 16384;
        assert!(
            !much || stored.iter().all(|n| *n > 0),
            "pages on the servers: {stored:?}"
        );
    }
    paged
}

/// The most memory that a program fills in a microsecond, in bytes, as the engine reckons.
const FILL_RATE: u64 = 16_000;
/// How late the engine may look without more than the usual allowance, in microseconds.
const IN_TIME: u64 = 1_000;

/// What holds of every paged run: no page was lost, the pager never waited
/// for itself, and memory stayed within 5 % + 16 MiB of the budget, as tmem
/// counts it and as the kernel does, less pages of files and the local tier (not looked at in an emulated
/// machine). Where the pager got no processor when it wanted one, there may be what a
/// program fills meanwhile in memory that is not paged yet.
pub fn assert_sound(paged: &Outcome, budget: u64) {
    let figures = paged.figures();
    assert_eq!(figures.lost_pages, 0, "{}", paged.describe());
    assert_eq!(figures.self_faults, 0, "{}", paged.describe());
    if budget < 16 * MIB || crate::scale::is_emulated() {
        return;
    }
    let unseen = figures.late_look_us.saturating_sub(IN_TIME) * FILL_RATE;
    let allowed = budget / 20 * 21 + 16 * MIB + unseen;
    let inside = figures.peak_counted_bytes;
    // Every program has a few pages of files. Their peak and that of all memory may be
    // at different moments.
    let outside = paged
        .max_rss
        .saturating_sub(figures.files_bytes + figures.local_tier_bytes);
    assert!(
        inside <= allowed,
        "{inside} > {allowed}: {}",
        paged.describe()
    );
    assert!(
        outside <= allowed,
        "{outside} > {allowed} from outside: {}",
        paged.describe()
    );
    assert_eq!(figures.local_budget_bytes, budget, "{}", paged.describe());
}
