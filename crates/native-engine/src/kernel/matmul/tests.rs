#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use proptest::prelude::*;

use super::*;
use crate::kernel::quantise;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Deterministic numbers in -1..1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2_147_483_648.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn packed(weights: &[f32], columns: usize) -> PackedMatrix {
    let mut matrix = PackedMatrix::zeros(weights.len() / columns, columns);
    for (row, weights) in weights.chunks_exact(columns).enumerate() {
        matrix.set_row(row, weights).unwrap();
    }
    matrix
}

fn product(kernel: Kernel, threads: usize, x: &[f32], weights: &PackedMatrix) -> Vec<f32> {
    let mut pool = pool(threads);
    let mut quantised = QuantisedRows::default();
    quantise(kernel, &mut pool, x, weights.columns(), &mut quantised);
    let mut out = vec![f32::NAN; x.len() / weights.columns() * weights.rows()];
    matmul(
        kernel,
        &mut pool,
        &quantised,
        weights,
        Output::Store,
        &mut out,
    );
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every kernel, any number of threads, and each row alone: the same bits.
    #[test]
    fn a_row_has_the_same_bits_in_any_company(
        batch in 1usize..20,
        rows in 1usize..70,
        blocks in 1usize..6,
        threads in 1usize..4,
        seed: u32,
    ) {
        let columns = blocks * 32;
        let weights = packed(&numbers(rows * columns, seed), columns);
        let x = numbers(batch * columns, seed ^ 0x5555);
        let expected: Vec<f32> = x
            .chunks_exact(columns)
            .flat_map(|x| product(Kernel::available()[0], 1, x, &weights))
            .collect();
        for kernel in Kernel::available() {
            let got = product(kernel, threads, &x, &weights);
            prop_assert_eq!(bits(&got), bits(&expected), "{}", kernel);
        }
    }
}

#[test]
fn extreme_codes_do_not_saturate() {
    // All of magnitude 127, in all combinations of signs: the largest sums of products.
    let columns = 64;
    let sign = |bit: usize| if bit == 0 { 1.0f32 } else { -1.0 };
    let weights: Vec<f32> = (0..17 * columns)
        .map(|i| sign((i / columns) >> (i % 4) & 1))
        .collect();
    let x: Vec<f32> = (0..16 * columns)
        .map(|i| sign((i / columns) >> (i % 4) & 1))
        .collect();
    let weights_packed = packed(&weights, columns);
    for kernel in Kernel::available() {
        let got = product(kernel, 1, &x, &weights_packed);
        for (i, got) in got.iter().enumerate() {
            let (x, w) = (&x[i / 17 * columns..], &weights[i % 17 * columns..]);
            let exact: f32 = (0..columns).map(|c| x[c] * w[c]).sum();
            assert!(
                (got - exact).abs() <= 1e-3 * columns as f32,
                "{kernel}: {got} for {exact}"
            );
        }
    }
}

#[test]
fn products_are_close_to_exact_ones_and_to_candle() {
    let (batch, rows, columns) = (3, 50, 256);
    let weights = numbers(rows * columns, 1);
    let x = numbers(batch * columns, 2);
    let got = product(Kernel::best(), 2, &x, &packed(&weights, columns));

    let tensor = Tensor::from_slice(&weights, (rows, columns), &Device::Cpu).unwrap();
    let quantised = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
    let x_tensor = Tensor::from_slice(&x, (batch, columns), &Device::Cpu).unwrap();
    let candle = QMatMul::from_qtensor(quantised)
        .unwrap()
        .forward(&x_tensor)
        .unwrap();
    let candle = candle.flatten_all().unwrap().to_vec1::<f32>().unwrap();

    for (i, got) in got.iter().enumerate() {
        let (x, w) = (
            &x[i / rows * columns..][..columns],
            &weights[i % rows * columns..],
        );
        let exact: f64 = x
            .iter()
            .zip(w)
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum();
        // Rounding to 1/254 of the largest: 256 independent errors of some 1/440 each.
        assert!((f64::from(*got) - exact).abs() < 0.15, "{got} for {exact}");
        assert!(
            (got - candle[i]).abs() < 0.05,
            "{got} for candle's {}",
            candle[i]
        );
    }
}

#[test]
fn adding_keeps_what_was_there() {
    let weights = packed(&numbers(20 * 32, 3), 32);
    let x = numbers(2 * 32, 4);
    let product = product(Kernel::best(), 1, &x, &weights);
    let mut pool = pool(2);
    let mut quantised = QuantisedRows::default();
    quantise(Kernel::best(), &mut pool, &x, 32, &mut quantised);
    let before = numbers(40, 5);
    let mut sum = before.clone();
    matmul(
        Kernel::best(),
        &mut pool,
        &quantised,
        &weights,
        Output::Add,
        &mut sum,
    );
    let expected: Vec<f32> = before.iter().zip(&product).map(|(a, b)| a + b).collect();
    assert_eq!(bits(&sum), bits(&expected));
}
