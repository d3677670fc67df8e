//! What the engine is told at its start.

use crate::When;
use crate::engine::fork::manifest::ForkManifest;
use crate::family::Family;
use crate::names::Names;
use crate::net::{Endpoint, Options};
use crate::stats::{Shared, Slot as Figures};
use crate::sys::channel::End;
use crate::told::Told;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use tmem_policy::watermarks::Watermarks;

/// How pages are taken out of the program and put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Moved where the kernel can, else copied.
    Auto,
    /// Moved, or not at all.
    Move,
    /// Copied, as older kernels need it.
    Copy,
}

/// Not known yet.
pub const PENDING: u32 = 0;
/// The program can be paged.
pub const PAGED: u32 = 1;
/// The program cannot be paged, and was told why.
pub const UNPAGED: u32 = 2;
/// The engine watches the program, and will page it when there is need.
pub(crate) const WATCHED: u32 = 3;

/// What the engine is told at its start.
#[derive(Clone)]
pub struct Settings {
    /// Bytes that may be resident.
    pub budget: u64,
    /// How pages travel.
    pub path: Path,
    /// Whether packed copies of pages are kept in local memory.
    pub copies: When,
    /// Whether all pages leave all the time, whatever the budget.
    pub evict_all: bool,
    /// The processes that share the budget, if it is not this one's alone.
    pub family: Option<&'static Family>,
    /// Memory never to be paged: the engine's own, and all that its code
    /// touches.
    pub keep: Vec<Range<usize>>,
    /// The memory servers.
    pub servers: ServerSettings,
    /// What the user is told.
    pub report: ReportSettings,
    /// How this engine begins.
    pub start: StartSettings,
}

/// Which memory servers there are, and how to deal with them.
#[derive(Clone)]
pub struct ServerSettings {
    /// The memory servers.
    pub endpoints: Vec<Endpoint>,
    /// How to deal with them.
    pub net: Options,
    /// Where addresses of servers are found once they are known.
    pub names: Option<&'static Names>,
    /// Whether somebody has seen to it that the servers can be used, and has
    /// told the user which cannot.
    pub checked: bool,
}

/// What the user is told, and where figures go.
#[derive(Clone)]
pub struct ReportSettings {
    /// What is said: 0 errors, 1 warnings, 2 what happens, 3 everything.
    pub level: u8,
    /// What the user has been told by others of the family.
    pub told: Option<&'static Told>,
    /// Where figures are kept.
    pub figures: &'static Figures,
    /// What the processes under `tmem run` share with it.
    pub shared: Option<&'static Shared>,
}

/// How an engine begins.
#[derive(Clone)]
pub struct StartSettings {
    /// Whether somebody waits for `outcome`.
    pub strict: bool,
    /// What a process that was forked from one with evicted pages has to begin
    /// with.
    pub inherit: Option<&'static ForkManifest>,
    /// The end of a connection to the engine of the process that this one was forked
    /// from: the only descriptor that the engine's thread has when it begins.
    pub handed: Option<End>,
    /// Changes when the engine watches the program, but where it inherits, and becomes
    /// [`PAGED`] or [`UNPAGED`].
    pub outcome: &'static AtomicU32,
}

impl Settings {
    /// The watermarks for a budget of `bytes`. Where all leaves over and over, memory is
    /// adopted from the first page on.
    pub(crate) fn watermarks(&self, bytes: u64) -> Watermarks {
        let marks = Watermarks::new(bytes);
        if self.evict_all {
            Watermarks { adopt: 0, ..marks }
        } else {
            marks
        }
    }
}
