//! A bare server: it answers with as many bytes as a memory server would, and
//! does nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tmem_wire::{HEADER_LEN, PAGE_SIZE};

use super::stream::pair;
use super::{CHUNK, Times};
use crate::Error;
use crate::histogram::Histogram;

/// Chunks asked for before the first has come.
pub(super) const UNDER_WAY: u64 = 4;

/// One thread that answers each request with `answer` bytes until its
/// connection ends.
struct Echo {
    stream: TcpStream,
    buffer: Vec<u8>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn new(answer: usize) -> Result<Echo, Error> {
        let failed = Error::io("an echo on this machine");
        let (stream, other) = pair().map_err(failed)?;
        Ok(Echo {
            stream,
            buffer: vec![0; answer],
            // Its only end is that of the connection.
            thread: Some(std::thread::spawn(move || {
                let _ = serve(other, answer);
            })),
        })
    }

    fn ask(&mut self) -> Result<(), Error> {
        let sent = self.stream.write_all(&[1; HEADER_LEN]);
        sent.map_err(Error::io("asking an echo"))
    }

    fn hear(&mut self) -> Result<(), Error> {
        let heard = self.stream.read_exact(&mut self.buffer);
        heard.map_err(Error::io("hearing an echo"))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Where it fails the connection has ended already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, answer: usize) -> std::io::Result<()> {
    let (mut request, answer) = ([0; HEADER_LEN], vec![7; answer]);
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&answer)?;
    }
}

/// Repeats `trip` for about `time`, after a tenth of it unmeasured. However long a trip
/// takes, one is measured.
pub(super) fn repeat(
    time: Duration,
    mut trip: impl FnMut() -> Result<(), Error>,
) -> Result<Times, Error> {
    let mut histogram = Histogram::default();
    let start = Instant::now();
    let mut now = start;
    while now - start < time || histogram.total() == 0 {
        trip()?;
        let after = Instant::now();
        if now - start >= time / 10 {
            histogram.record((after - now).as_nanos() as u64);
        }
        now = after;
    }
    Ok(Times::from(&histogram))
}

/// Round trips of a request and a page, one at a time.
pub(super) fn trips(time: Duration) -> Result<Times, Error> {
    let mut echo = Echo::new(HEADER_LEN + PAGE_SIZE)?;
    repeat(time, || echo.ask().and_then(|()| echo.hear()))
}

/// Chunks, several under way; 10^9 bytes per second.
pub(super) fn stream(time: Duration) -> Result<f64, Error> {
    let mut echo = Echo::new(HEADER_LEN + CHUNK)?;
    for _ in 0..UNDER_WAY {
        echo.ask()?;
    }
    let start = Instant::now();
    let mut chunks = 0;
    while chunks == 0 || start.elapsed() < time {
        echo.hear()?;
        echo.ask()?;
        chunks += 1;
    }
    Ok((chunks * CHUNK) as f64 / start.elapsed().as_nanos() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_answers() {
        for time in [Duration::ZERO, Duration::from_millis(20)] {
            let times = trips(time).unwrap();
            assert!(times.mean_ns > 0.0 && times.p50_ns <= times.p99_ns);
            assert!(stream(time).unwrap() > 0.0);
        }
    }
}
