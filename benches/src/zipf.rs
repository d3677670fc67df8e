//! Numbers that follow Zipf's law, by rejection-inversion (W. Hörmann and
//! G. Derflinger, 1996): exact, and without a table that would itself be paged.

/// Chooses ranks 1..=n, rank k in proportion to k^-s.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    n: f64,
    s: f64,
    /// The integral of the density before the first rank and after the last.
    first: f64,
    last: f64,
    /// Ranks that lie this close to the point drawn need no further test.
    sure: f64,
}

impl Zipf {
    /// Of `n` ranks with the exponent `s`, which is not 1.
    pub fn new(n: usize, s: f64) -> Zipf {
        let mut zipf = Zipf {
            n: n as f64,
            s,
            first: 0.0,
            last: 0.0,
            sure: 0.0,
        };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(zipf.n + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn density(&self, x: f64) -> f64 {
        x.powf(-self.s)
    }

    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.s) - 1.0) / (1.0 - self.s)
    }

    fn inverse(&self, area: f64) -> f64 {
        (1.0 + area * (1.0 - self.s)).powf(1.0 / (1.0 - self.s))
    }

    /// A rank; `random` gives evenly spread 64 bits.
    pub fn rank(&self, mut random: impl FnMut() -> u64) -> usize {
        loop {
            let unit = (random() >> 11) as f64 / (1u64 << 53) as f64;
            let area = self.last + unit * (self.first - self.last);
            let x = self.inverse(area);
            let k = x.round().clamp(1.0, self.n);
            if k - x <= self.sure || area >= self.integral(k + 0.5) - self.density(k) {
                return k as usize;
            }
        }
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
