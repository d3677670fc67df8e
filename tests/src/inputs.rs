//! Inputs of real programs: large, varied, and the same on every machine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder of inputs; removed when dropped.
pub struct Inputs(TempDir);

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs(tempfile::tempdir().expect("a temporary folder can be made"))
    }
}

/// A small generator of numbers (splitmix64).
pub struct Numbers(pub u64);

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(x ^ (x >> 31))
    }
}

impl Numbers {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.next().expect("it never ends")
    }
}

impl Inputs {
    /// The folder.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> PathBuf {
        let path = self.dir().join(name);
        let mut out = BufWriter::new(File::create(&path).expect("an input can be made"));
        fill(&mut out)
            .and_then(|()| out.flush())
            .expect("an input can be written");
        path
    }

    /// `count` lines in no order, some 50 bytes each.
    pub fn lines(&self, count: u64) -> PathBuf {
        let mut numbers = Numbers(5);
        self.write("lines", |out| {
            (0..count).try_for_each(|i| {
                writeln!(
                    out,
                    "{:016x} {:016x} some text {i}",
                    numbers.draw(),
                    numbers.draw()
                )
            })
        })
    }

    /// `bytes` of text over fifty thousand words.
    pub fn text(&self, bytes: u64) -> PathBuf {
        let mut numbers = Numbers(9);
        let letters = b"etaoinshrdlu";
        let words: Vec<String> = (0..50_000)
            .map(|_| {
                let length = 2 + numbers.draw() % 8;
                (0..length)
                    .map(|_| char::from(letters[numbers.draw() as usize % 12]))
                    .collect()
            })
            .collect();
        self.write("text", |out| {
            let mut written = 0;
            while written < bytes {
                let word = &words[numbers.draw() as usize % words.len()];
                written += word.len() as u64 + 1;
                write!(
                    out,
                    "{word}{}",
                    if numbers.draw().is_multiple_of(10) {
                        '\n'
                    } else {
                        ' '
                    }
                )?;
            }
            Ok(())
        })
    }

    /// `chunks` times the same half MiB of noise, each time turned a little:
    /// little once compressed, and all of it needed to unpack it.
    pub fn repeats(&self, chunks: usize) -> PathBuf {
        let chunk: Vec<u8> = Numbers(3)
            .take(1 << 16)
            .flat_map(u64::to_le_bytes)
            .collect();
        self.write("repeats", |out| {
            (0..chunks).try_for_each(|i| {
                let turn = i * 500 % chunk.len();
                out.write_all(&i.to_le_bytes())?;
                out.write_all(&chunk[turn..])?;
                out.write_all(&chunk[..turn])
            })
        })
    }

    /// A C file of `functions` functions that optimisers chew on.
    pub fn c_source(&self, functions: usize) -> PathBuf {
        self.write("big.c", |out| {
            for i in 0..functions {
                let (factor, shift, bit) = (i % 17 + 1, i % 7 + 1, 1 << (i % 10));
                let callee = i.saturating_sub(1);
                writeln!(
                    out,
                    "int f{i}(int a, int *b, int n) {{ int s = a; for (int i = 0; i < n; i++) {{ \
                     s += b[i] * {factor} ^ (s >> {shift}); if (s & {bit}) s -= b[(i + {i}) % n]; \
                     else b[i] = s; }} switch (s & 7) {{ case 0: return s + {i}; case 1: return \
                     b[0] * 3; case 2: return f{callee}(a - 1, b, n); default: return s; }} }}"
                )?;
            }
            Ok(())
        })
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, |out| out.write_all(text.as_bytes()))
    }
}
