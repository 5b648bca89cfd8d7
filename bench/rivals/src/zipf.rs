//! Who is popular: the distributions of YCSB.
//!
//! - Source: Cooper et al., Benchmarking Cloud Serving Systems with YCSB (2010), section 4; the generator is that of Gray
//!   et al., Quickly Generating Billion-Record Synthetic Databases (1994), with YCSB's constant 0.99.

use crate::generator::{Rng, mix};

/// YCSB's constant of skew.
const THETA: f64 = 0.99;

/// Numbers below `n`, 0 the most popular: the `k`-th with a probability in proportion to `1 / k^0.99`.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    n: u64,
    zeta_n: f64,
    zeta_two: f64,
    alpha: f64,
    eta: f64,
}

/// The sum of `1 / k^THETA` for `k` from `from + 1` to `to`.
fn zeta(from: u64, to: u64) -> f64 {
    (from + 1..=to).map(|k| (k as f64).powf(-THETA)).sum()
}

impl Zipf {
    /// The distribution over `n` numbers; takes a moment for each.
    pub(crate) fn new(n: u64) -> Self {
        let mut zipf = Self {
            n: 0,
            zeta_n: 0.0,
            zeta_two: zeta(0, 2),
            alpha: 1.0 / (1.0 - THETA),
            eta: 0.0,
        };
        zipf.grow(n.max(1));
        zipf
    }

    /// More numbers: only what is new is summed.
    pub(crate) fn grow(&mut self, n: u64) {
        if n <= self.n {
            return;
        }
        self.zeta_n += zeta(self.n, n);
        self.n = n;
        let below = 1.0 - (2.0 / n as f64).powf(1.0 - THETA);
        self.eta = below / (1.0 - self.zeta_two / self.zeta_n);
    }

    /// The next number.
    pub(crate) fn next(&self, rng: &mut Rng) -> u64 {
        // 53 bits: what a double holds exactly.
        let u = (rng.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta_n;
        if uz < 1.0 || self.n == 1 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let at = self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (at as u64).min(self.n - 1)
    }

    /// The next number, the popular ones scattered over all `n` (YCSB's "zipfian" request distribution).
    pub(crate) fn scattered(&self, rng: &mut Rng) -> u64 {
        mix(self.next(rng)) % self.n
    }

    /// The next number, the last the most popular (YCSB's "latest").
    pub(crate) fn latest(&self, rng: &mut Rng) -> u64 {
        self.n - 1 - self.next(rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(n: u64, draws: u64, draw: impl Fn(&mut Rng) -> u64) -> Vec<u64> {
        let mut rng = Rng::new(1, 2);
        let mut counts = vec![0; usize::try_from(n).unwrap()];
        for _ in 0..draws {
            counts[usize::try_from(draw(&mut rng)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_are_those_of_the_paper() {
        let (n, draws) = (1000, 400_000);
        let zipf = Zipf::new(n);
        let counts = counts(n, draws, |rng| zipf.next(rng));
        let expected = |k: u64| draws as f64 / ((k + 1) as f64).powf(THETA) / zeta(0, n);
        // Gray's method is exact for the first two and near for the others.
        for (k, within) in [(0, 0.02), (1, 0.03), (9, 0.25), (99, 0.25)] {
            let (found, wanted) = (counts[usize::try_from(k).unwrap()] as f64, expected(k));
            assert!(
                (found / wanted - 1.0).abs() < within,
                "{k}: {found} draws, expected {wanted}"
            );
        }
        assert!(counts[900..].iter().sum::<u64>() > 0, "the tail is reached");
    }

    #[test]
    fn growing_gives_what_starting_larger_gives() {
        let mut grown = Zipf::new(10);
        grown.grow(500);
        let whole = Zipf::new(500);
        let (mut a, mut b) = (Rng::new(3, 0), Rng::new(3, 0));
        for _ in 0..1000 {
            assert_eq!(grown.next(&mut a), whole.next(&mut b));
        }
    }

    #[test]
    fn the_latest_are_popular_in_one_and_nobody_special_in_the_other() {
        let zipf = Zipf::new(100);
        let latest = counts(100, 10_000, |rng| zipf.latest(rng));
        assert!(latest[99] > 1500 && latest[99] > latest[98] && latest[98] > latest[50]);
        let scattered = counts(100, 10_000, |rng| zipf.scattered(rng));
        let popular = usize::try_from(mix(0) % 100).unwrap();
        assert_eq!(scattered.iter().max(), Some(&scattered[popular]));
    }

    #[test]
    fn one_row_is_always_the_one() {
        let zipf = Zipf::new(1);
        let mut rng = Rng::new(1, 1);
        assert!((0..100).all(|_| zipf.next(&mut rng) == 0));
    }
}
