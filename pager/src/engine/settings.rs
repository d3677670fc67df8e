//! The engine's settings, given at its start.

use crate::When;
use crate::engine::fork::manifest::ForkManifest;
use crate::family::Family;
use crate::live::Live;
use crate::names::Names;
use crate::net::{Endpoint, Options};
use crate::slots::Location;
use crate::stats::{Shared, Slot as Figures};
use crate::sys::channel::End;
use crate::told::Told;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use tmem_policy::watermarks::Watermarks;

/// How pages leave and enter the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By moves if the kernel can, else by copies.
    Auto,
    /// By moves only. Without them the program is not paged.
    Move,
    /// By copies, as on older kernels.
    Copy,
}

/// The outcome is not known yet.
pub const PENDING: u32 = 0;
/// The program can be paged.
pub const PAGED: u32 = 1;
/// The program cannot be paged, and the user was told why.
pub const UNPAGED: u32 = 2;
/// The engine watches the program, and will page it when necessary.
pub(crate) const WATCHED: u32 = 3;

/// The engine's settings.
#[derive(Clone)]
pub struct Settings {
    /// Bytes that may be resident.
    pub budget: u64,
    /// How pages leave and enter the program.
    pub path: Path,
    /// Whether the compressed cache is used.
    pub copies: When,
    /// Stress eviction: everything leaves all the time, whatever the budget.
    pub evict_all: bool,
    /// The shared budget, if several processes share it.
    pub family: Option<&'static Family>,
    /// Memory that is never paged: the engine's own, and everything that its code touches.
    pub keep: Vec<Range<usize>>,
    /// The memory servers.
    pub servers: ServerSettings,
    /// Messages and statistics.
    pub report: ReportSettings,
    /// How this engine starts.
    pub start: StartSettings,
}

/// The memory servers, and how to use them.
#[derive(Clone)]
pub struct ServerSettings {
    /// The memory servers.
    pub endpoints: Vec<Endpoint>,
    /// Options of the network client.
    pub net: Options,
    /// Where addresses appear that were not known at the start.
    pub names: Option<&'static Names>,
    /// Whether `tmem run` has checked the servers already, and told the user which cannot
    /// be used.
    pub checked: bool,
    /// What is done so that the loss of a server loses no page.
    pub redundancy: Redundancy,
    /// The local tier, for what servers have no room for.
    pub local: Option<LocalSettings>,
}

/// The local tier.
#[derive(Clone, Copy, Debug)]
pub struct LocalSettings {
    /// Bytes of memory that it may have, for all processes together.
    pub bytes: u64,
    /// The folder for spill files, as the engine has it open; none in a forked child, which
    /// gets it from its parent's engine.
    pub folder: Option<i32>,
}

/// What is done so that the loss of a server loses no page.
#[derive(Clone, Debug)]
pub struct Redundancy {
    /// How many servers have each page, at most [`crate::slots::MAX_COPIES`].
    pub copies: usize,
    /// Where the servers are, in their order.
    pub locations: Vec<Location>,
    /// The most bytes that are copied in a second once a server is lost.
    pub repair_rate: u64,
}

/// Messages and statistics.
#[derive(Clone)]
pub struct ReportSettings {
    /// The highest level of messages to print: 0 errors, 1 warnings, 2 information, 3
    /// debugging.
    pub level: u8,
    /// Messages that other processes of the program have printed, and that are not
    /// repeated.
    pub told: Option<&'static Told>,
    /// Statistics of this process.
    pub figures: &'static Figures,
    /// Memory that the processes under `tmem run` share with it.
    pub shared: Option<&'static Shared>,
    /// Where the process shows what it has, and is asked for something, if not there.
    pub live: Option<&'static Live>,
}

/// How an engine starts.
#[derive(Clone)]
pub struct StartSettings {
    /// Whether a thread waits for `outcome`.
    pub strict: bool,
    /// The fork manifest, in a process that was forked from one with evicted pages.
    pub inherit: Option<&'static ForkManifest>,
    /// The connection to the parent's engine, in a forked process. It is the only file
    /// descriptor that the engine's thread has at its start.
    pub handed: Option<End>,
    /// Changes from [`PENDING`] when the engine watches the program (not in a child with a
    /// fork manifest), and then becomes [`PAGED`] or [`UNPAGED`].
    pub outcome: &'static AtomicU32,
}

impl Settings {
    /// Returns the watermarks for a budget of `bytes`. With stress eviction memory is
    /// adopted from the first page on.
    pub(crate) fn watermarks(&self, bytes: u64) -> Watermarks {
        let first = Watermarks::new(self.budget);
        let marks = Watermarks::new(bytes);
        // The pool has the frames that it was made with.
        let marks = Watermarks {
            pool: marks.pool.min(first.pool),
            reserve: marks.reserve.min(first.reserve),
            ..marks
        };
        if self.evict_all {
            Watermarks { adopt: 0, ..marks }
        } else {
            marks
        }
    }
}
