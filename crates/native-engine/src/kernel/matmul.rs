//! Products of activations and weights.
//!
//! For one activation row `x` and one weight row `w`, over blocks `b` of 32 columns in ascending
//! order: `acc += (scale_w[b] * scale_x[b]) * (sum of code_w * code_x in b)`. The sum is an exact
//! integer below 2^24, hence an exact `f32`; the three `f32` operations are rounded one by one.

use super::cpu::Isa;
use super::matrix::{PANEL_ROWS, PackedMatrix, Panel};
use super::quantise::{BLOCK_WORDS, QuantisedRows};
use super::shared::DisjointRows;
use super::{Kernel, Pool};

/// Weights that one task multiplies at least, so that claiming it costs little beside it.
const TASK_BYTES: usize = 96 << 10;

/// Accumulators: one activation row times the 16 rows of a panel.
type Sums = [f32; PANEL_ROWS];

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// It replaces what is there.
    Store,
    /// It is added to what is there (a residual connection).
    Add,
}

/// Multiplies each row of `x` with each row of `weights`: `out[i][j] = x[i] . weights[j]`.
///
/// `out` is row-major with as many columns as `weights` has rows.
pub(crate) fn matmul(
    kernel: Kernel,
    pool: &mut Pool,
    x: &QuantisedRows,
    weights: &PackedMatrix,
    output: Output,
    out: &mut [f32],
) {
    assert_eq!(x.columns(), weights.columns());
    assert_eq!(out.len(), x.rows * weights.rows());
    if out.is_empty() {
        return;
    }
    let out = DisjointRows::new(out, weights.rows());
    let panels = weights.panels();
    let panel_bytes = weights.bytes() / panels;
    let fair = panels.div_ceil(pool.threads() * 4);
    let chunk = TASK_BYTES.div_ceil(panel_bytes).clamp(1, fair.max(1));
    pool.for_each(panels.div_ceil(chunk), &|task| {
        for panel in task * chunk..panels.min((task + 1) * chunk) {
            let columns = panel * PANEL_ROWS..weights.rows().min((panel + 1) * PANEL_ROWS);
            multiply_panel(kernel, x, weights.panel(panel), &mut |row, sums| {
                // SAFETY: each panel is claimed by one task, and panels are disjoint columns.
                let part = unsafe { out.part(row, columns.clone()) };
                match output {
                    Output::Store => part.copy_from_slice(&sums[..part.len()]),
                    Output::Add => part.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                }
            });
        }
    });
}

/// Multiplies all rows of `x` with one panel.
fn multiply_panel(
    kernel: Kernel,
    x: &QuantisedRows,
    panel: Panel<'_>,
    emit: &mut dyn FnMut(usize, &Sums),
) {
    // The more rows a tile has, the fewer times the weights are loaded; how many depends on the
    // registers. Tiling cannot change a result.
    let widest = match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => 8,
        _ => 4,
    };
    let mut row = 0;
    while row < x.rows {
        row += match (row, x.rows - row) {
            (0, 8..) if widest == 8 => multiply_tile::<8, true>(kernel, x, row, panel, emit),
            (0, 4..) => multiply_tile::<4, true>(kernel, x, row, panel, emit),
            (0, 2..) => multiply_tile::<2, true>(kernel, x, row, panel, emit),
            (0, _) => multiply_tile::<1, true>(kernel, x, row, panel, emit),
            (_, 8..) if widest == 8 => multiply_tile::<8, false>(kernel, x, row, panel, emit),
            (_, 4..) => multiply_tile::<4, false>(kernel, x, row, panel, emit),
            (_, 2..) => multiply_tile::<2, false>(kernel, x, row, panel, emit),
            (_, _) => multiply_tile::<1, false>(kernel, x, row, panel, emit),
        };
    }
}

