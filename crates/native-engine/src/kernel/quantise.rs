//! Activations as 8-bit integers.

use super::{BLOCK_COLUMNS, LANES, vectorised};
use crate::kernel::Kernel;
use crate::kernel::shared::DisjointRows;

/// Codes in one word, in column order from the lowest byte.
pub(super) const CODES_PER_WORD: usize = 4;
/// Words of codes for one block of columns.
pub(super) const BLOCK_WORDS: usize = BLOCK_COLUMNS / CODES_PER_WORD;

/// Adding this to a number below 2^22 in magnitude rounds it to the nearest integer, ties to
/// even, and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Below this magnitude a block counts as zero: its inverse scale would not be finite.
const TINY: f32 = f32::from_bits(27 << 23);

/// Rows of activations, each block of 32 columns as codes in -127..=127 and a scale.
///
/// For a block with the largest magnitude `a`, the scale is `a / 127` and the code of `x` is
/// `x * (127 / a)` rounded to the nearest integer, ties to even. A block that holds an infinity
/// or a NaN has the scale NaN.
#[derive(Default)]
pub(crate) struct QuantisedRows {
    pub(super) blocks: usize,
    pub(super) rows: usize,
    pub(super) words: Vec<i32>,
    pub(super) scales: Vec<f32>,
    /// -128 times the sum of a block's codes: what a product with weights stored as `code + 128`
    /// has too much.
    pub(super) corrections: Vec<i32>,
}

impl QuantisedRows {
    /// Makes room for `rows` rows of `columns` (a multiple of 32) columns, whose contents are
    /// unspecified until written.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        assert!(columns.is_multiple_of(BLOCK_COLUMNS));
        self.blocks = columns / BLOCK_COLUMNS;
        self.rows = rows;
        self.words.resize(rows * self.blocks * BLOCK_WORDS, 0);
        self.scales.resize(rows * self.blocks, 0.0);
        self.corrections.resize(rows * self.blocks, 0);
    }

    /// Opens the rows for writing by several threads.
    pub(crate) fn writer(&mut self) -> RowWriter<'_> {
        RowWriter {
            words: DisjointRows::new(&mut self.words, self.blocks * BLOCK_WORDS),
            scales: DisjointRows::new(&mut self.scales, self.blocks),
            corrections: DisjointRows::new(&mut self.corrections, self.blocks),
            blocks: self.blocks,
        }
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.blocks * BLOCK_COLUMNS
    }
}

/// Writes rows of a [`QuantisedRows`].
pub(crate) struct RowWriter<'a> {
    words: DisjointRows<'a, i32>,
    scales: DisjointRows<'a, f32>,
    corrections: DisjointRows<'a, i32>,
    blocks: usize,
}

impl RowWriter<'_> {
    /// Quantises `values` into row `row`.
    ///
    /// # Safety
    ///
    /// No other thread may write the same row.
    pub(super) unsafe fn write(&self, kernel: Kernel, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.blocks * BLOCK_COLUMNS);
        // SAFETY: the caller writes each row from one thread, and this one part of it is dropped
        // before the function returns.
        let (words, scales, corrections) = unsafe {
            (
                self.words.part(row, 0..self.blocks * BLOCK_WORDS),
                self.scales.part(row, 0..self.blocks),
                self.corrections.part(row, 0..self.blocks),
            )
        };
        quantise_row(kernel, values, words, scales, corrections);
    }
}

vectorised! {
    fn quantise_row(values: &[f32], words: &mut [i32], scales: &mut [f32], corrections: &mut [i32])
        = quantise_row_body
}

