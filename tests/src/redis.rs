//! A client of redis that fills it with known values and reads them back.

use crate::inputs::Numbers;
use std::io::{BufRead, BufReader, BufWriter, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Requests sent before their answers are read.
const PIPELINE: u64 = 128;

/// A connection over redis's socket file.
pub struct Redis {
    out: BufWriter<UnixStream>,
    input: BufReader<UnixStream>,
}

impl Redis {
    /// Connects, waiting until redis is ready.
    pub fn connect(socket: &Path) -> Redis {
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < deadline, "redis does not listen: {e}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let limit = Some(Duration::from_secs(300));
        stream
            .set_read_timeout(limit)
            .expect("a timeout can be set");
        let input = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        let mut redis = Redis {
            out: BufWriter::new(stream),
            input,
        };
        // It answers before it has loaded what it was told to.
        loop {
            redis.send(&[b"PING"]).expect("redis takes requests");
            redis.out.flush().expect("redis takes requests");
            let answer = redis.line().expect("redis answers");
            if answer == "+PONG" {
                return redis;
            }
            assert!(Instant::now() < deadline, "redis says {answer}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stores `count` values.
    pub fn fill(&mut self, count: u64) {
        self.store(count, value);
    }

    /// Stores other values in the place of the first `count`.
    pub fn fill_otherwise(&mut self, count: u64) {
        self.store(count, |i| value(i + 1_000_000));
    }

    /// Has redis save in the background, does something meanwhile, and waits
    /// until it is saved.
    pub fn save_while(&mut self, meanwhile: impl FnOnce(&mut Redis)) {
        self.send(&[b"BGSAVE"]).expect("redis takes requests");
        self.out.flush().expect("redis takes requests");
        assert_eq!(
            self.line().expect("redis answers"),
            "+Background saving started"
        );
        meanwhile(self);
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            self.send(&[b"INFO", b"persistence"])
                .expect("redis takes requests");
            self.out.flush().expect("redis takes requests");
            let info = self.bulk().expect("redis answers");
            let info = String::from_utf8_lossy(&info);
            if info.contains("rdb_bgsave_in_progress:0") {
                assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
                return;
            }
            assert!(Instant::now() < deadline, "redis does not end to save");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn store(&mut self, count: u64, value: impl Fn(u64) -> Vec<u8>) {
        for first in (0..count).step_by(PIPELINE as usize) {
            let batch = first..count.min(first + PIPELINE);
            for i in batch.clone() {
                self.send(&[b"SET", key(i).as_bytes(), &value(i)])
                    .expect("redis takes requests");
            }
            self.out.flush().expect("redis takes requests");
            for i in batch {
                assert_eq!(
                    self.line().expect("redis answers"),
                    "+OK",
                    "SET of value {i}"
                );
            }
        }
    }

    /// Reads all values in another order and fails when one is wrong.
    pub fn read_back(&mut self, count: u64) {
        // Odd and larger than any count here: all values, each once.
        let order = |n: u64| n.wrapping_mul(1_000_003) % count;
        for first in (0..count).step_by(PIPELINE as usize) {
            let batch = first..count.min(first + PIPELINE);
            for n in batch.clone() {
                self.send(&[b"GET", key(order(n)).as_bytes()])
                    .expect("redis takes requests");
            }
            self.out.flush().expect("redis takes requests");
            for n in batch {
                let got = self.bulk().expect("redis answers");
                assert!(got == value(order(n)), "value {} came back wrong", order(n));
            }
        }
    }

    /// Ends redis.
    pub fn shutdown(mut self) {
        self.send(&[b"SHUTDOWN", b"NOSAVE"])
            .expect("redis takes requests");
        self.out.flush().expect("redis takes requests");
        // There is no answer but the end.
        let _ = self.input.read(&mut [0]);
    }

    fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        write!(self.out, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.out, "${}\r\n", word.len())?;
            self.out.write_all(word)?;
            self.out.write_all(b"\r\n")?;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn bulk(&mut self) -> Result<Vec<u8>> {
        let line = self.line()?;
        let length = line.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let Some(length) = length else {
            panic!("redis answered {line:?} to a GET")
        };
        let mut data = vec![0; length + 2];
        self.input.read_exact(&mut data)?;
        data.truncate(length);
        Ok(data)
    }
}

fn key(i: u64) -> String {
    format!("key:{i:012}")
}

/// Noise that values are cut out of: making each anew would take longer than
/// redis does.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        Numbers(1)
            .take(1 << 13)
            .flat_map(u64::to_le_bytes)
            .collect()
    })
}

/// From a few bytes to some two pages: 4 KiB on the average. The number itself
/// comes first, so that no two values are the same.
fn value(i: u64) -> Vec<u8> {
    let draw = Numbers(i).draw();
    let (length, from) = (draw % 8192, (draw >> 32) % 57_344);
    let cut = &noise()[from as usize..(from + length) as usize];
    [&i.to_le_bytes()[..], cut].concat()
}