/// Multiplies `T` rows of `x`, from `row` on, with one panel. Returns `T`. `FRESH` says that the
/// panel's weights come from memory: the first tile brings them into the cache.
fn multiply_tile<const T: usize, const FRESH: bool>(
    kernel: Kernel,
    x: &QuantisedRows,
    row: usize,
    panel: Panel<'_>,
    emit: &mut dyn FnMut(usize, &Sums),
) -> usize {
    let tile = Tile::<T>::new(x, row);
    let mut sums = [[0.0; PANEL_ROWS]; T];
    match kernel.0 {
        Isa::Portable => portable(&tile, panel, &mut sums),
        // SAFETY: a `Kernel` of this kind exists only where the CPU has the instructions.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2::<T, FRESH>(&tile, panel, &mut sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => unsafe { x86::avx_vnni::<T, FRESH>(&tile, panel, &mut sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => unsafe { x86::avx512_vnni::<T, FRESH>(&tile, panel, &mut sums) },
    }
    for (row, sums) in (row..).zip(&sums) {
        emit(row, sums);
    }
    T
}

/// `T` activation rows, as slices with one element for each block of columns.
struct Tile<'a, const T: usize> {
    words: [&'a [[i32; BLOCK_WORDS]]; T],
    scales: [&'a [f32]; T],
    corrections: [&'a [i32]; T],
}

impl<'a, const T: usize> Tile<'a, T> {
    fn new(x: &'a QuantisedRows, row: usize) -> Self {
        let (words, _) = x.words.as_chunks::<BLOCK_WORDS>();
        let range = |i: usize| (row + i) * x.blocks..(row + i + 1) * x.blocks;
        Self {
            words: std::array::from_fn(|i| &words[range(i)]),
            scales: std::array::from_fn(|i| &x.scales[range(i)]),
            corrections: std::array::from_fn(|i| &x.corrections[range(i)]),
        }
    }
}

/// The definition that all other kernels follow bit for bit.
fn portable<const T: usize>(tile: &Tile<'_, T>, panel: Panel<'_>, sums: &mut [Sums; T]) {
    for (block, (quads, scales)) in panel.quads.iter().zip(panel.scales).enumerate() {
        let scales = scales.0.map(half::f16::to_f32);
        for (t, sums) in sums.iter_mut().enumerate() {
            let mut dots = [0i32; PANEL_ROWS];
            for (quad, word) in quads.iter().zip(&tile.words[t][block]) {
                let x = word.to_le_bytes().map(|code| i32::from(code as i8));
                for (dot, w) in dots.iter_mut().zip(quad.0.as_chunks::<4>().0) {
                    let w = w.map(|code| i32::from((code ^ 0x80) as i8));
                    *dot += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
                }
            }
            let scale = tile.scales[t][block];
            for ((sum, dot), weight_scale) in sums.iter_mut().zip(dots).zip(scales) {
                *sum += (weight_scale * scale) * dot as f32;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::cpu::prefetch_line;
    use super::super::matrix::{Quad, Scales};
    use super::{Panel, Sums, Tile};

    /// Asks for the weights that come a page later: hardware prefetchers stop at each page's end,
    /// which costs a third of the bandwidth of one core.
    #[inline(always)]
    fn prefetch_after(quad: &Quad) {
        const AHEAD_BYTES: usize = 4096;
        prefetch_line(quad.0.as_ptr().wrapping_add(AHEAD_BYTES));
    }

    /// 16 lanes in one register; the weights stay unsigned, and what they have too much is the
    /// first summand.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn avx512_vnni<const T: usize, const FRESH: bool>(
        tile: &Tile<'_, T>,
        panel: Panel<'_>,
        sums: &mut [Sums; T],
    ) {
        let mut acc = [_mm512_setzero_ps(); T];
        for (block, (quads, scales)) in panel.quads.iter().zip(panel.scales).enumerate() {
            let mut dots: [__m512i; T] =
                std::array::from_fn(|t| _mm512_set1_epi32(tile.corrections[t][block]));
            let words: [&[i32; 8]; T] = std::array::from_fn(|t| &tile.words[t][block]);
            for (place, quad) in quads.iter().enumerate() {
                if FRESH {
                    prefetch_after(quad);
                }
                // SAFETY: a quad is 64 bytes, aligned to 64.
                let w = unsafe { _mm512_load_si512(quad.0.as_ptr().cast()) };
                for t in 0..T {
                    dots[t] = _mm512_dpbusd_epi32(dots[t], w, _mm512_set1_epi32(words[t][place]));
                }
            }
            // SAFETY: the scales of a block are 32 bytes, aligned to 32.
            let scales = unsafe { _mm256_load_si256(scales.0.as_ptr().cast()) };
            let scales = _mm512_cvtph_ps(scales);
            for t in 0..T {
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(tile.scales[t][block]));
                let product = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots[t]));
                acc[t] = _mm512_add_ps(acc[t], product);
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            // SAFETY: the sums of a row are 64 writable bytes; no alignment is asked for.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), acc) };
        }
    }

    /// Two registers of 8 lanes, else as [`avx512_vnni`].
    #[target_feature(enable = "avx2,f16c,avxvnni")]
    pub(super) fn avx_vnni<const T: usize, const FRESH: bool>(
        tile: &Tile<'_, T>,
        panel: Panel<'_>,
        sums: &mut [Sums; T],
    ) {
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        for (block, (quads, scales)) in panel.quads.iter().zip(panel.scales).enumerate() {
            let scales = widen(scales);
            if FRESH {
                quads.iter().for_each(prefetch_after);
            }
            for half in 0..2 {
                let mut dots: [__m256i; T] =
                    std::array::from_fn(|t| _mm256_set1_epi32(tile.corrections[t][block]));
                for (place, quad) in quads.iter().enumerate() {
                    let (halves, _) = quad.0.as_chunks::<32>();
                    // SAFETY: half a quad is 32 bytes, aligned to 32.
                    let w = unsafe { _mm256_load_si256(halves[half].as_ptr().cast()) };
                    for (dots, words) in dots.iter_mut().zip(&tile.words) {
                        let x = _mm256_set1_epi32(words[block][place]);
                        *dots = _mm256_dpbusd_avx_epi32(*dots, w, x);
                    }
                }
                for t in 0..T {
                    let scale = _mm256_mul_ps(scales[half], _mm256_set1_ps(tile.scales[t][block]));
                    let product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dots[t]));
                    acc[t][half] = _mm256_add_ps(acc[t][half], product);
                }
            }
        }
        store(&acc, sums);
    }

    /// Without a four-way product: bytes are multiplied as magnitude (unsigned) and weight with
    /// the activation's sign (signed). Pairs stay below 2 * 127 * 127, so the 16-bit additions
    /// never saturate.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn avx2<const T: usize, const FRESH: bool>(
        tile: &Tile<'_, T>,
        panel: Panel<'_>,
        sums: &mut [Sums; T],
    ) {
        let offset = _mm256_set1_epi8(-128);
        let ones = _mm256_set1_epi16(1);
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        for (block, (quads, scales)) in panel.quads.iter().zip(panel.scales).enumerate() {
            let scales = widen(scales);
            if FRESH {
                quads.iter().for_each(prefetch_after);
            }
            for half in 0..2 {
                let mut dots = [_mm256_setzero_si256(); T];
                for (place, quad) in quads.iter().enumerate() {
                    let (halves, _) = quad.0.as_chunks::<32>();
                    // SAFETY: half a quad is 32 bytes, aligned to 32.
                    let w = unsafe { _mm256_load_si256(halves[half].as_ptr().cast()) };
                    let w = _mm256_xor_si256(w, offset);
                    for (dots, words) in dots.iter_mut().zip(&tile.words) {
                        let x = _mm256_set1_epi32(words[block][place]);
                        let signed = _mm256_sign_epi8(w, x);
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), signed);
                        *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
                    }
                }
                for t in 0..T {
                    let scale = _mm256_mul_ps(scales[half], _mm256_set1_ps(tile.scales[t][block]));
                    let product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dots[t]));
                    acc[t][half] = _mm256_add_ps(acc[t][half], product);
                }
            }
        }
        store(&acc, sums);
    }

    #[target_feature(enable = "avx2,f16c")]
    fn widen(scales: &Scales) -> [__m256; 2] {
        let (halves, _) = scales.0.as_chunks::<8>();
        [0, 1].map(|half| {
            // SAFETY: half of the scales are 16 bytes, aligned to 16.
            _mm256_cvtph_ps(unsafe { _mm_load_si128(halves[half].as_ptr().cast()) })
        })
    }

    #[target_feature(enable = "avx2")]
    fn store<const T: usize>(acc: &[[__m256; 2]; T], sums: &mut [Sums; T]) {
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (sums, acc) in sums.as_chunks_mut::<8>().0.iter_mut().zip(acc) {
                // SAFETY: half of the sums are 32 writable bytes; no alignment is asked for.
                unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *acc) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
