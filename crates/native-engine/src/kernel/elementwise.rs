//! Normalisation and activation functions, row by row.

use super::quantise::QuantisedRows;
use super::{Kernel, LANES, Pool, vectorised};

/// Adds 16 lanes as a tree: lane `i` and `i + 8`, then 4, 2 and 1 apart.
#[inline(always)]
pub(super) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `e^x` to within 2 units in the last place; 0 below -87, `e^88` above 88, NaN of NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then the polynomial of degree 6 of Cephes' `expf`
/// and a shift of the exponent. Plain multiplications and additions only, so that each lane has
/// the same bits on every CPU.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few bits, so that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let value = (p * (r * r) + r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
    let scaled = f32::from_bits(value.to_bits().wrapping_add(exponent));
    let value = if x < -87.0 { 0.0 } else { scaled };
    if x.is_nan() { x } else { value }
}

/// Normalises each row of `x` by its root mean square, multiplies it with `weights`, and
/// quantises the result.
pub(crate) fn rms_norm(
    kernel: Kernel,
    pool: &mut Pool,
    x: &[f32],
    weights: &[f32],
    epsilon: f32,
    out: &mut QuantisedRows,
) {
    let columns = weights.len();
    let rows = x.len() / columns;
    out.reset(rows, columns);
    if rows == 0 {
        return;
    }
    let out = out.writer();
    pool.for_rows(rows, &|range| {
        let mut normed = vec![0.0; columns];
        for row in range {
            let x = &x[row * columns..][..columns];
            rms_norm_row(kernel, x, weights, epsilon, &mut normed);
            // SAFETY: each row belongs to one task.
            unsafe { out.write(kernel, row, &normed) };
        }
    });
}

vectorised! {
    fn rms_norm_row(x: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] += x[i] * x[i];
        }
    }
    let inverse = 1.0 / (sum_lanes(lanes) / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
        *out = (x * inverse) * weight;
    }
}

/// For rows that hold gates and then as many values: quantises `gate / (1 + e^-gate) * value`.
pub(crate) fn silu_product(
    kernel: Kernel,
    pool: &mut Pool,
    gates_and_values: &[f32],
    columns: usize,
    out: &mut QuantisedRows,
) {
    let rows = gates_and_values.len() / (2 * columns);
    out.reset(rows, columns);
    if rows == 0 {
        return;
    }
    let out = out.writer();
    pool.for_rows(rows, &|range| {
        let mut product = vec![0.0; columns];
        for row in range {
            let (gates, values) =
                gates_and_values[row * 2 * columns..][..2 * columns].split_at(columns);
            silu_product_row(kernel, gates, values, &mut product);
            // SAFETY: each row belongs to one task.
            unsafe { out.write(kernel, row, &product) };
        }
    });
}

vectorised! {
    fn silu_product_row(gates: &[f32], values: &[f32], out: &mut [f32]) = silu_product_body
}

#[inline(always)]
fn silu_product_body(gates: &[f32], values: &[f32], out: &mut [f32]) {
    for ((out, gate), value) in out.iter_mut().zip(gates).zip(values) {
        *out = (gate / (1.0 + exp(-gate))) * value;
    }
}

/// Quantises each row of `x`, which has `columns` columns.
pub(crate) fn quantise(
    kernel: Kernel,
    pool: &mut Pool,
    x: &[f32],
    columns: usize,
    out: &mut QuantisedRows,
) {
    let rows = x.len() / columns;
    out.reset(rows, columns);
    if rows == 0 {
        return;
    }
    let out = out.writer();
    pool.for_rows(rows, &|range| {
        for row in range {
            // SAFETY: each row belongs to one task.
            unsafe { out.write(kernel, row, &x[row * columns..][..columns]) };
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_accurate_over_its_range() {
        let mut worst = 0.0f64;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert!(exp(f32::NAN).is_nan());
    }

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7_919) % 2_003) as f32 / 200.0 - 5.0)
            .collect()
    }

    #[test]
    fn kernels_agree_on_rows_of_any_length() {
        for columns in [32, 96, 576] {
            let (x, weights) = (values(columns), values(columns + 9)[9..].to_vec());
            let mut expected = [vec![0.0; columns], vec![0.0; columns]];
            rms_norm_body(&x, &weights, 1e-5, &mut expected[0]);
            silu_product_body(&x, &weights, &mut expected[1]);
            for kernel in Kernel::available() {
                let mut got = [vec![0.0; columns], vec![0.0; columns]];
                rms_norm_row(kernel, &x, &weights, 1e-5, &mut got[0]);
                silu_product_row(kernel, &x, &weights, &mut got[1]);
                for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                    assert_eq!(got.to_bits(), expected.to_bits(), "{kernel}");
                }
            }
        }
    }

    #[test]
    fn norms_and_gates_are_close_to_exact_ones() {
        let (x, weights) = (values(64), values(128)[64..].to_vec());
        let mut got = vec![0.0; 64];
        rms_norm_body(&x, &weights, 1e-5, &mut got);
        let square: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 64.0;
        for i in 0..64 {
            let exact = f64::from(x[i]) / (square + 1e-5).sqrt() * f64::from(weights[i]);
            assert!((f64::from(got[i]) - exact).abs() < 1e-5);
        }
        silu_product_body(&x, &weights, &mut got);
        for i in 0..64 {
            let gate = f64::from(x[i]);
            let exact = gate / (1.0 + (-gate).exp()) * f64::from(weights[i]);
            assert!((f64::from(got[i]) - exact).abs() < 1e-5);
        }
    }
}
