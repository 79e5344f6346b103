//! Weights, packed for the kernels.

use half::f16;

use super::quantise::{BLOCK_WORDS, CODES_PER_WORD, quantise_weights};
use super::{BLOCK_COLUMNS, LANES};

/// Rows in a panel: one lane each.
pub(super) const PANEL_ROWS: usize = LANES;

/// Four columns of the 16 rows of a panel: byte `4 * row + column`, each a code plus 128.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Quad(pub(super) [u8; PANEL_ROWS * CODES_PER_WORD]);

/// The scales of one block of columns, one for each row of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Scales(pub(super) [f16; PANEL_ROWS]);

/// A matrix of weights in the Q8_0 format (codes in -127..=127 with one `f16` scale for 32
/// columns), rows interleaved by 16.
///
/// A *panel* is 16 rows. Within it, four columns of all its rows are 64 bytes: as many as the
/// widest register holds, each lane with the codes of *its* row. So one activation row is
/// multiplied with 16 weight rows at once without ever adding across lanes. Codes are stored
/// plus 128 because the instructions multiply unsigned by signed bytes.
pub(crate) struct PackedMatrix {
    rows: usize,
    blocks: usize,
    quads: Vec<Quad>,
    scales: Vec<Scales>,
}

/// A weight that is NaN, infinite, or too large for the Q8_0 format.
#[derive(Debug)]
pub(crate) struct NotFinite;

impl PackedMatrix {
    /// A matrix of zeros.
    ///
    /// # Panics
    ///
    /// If `columns` is not a multiple of 32.
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        assert!(columns.is_multiple_of(BLOCK_COLUMNS));
        let blocks = columns / BLOCK_COLUMNS;
        let panel_blocks = rows.div_ceil(PANEL_ROWS) * blocks;
        Self {
            rows,
            blocks,
            quads: vec![Quad([128; PANEL_ROWS * CODES_PER_WORD]); panel_blocks * BLOCK_WORDS],
            scales: vec![Scales([f16::ZERO; PANEL_ROWS]); panel_blocks],
        }
    }

    /// Replaces row `row` by `weights`.
    ///
    /// # Errors
    ///
    /// [`NotFinite`]; the row is then unspecified.
    pub(crate) fn set_row(&mut self, row: usize, weights: &[f32]) -> Result<(), NotFinite> {
        assert!(row < self.rows && weights.len() == self.columns());
        let lane = row % PANEL_ROWS;
        let first = row / PANEL_ROWS * self.blocks;
        for (block, weights) in weights.as_chunks::<BLOCK_COLUMNS>().0.iter().enumerate() {
            let (codes, scale) = quantise_weights(weights).ok_or(NotFinite)?;
            let block = first + block;
            self.scales[block].0[lane] = scale;
            let quads = &mut self.quads[block * BLOCK_WORDS..][..BLOCK_WORDS];
            for (quad, codes) in quads.iter_mut().zip(codes.as_chunks::<CODES_PER_WORD>().0) {
                for (place, code) in codes.iter().enumerate() {
                    quad.0[lane * CODES_PER_WORD + place] = (*code as u8) ^ 0x80;
                }
            }
        }
        Ok(())
    }

    /// Writes row `row` into `values` as `code * scale`.
    pub(crate) fn row(&self, row: usize, values: &mut [f32]) {
        assert!(row < self.rows && values.len() == self.columns());
        let lane = row % PANEL_ROWS;
        let first = row / PANEL_ROWS * self.blocks;
        for (block, values) in values
            .as_chunks_mut::<BLOCK_COLUMNS>()
            .0
            .iter_mut()
            .enumerate()
        {
            let (quads, scales) = self.block(first + block);
            let scale = scales.0[lane].to_f32();
            for (values, quad) in values
                .as_chunks_mut::<CODES_PER_WORD>()
                .0
                .iter_mut()
                .zip(quads)
            {
                for (place, value) in values.iter_mut().enumerate() {
                    let code = (quad.0[lane * CODES_PER_WORD + place] ^ 0x80) as i8;
                    *value = f32::from(code) * scale;
                }
            }
        }
    }

    /// Number of rows: outputs of the product.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of the product.
    pub(crate) fn columns(&self) -> usize {
        self.blocks * BLOCK_COLUMNS
    }

    /// Bytes that one product reads.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.quads) + size_of_val(&*self.scales)
    }

    /// Feeds all that a product depends on into `hasher`.
    pub(crate) fn digest(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&(self.rows as u64).to_le_bytes());
        hasher.update(&(self.blocks as u64).to_le_bytes());
        let mut bytes = Vec::new();
        for (quads, scales) in self
            .quads
            .chunks(BLOCK_WORDS * 64)
            .zip(self.scales.chunks(64))
        {
            bytes.clear();
            quads
                .iter()
                .for_each(|quad| bytes.extend_from_slice(&quad.0));
            for scales in scales {
                scales
                    .0
                    .iter()
                    .for_each(|scale| bytes.extend_from_slice(&scale.to_le_bytes()));
            }
            hasher.update(&bytes);
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    pub(super) fn panel(&self, panel: usize) -> Panel<'_> {
        let blocks = panel * self.blocks..(panel + 1) * self.blocks;
        Panel {
            quads: self.quads[blocks.start * BLOCK_WORDS..blocks.end * BLOCK_WORDS]
                .as_chunks::<BLOCK_WORDS>()
                .0,
            scales: &self.scales[blocks],
        }
    }

    fn block(&self, block: usize) -> (&[Quad], &Scales) {
        (
            &self.quads[block * BLOCK_WORDS..][..BLOCK_WORDS],
            &self.scales[block],
        )
    }
}

/// 16 rows of a matrix: for each block of columns, its codes and scales.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) quads: &'a [[Quad; BLOCK_WORDS]],
    pub(super) scales: &'a [Scales],
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_was_quantised() {
        let mut matrix = PackedMatrix::zeros(19, 64);
        let weights: Vec<f32> = (0..64).map(|i| (i as f32 - 30.0) / 17.0).collect();
        matrix.set_row(17, &weights).unwrap();
        let mut values = vec![1.0; 64];
        matrix.row(17, &mut values);
        for (value, weight) in values.iter().zip(&weights) {
            assert!(
                (value - weight).abs() <= 2.0 / 127.0,
                "{value} for {weight}"
            );
        }
        matrix.row(16, &mut values);
        assert_eq!(values, [0.0; 64]);
        assert_eq!(matrix.bytes(), 2 * 2 * (512 + 32));
    }
}
