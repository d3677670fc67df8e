//! What a page from a server takes, measured in a moment.

use std::time::Duration;

use super::fault::faults;
use super::{OneCpu, Server, Times};
use crate::Error;

/// The parts of a miss.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    /// A request and an answer without pages.
    pub ping: Times,
    /// A page read.
    pub read: Times,
    /// A fault that another thread answers at once, on one CPU or two, whichever is
    /// quicker.
    pub fault: Times,
}

impl Miss {
    /// Measures each part for about `time`.
    ///
    /// # Errors
    /// When the server or userfaultfd cannot be used.
    pub fn measure(server: &Server, time: Duration) -> Result<Miss, Error> {
        let mut client = server.connect()?;
        let (ping, read) = (client.pings(time)?, client.reads(time)?);
        let apart = faults(time)?;
        let one_cpu = OneCpu::pin();
        let together = faults(time)?;
        drop(one_cpu);
        let fault = match apart.mean_ns < together.mean_ns {
            true => apart,
            false => together,
        };
        Ok(Miss { ping, read, fault })
    }

    /// The time of a miss, in nanoseconds.
    pub fn ns(&self) -> f64 {
        self.read.mean_ns + self.fault.mean_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_a_read_and_a_fault() {
        let times = |mean_ns| Times {
            mean_ns,
            ..Times::default()
        };
        let miss = Miss {
            ping: times(10.0),
            read: times(30.0),
            fault: times(5.0),
        };
        assert!((miss.ns() - 35.0).abs() < 1e-9);
    }
}
