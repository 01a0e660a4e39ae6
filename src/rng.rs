//! Our own small seeded generator, so that a seed means the same numbers on every device.
//!
//! xoshiro256++ (Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators"), its
//! state filled by splitmix64 (Steele, Lea and Flood 2014). It runs on the CPU only; libtorch's
//! global generator is never used.

use tch::{Kind, Tensor};

/// A seeded random number generator (xoshiro256++). Not for cryptography.
///
/// ```
/// use thalweg::rng::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.range(10..20), b.range(10..20));
/// assert!((0.0..1.0).contains(&a.uniform()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole future follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut s = seed;
        Rng { state: std::array::from_fn(|_| splitmix64(&mut s)) }
    }

    /// A second, independent generator named by `stream`; `self` does not move. Use it where the
    /// number of draws in one part must not shift those of another.
    pub fn fork(&self, stream: u64) -> Self {
        let mut s = self.state[0] ^ self.state[3].rotate_left(23) ^ stream;
        let mut t = splitmix64(&mut s).wrapping_add(stream);
        Rng { state: std::array::from_fn(|_| splitmix64(&mut t)) }
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0..n without bias (Lemire 2019); 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        let n = n as u64;
        loop {
            let wide = u128::from(self.bits()) * u128::from(n);
            // the low half falls in the part that would favour small numbers: draw again
            if (wide as u64) >= n.wrapping_neg() % n {
                return (wide >> 64) as usize;
            }
        }
    }

    /// Uniform in `range`; its start if the range is empty.
    pub fn range(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// One item of a slice, or `None` if it is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Index drawn in proportion to `weights` (non-negative); 0 if they sum to 0.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (i, w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return i;
            }
        }
        weights.iter().rposition(|&w| w > 0.0).unwrap_or(0)
    }

    /// Put `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }

    /// `k` different numbers of 0..n, in random order; all `n` if `k` is larger.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let k = k.min(n);
        for i in 0..k {
            let j = self.range(i..n);
            all.swap(i, j);
        }
        all.truncate(k);
        all
    }

    /// A standard normal number (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal numbers of this shape, f32, on the CPU.
    pub fn normal_tensor(&mut self, shape: &[i64]) -> Tensor {
        let n: i64 = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| self.normal() as f32).collect();
        Tensor::from_slice(&values).to_kind(Kind::Float).reshape(shape)
    }
}

/// One step of splitmix64.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference_code() {
        // the authors' xoshiro256plusplus.c with state 1, 2, 3, 4
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.bits()).collect();
        assert_eq!(first, [41943041, 58720359, 3588806011781223, 3591011842654386]);
        // and splitmix64.c from 1234567
        let mut s = 1234567;
        assert_eq!(splitmix64(&mut s), 6457827717110365317);
    }

    #[test]
    fn draws_have_the_moments_they_should() {
        let mut rng = Rng::new(1);
        let n = 20_000;
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            square += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((square / f64::from(n) - 1.0).abs() < 0.05);
        let mut counts = [0; 3];
        (0..9000).for_each(|_| counts[rng.below(3)] += 1);
        assert!(counts.iter().all(|c| (2800..3200).contains(c)), "{counts:?}");
        let mut hits = [0; 3];
        (0..9000).for_each(|_| hits[rng.weighted(&[1.0, 0.0, 2.0])] += 1);
        assert!(hits[1] == 0 && (2800..3200).contains(&hits[0]), "{hits:?}");
    }

    #[test]
    fn samples_hold_each_number_at_most_once_and_shuffles_lose_nothing() {
        let mut rng = Rng::new(2);
        for _ in 0..100 {
            let mut s = rng.sample(12, 5);
            s.sort_unstable();
            s.dedup();
            assert_eq!(s.len(), 5);
        }
        let mut all: Vec<usize> = (0..50).collect();
        rng.shuffle(&mut all);
        assert_ne!(all, (0..50).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn forks_differ_from_each_other_and_leave_the_parent_where_it_was() {
        let rng = Rng::new(3);
        let (mut a, mut b) = (rng.fork(0), rng.fork(1));
        assert_ne!(a.bits(), b.bits());
        assert_eq!(rng, Rng::new(3));
    }

    #[test]
    fn empty_ranges_give_their_start_instead_of_a_panic() {
        let mut rng = Rng::new(4);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.range(5..5), 5);
        assert_eq!(rng.pick::<u8>(&[]), None);
        assert_eq!(rng.sample(2, 9).len(), 2);
    }
}
