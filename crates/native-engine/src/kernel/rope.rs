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