#[inline(always)]
fn quantise_row_body(
    values: &[f32],
    words: &mut [i32],
    scales: &mut [f32],
    corrections: &mut [i32],
) {
    let (values, _) = values.as_chunks::<BLOCK_COLUMNS>();
    let (words, _) = words.as_chunks_mut::<BLOCK_WORDS>();
    for (((values, words), scale), correction) in
        values.iter().zip(words).zip(scales).zip(corrections)
    {
        let mut lanes = [0u32; LANES];
        for half in values.as_chunks::<LANES>().0 {
            for (lane, value) in lanes.iter_mut().zip(half) {
                *lane = (*lane).max(value.to_bits() & 0x7fff_ffff);
            }
        }
        let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
        let inverse = if largest.is_finite() && largest >= TINY {
            *scale = largest / 127.0;
            127.0 / largest
        } else {
            *scale = if largest.is_finite() { 0.0 } else { f32::NAN };
            *words = [0; BLOCK_WORDS];
            *correction = 0;
            continue;
        };
        let mut sum = 0;
        for (word, values) in words.iter_mut().zip(values.as_chunks::<CODES_PER_WORD>().0) {
            let mut packed = 0;
            for (place, value) in values.iter().enumerate() {
                let code = (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
                sum += code;
                packed |= (code & 0xff) << (8 * place);
            }
            *word = packed;
        }
        *correction = -128 * sum;
    }
}

/// A block of weights as codes in -127..=127 and a scale that `f16` can hold: the Q8_0 format of
/// GGUF. `None` if a weight is not finite or too large for the format.
pub(super) fn quantise_weights(
    weights: &[f32; BLOCK_COLUMNS],
) -> Option<([i8; BLOCK_COLUMNS], half::f16)> {
    let largest = weights
        .iter()
        .fold(0, |largest, w| largest.max(w.to_bits() & 0x7fff_ffff));
    let scale = half::f16::from_f32(f32::from_bits(largest) / 127.0);
    if !scale.is_finite() {
        return None;
    }
    let mut codes = [0; BLOCK_COLUMNS];
    if scale > half::f16::ZERO {
        let scale = scale.to_f32();
        for (code, weight) in codes.iter_mut().zip(weights) {
            let nearest = (weight / scale + ROUND) - ROUND;
            *code = nearest.clamp(-127.0, 127.0) as i8;
        }
    }
    Some((codes, scale))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn quantise(kernel: Kernel, values: &[f32]) -> QuantisedRows {
        let mut rows = QuantisedRows::default();
        rows.reset(1, values.len());
        // SAFETY: one thread, one row.
        unsafe { rows.writer().write(kernel, 0, values) };
        rows
    }

    fn codes(rows: &QuantisedRows) -> Vec<i8> {
        let bytes = rows.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(|byte| byte as i8).collect()
    }

    #[test]
    fn codes_are_the_nearest_integers_with_ties_to_even() {
        let mut values = [0.0; 32];
        values[..6].copy_from_slice(&[127.0, 2.5, 3.5, -2.5, -0.4, 0.6]);
        let rows = quantise(Kernel::available()[0], &values);
        assert_eq!(codes(&rows)[..7], [127, 2, 4, -2, 0, 1, 0]);
        assert_eq!(rows.scales, [1.0]);
        assert_eq!(rows.corrections, [-128 * (127 + 2 + 4 - 2 + 1)]);
    }

    #[test]
    fn kernels_agree_on_ordinary_and_extreme_blocks() {
        let mut values: Vec<f32> = (0..320)
            .map(|i| ((i * 7919) % 613) as f32 / 99.0 - 3.0)
            .collect();
        values[32..64].fill(0.0);
        values[64] = f32::MAX;
        values[96..128].fill(f32::MIN_POSITIVE / 4.0);
        values[130] = f32::INFINITY;
        values[161] = f32::NAN;
        values[192..224].fill(TINY);
        values[224..256].fill(-0.0);
        let expected = quantise(Kernel::available()[0], &values);
        for kernel in Kernel::available() {
            let rows = quantise(kernel, &values);
            assert_eq!(rows.words, expected.words, "{kernel}");
            assert_eq!(rows.corrections, expected.corrections, "{kernel}");
            let bits = |rows: &QuantisedRows| -> Vec<u32> {
                rows.scales.iter().map(|scale| scale.to_bits()).collect()
            };
            assert_eq!(bits(&rows), bits(&expected), "{kernel}");
        }
        assert!(expected.scales[4].is_nan() && expected.scales[5].is_nan());
        assert_eq!(expected.scales[3], 0.0);
    }

    #[test]
    fn weights_survive_being_quantised_twice() {
        let weights: [f32; 32] = std::array::from_fn(|i| (i as f32 - 11.0) * 0.0173);
        let (codes, scale) = quantise_weights(&weights).unwrap();
        let again = std::array::from_fn(|i| f32::from(codes[i]) * scale.to_f32());
        assert_eq!(quantise_weights(&again).unwrap(), (codes, scale));
    }

    #[test]
    fn weights_out_of_the_format_are_refused() {
        assert!(quantise_weights(&[f32::NAN; 32]).is_none());
        assert!(quantise_weights(&[f32::NEG_INFINITY; 32]).is_none());
        assert!(quantise_weights(&[1e9; 32]).is_none());
        assert_eq!(quantise_weights(&[0.0; 32]).unwrap().0, [0; 32]);
    }
}
