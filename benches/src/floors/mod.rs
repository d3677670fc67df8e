//! What this machine could do at best: what paging is measured against.

mod client;
mod echo;
mod fault;
mod fill;
mod miss;
mod stream;
mod threads;

pub use client::Server;
pub use miss::Miss;
pub use threads::faults_per_second;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tmem_pager::sys::thread::{self, Cpus};

use crate::Error;
use crate::histogram::Histogram;

/// Bytes of one transfer of the streams.
pub const CHUNK: usize = 512 << 10;

/// Times of single events, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The mean.
    pub mean_ns: f64,
    /// Half of them took no longer.
    pub p50_ns: f64,
    /// 99 of 100 took no longer.
    pub p99_ns: f64,
}

impl From<&Histogram> for Times {
    fn from(histogram: &Histogram) -> Times {
        Times {
            mean_ns: histogram.mean(),
            p50_ns: histogram.quantile(0.5),
            p99_ns: histogram.quantile(0.99),
        }
    }
}

/// The floors of a machine and a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// A request of 32 bytes and an answer of 4 KiB more between two threads, by
    /// TCP on this machine.
    pub echo: Times,
    /// The same with both threads on one processor.
    pub echo_one_cpu: Times,
    /// A request and an answer without pages, to the memory server.
    pub server_ping: Times,
    /// A page read from the memory server.
    pub server_read: Times,
    /// A fault that another thread answers at once with a page.
    pub fault: Times,
    /// The same with both threads on one processor.
    pub fault_one_cpu: Times,
    /// Chunks of 512 KiB between two threads by TCP on this machine, the same bytes over
    /// and over, in 10^9 bytes per second.
    pub stream_gb_per_s: f64,
    /// A stream between two threads of as many bytes as a workload has, each used
    /// once, in 10^9 bytes per second.
    pub stream_once_gb_per_s: f64,
    /// The same each way at the same time, in 10^9 bytes per second and way.
    pub stream_both_gb_per_s: f64,
    /// Chunks of 512 KiB, the same ones over and over, read from the memory server.
    pub server_stream_gb_per_s: f64,
    /// Fresh memory filled, in 10^9 bytes per second.
    pub fill_gb_per_s: f64,
    /// Whether the server is on this machine.
    pub server_is_local: bool,
}

impl Floors {
    /// The least time of a page from the server in nanoseconds: a round trip and a fault, each
    /// on one CPU or two, whichever is quicker. For a server on another machine the round trip
    /// is that of its own reads, since an echo on this machine does not cross the network.
    pub fn miss_ns(&self) -> f64 {
        let trip = match self.server_is_local {
            true => self.echo.mean_ns.min(self.echo_one_cpu.mean_ns),
            false => self.server_read.mean_ns,
        };
        trip + self.fault_ns()
    }

    /// The least time of a page that need not be fetched, in nanoseconds: a bare fault, on one
    /// CPU or two, whichever is quicker.
    pub fn fault_ns(&self) -> f64 {
        self.fault.mean_ns.min(self.fault_one_cpu.mean_ns)
    }

    /// The best bandwidth of using memory in order, if all of it comes from the server and goes
    /// back there where it is changed; in 10^9 bytes per second.
    pub fn best_gb_per_s(&self, is_changed: bool) -> f64 {
        match (self.server_is_local, is_changed) {
            (true, false) => self.stream_once_gb_per_s,
            (true, true) => self.stream_both_gb_per_s,
            (false, _) => self.server_stream_gb_per_s,
        }
    }

    /// Measures all of them for workloads of `bytes`, each for about `time`.
    ///
    /// # Errors
    /// When a measurement cannot be made.
    pub fn measure(server: &Server, bytes: usize, time: Duration) -> Result<Floors, Error> {
        let mut client = server.connect()?;
        let (echo, fault) = (echo::trips(time)?, fault::faults(time)?);
        let one_cpu = OneCpu::pin();
        let (echo_one_cpu, fault_one_cpu) = (echo::trips(time)?, fault::faults(time)?);
        drop(one_cpu);
        Ok(Floors {
            echo,
            echo_one_cpu,
            server_ping: client.pings(time)?,
            server_read: client.reads(time)?,
            fault,
            fault_one_cpu,
            stream_gb_per_s: echo::stream(time)?,
            stream_once_gb_per_s: stream::once(bytes, time)?,
            stream_both_gb_per_s: stream::both_ways(bytes, time)?,
            server_stream_gb_per_s: client.stream(time)?,
            fill_gb_per_s: fill::fill(time),
            server_is_local: client.is_local(),
        })
    }
}

/// Keeps this thread, and those that it starts, on one processor until dropped.
struct OneCpu(Cpus);

impl OneCpu {
    fn pin() -> OneCpu {
        let all = thread::cpus();
        // SAFETY: asks only.
        let now = unsafe { libc::sched_getcpu() };
        thread::run_on(&Cpus::one(u32::try_from(now).unwrap_or(0)));
        OneCpu(all)
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        thread::run_on(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_a_trip_and_a_fault() {
        let times = |mean_ns| Times {
            mean_ns,
            ..Times::default()
        };
        let mut floors = Floors {
            echo: times(50.0),
            echo_one_cpu: times(20.0),
            fault: times(7.0),
            fault_one_cpu: times(9.0),
            server_read: times(1000.0),
            stream_once_gb_per_s: 3.0,
            stream_both_gb_per_s: 2.5,
            server_stream_gb_per_s: 2.0,
            server_is_local: true,
            ..Floors::default()
        };
        let best = |floors: &Floors| [false, true].map(|changed| floors.best_gb_per_s(changed));
        assert_eq!((floors.miss_ns(), best(&floors)), (27.0, [3.0, 2.5]));
        floors.server_is_local = false;
        assert_eq!((floors.miss_ns(), best(&floors)), (1007.0, [2.0, 2.0]));
    }
}
