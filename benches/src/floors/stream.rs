//! Plain streams of bytes. Each byte is used once, as in a scan of memory that is larger than the
//! CPU's caches.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tmem_pager::sys::tcp;

use super::CHUNK;
use crate::Error;

/// The most bytes that each side has: more than caches hold.
const MOST: usize = 512 << 20;

/// Two ends of a connection on this machine.
pub(super) fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    other.set_nodelay(true)?;
    tcp::spare_loopback(&stream);
    tcp::spare_loopback(&other);
    Ok((stream, other))
}

/// From one thread to another, some `bytes` over and over for about `time`; 10^9 bytes
/// per second.
pub(super) fn once(bytes: usize, time: Duration) -> Result<f64, Error> {
    let (left, right) = pair().map_err(Error::io("a connection on this machine"))?;
    let (from, mut to) = (memory(bytes, 1), memory(bytes, 0));
    rounds(from.len(), time, || {
        run([(&left, &from)], [(&right, &mut to)])
    })
}

/// Sends `bytes` bytes each way at the same time; the rate of one way, in 10^9 bytes per
/// second.
pub(super) fn both_ways(bytes: usize, time: Duration) -> Result<f64, Error> {
    let (left, right) = pair().map_err(Error::io("a connection on this machine"))?;
    let (from, mut to) = (memory(bytes, 1), memory(bytes, 0));
    let (back, mut there) = (memory(bytes, 2), memory(bytes, 0));
    rounds(from.len(), time, || {
        run(
            [(&left, &from), (&right, &back)],
            [(&right, &mut to), (&left, &mut there)],
        )
    })
}

/// Memory that is there.
fn memory(bytes: usize, value: u8) -> Vec<u8> {
    let mut memory = vec![!value; bytes.clamp(CHUNK, MOST)];
    memory.fill(value);
    memory
}

/// Repeats a round, which moves `bytes` bytes.
fn rounds(
    bytes: usize,
    time: Duration,
    mut round: impl FnMut() -> std::io::Result<()>,
) -> Result<f64, Error> {
    // Until the windows are as large as they get.
    round().map_err(Error::io("a stream on this machine"))?;
    let start = Instant::now();
    let mut moved = 0;
    while moved == 0 || start.elapsed() < time {
        round().map_err(Error::io("a stream on this machine"))?;
        moved += bytes;
    }
    Ok(moved as f64 / start.elapsed().as_nanos() as f64)
}

/// Sends all of the one and fills all of the other, each in a thread of its own.
fn run<const N: usize>(
    sent: [(&TcpStream, &Vec<u8>); N],
    received: [(&TcpStream, &mut Vec<u8>); N],
) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let senders = sent.map(|(mut stream, bytes)| {
            scope.spawn(move || bytes.chunks(CHUNK).try_for_each(|c| stream.write_all(c)))
        });
        let receivers = received.map(|(mut stream, bytes)| {
            scope.spawn(move || {
                let mut chunks = bytes.chunks_mut(CHUNK);
                chunks.try_for_each(|c| stream.read_exact(c))
            })
        });
        senders.into_iter().chain(receivers).try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(std::io::Error::other("a thread of it failed")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_one_way_and_both_ways() {
        let (left, right) = pair().unwrap();
        let (from, mut to) = (memory(3 * CHUNK + 5, 1), memory(3 * CHUNK + 5, 0));
        let (back, mut there) = (memory(CHUNK, 2), memory(CHUNK, 0));
        run(
            [(&left, &from), (&right, &back)],
            [(&right, &mut to), (&left, &mut there)],
        )
        .unwrap();
        assert_eq!((to, there), (from, back));
        assert!(once(1 << 20, Duration::ZERO).unwrap() > 0.0);
        assert!(both_ways(1 << 20, Duration::ZERO).unwrap() > 0.0);
    }
}
