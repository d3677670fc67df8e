//! Numbers that follow Zipf's law: few of them often, many rarely.
//!
//! `rand_distr` draws them by rejection, without a table that would itself be paged. The
//! random bits are the caller's, so that each access can be computed from its number alone.

use core::convert::Infallible;
use rand_core::TryRng;
use rand_distr::Distribution as _;

/// Chooses ranks 1..=n, rank k in proportion to k^-s.
#[derive(Clone, Copy, Debug)]
pub struct Zipf(rand_distr::Zipf<f64>);

/// Random bits of a caller.
struct Bits<F>(F);

impl<F: FnMut() -> u64> TryRng for Bits<F> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(((self.0)() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok((self.0)())
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for some in to.chunks_mut(8) {
            some.copy_from_slice(&(self.0)().to_le_bytes()[..some.len()]);
        }
        Ok(())
    }
}

impl Zipf {
    /// The law for `n` ranks, at least one, with the exponent `s`.
    ///
    /// # Panics
    /// If there is no rank, or `s` is negative or not a number.
    pub fn new(n: usize, s: f64) -> Zipf {
        Zipf(rand_distr::Zipf::new(n as f64, s).expect("a law has ranks and an exponent"))
    }

    /// Draws a rank. `random` returns 64 evenly distributed bits.
    pub fn rank(&self, random: impl FnMut() -> u64) -> usize {
        self.0.sample(&mut Bits(random)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::mix;

    #[test]
    fn ranks_are_as_frequent_as_the_law_says() {
        let (n, s, draws) = (1000usize, 0.99, 400_000);
        let zipf = Zipf::new(n, s);
        let mut counts = vec![0u32; n + 1];
        let mut state = 0;
        for _ in 0..draws {
            let rank = zipf.rank(|| {
                state += 1;
                mix(state)
            });
            counts[rank] += 1;
        }
        assert_eq!(counts[0], 0);
        let sum: f64 = (1..=n).map(|k| (k as f64).powf(-s)).sum();
        for k in [1, 2, 3, 10, 30] {
            let wanted = f64::from(draws) * (k as f64).powf(-s) / sum;
            let got = f64::from(counts[k]);
            // Five standard deviations.
            assert!(
                (got - wanted).abs() < 5.0 * wanted.sqrt(),
                "rank {k}: {got} times, wanted {wanted}"
            );
        }
        let tail: u32 = counts[501..].iter().sum();
        let wanted: f64 = (501..=n).map(|k| (k as f64).powf(-s)).sum::<f64>() / sum;
        let got = f64::from(tail) / f64::from(draws);
        assert!((got - wanted).abs() < 0.01, "{got} {wanted}");
    }

    #[test]
    fn one_rank_is_always_the_first() {
        let zipf = Zipf::new(1, 0.99);
        assert!((0..100).all(|n| zipf.rank(|| mix(n)) == 1));
    }
}
