//! Rotary position embedding.
//!
//! Dimensions `2i` and `2i + 1` of a head turn by `position * frequency[i]` (the pairing of
//! llama-family GGUF files, whose query and key rows were permuted for it). Angles are computed
//! in `f64` by `libm`, in Rust, so that they do not depend on the C library.

use super::shared::DisjointRows;
use super::{Kernel, Pool, vectorised};

/// How fast each pair of dimensions turns.
pub(crate) struct Rope {
    frequencies: Vec<f64>,
}

impl Rope {
    /// The frequency of pair `i` is `base^(-2i / head_dim) / factors[i]`, with one factor for each pair.
    pub(crate) fn new(base: f64, head_dim: usize, factors: &[f32]) -> Self {
        let frequency =
            |i: usize| libm::pow(base, -((2 * i) as f64) / head_dim as f64) / f64::from(factors[i]);
        Self {
            frequencies: (0..head_dim / 2).map(frequency).collect(),
        }
    }

    /// Frequencies in radians per position.
    pub(crate) fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }
}

/// Cosines and sines for the rows of a batch.
#[derive(Default)]
pub(crate) struct RopeAngles {
    cosines_and_sines: Vec<[f32; 2]>,
    pairs: usize,
}

impl RopeAngles {
    /// Computes the angles of rows at `positions`.
    pub(crate) fn set(&mut self, pool: &mut Pool, rope: &Rope, positions: &[usize]) {
        self.pairs = rope.frequencies.len();
        self.cosines_and_sines
            .resize(positions.len() * self.pairs, [0.0; 2]);
        if self.cosines_and_sines.is_empty() {
            return;
        }
        let rows = DisjointRows::new(&mut self.cosines_and_sines, self.pairs);
        pool.for_rows(positions.len(), &|range| {
            for row in range {
                // SAFETY: each row belongs to one task.
                let angles = unsafe { rows.part(row, 0..self.pairs) };
                for (angle, frequency) in angles.iter_mut().zip(&rope.frequencies) {
                    let (sine, cosine) = libm::sincos(positions[row] as f64 * frequency);
                    *angle = [cosine as f32, sine as f32];
                }
            }
        });
    }

    /// Turns the first `heads` heads of each row of `x`, which has `columns` columns.
    pub(crate) fn rotate(
        &self,
        kernel: Kernel,
        pool: &mut Pool,
        x: &mut [f32],
        columns: usize,
        heads: usize,
    ) {
        let width = heads * self.pairs * 2;
        let x = DisjointRows::new(x, columns);
        pool.for_rows(x.rows(), &|range| {
            for row in range {
                // SAFETY: each row belongs to one task.
                let x = unsafe { x.part(row, 0..width) };
                rotate_row(
                    kernel,
                    &self.cosines_and_sines[row * self.pairs..][..self.pairs],
                    x,
                );
            }
        });
    }
}

vectorised! {
    fn rotate_row(angles: &[[f32; 2]], x: &mut [f32]) = rotate_row_body
}

#[inline(always)]
fn rotate_row_body(angles: &[[f32; 2]], x: &mut [f32]) {
    for head in x.chunks_exact_mut(2 * angles.len()) {
        for (pair, [cosine, sine]) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
            let [a, b] = *pair;
            *pair = [a * cosine - b * sine, a * sine + b * cosine];
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn pairs_turn_by_their_angle_on_every_kernel() {
        let (dim, heads, columns) = (32, 3, 4 * 32);
        let rope = Rope::new(10_000.0, dim, &[1.0; 16]);
        let positions = [0, 1, 7, 8_191];
        let before: Vec<f32> = (0..4 * columns).map(|i| (i as f32).sin()).collect();
        let mut bits = Vec::new();
        for kernel in Kernel::available() {
            let mut pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
            let mut angles = RopeAngles::default();
            angles.set(&mut pool, &rope, &positions);
            let mut x = before.clone();
            angles.rotate(kernel, &mut pool, &mut x, columns, heads);
            for (row, position) in positions.iter().enumerate() {
                for i in 0..columns / 2 {
                    let (a, b) = (
                        before[row * columns + 2 * i],
                        before[row * columns + 2 * i + 1],
                    );
                    let turn = if i < heads * dim / 2 {
                        let exponent = -2.0 * (i % (dim / 2)) as f64 / dim as f64;
                        *position as f64 * 10_000f64.powf(exponent)
                    } else {
                        0.0 // the values, which are not rotated
                    };
                    let exact = f64::from(a) * turn.cos() - f64::from(b) * turn.sin();
                    assert!((f64::from(x[row * columns + 2 * i]) - exact).abs() < 1e-6);
                }
            }
            bits.push(x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
        assert!(bits.iter().all(|each| *each == bits[0]));
    }
}
