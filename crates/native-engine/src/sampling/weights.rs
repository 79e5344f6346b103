//! Probabilities as integers.
//!
//! A token's weight is `e^((logit - greatest) / temperature)`, rounded down to a multiple of
//! `2^-40`: the most probable token weighs `2^40`, and one that is less than `2^-40` as probable
//! weighs nothing and cannot be drawn. Integers add up to the same sum in any order, and a draw
//! from them is exact.

use crate::kernel::exp;

/// The weight of the most probable token.
pub(super) const ONE: u64 = 1 << FRACTION_BITS;

const FRACTION_BITS: u32 = 40;
const MANTISSA_BITS: u32 = 23;
const EXPONENT_BIAS: u32 = 127;

/// `value`, from 0 to 1, in units of `2^-40`, rounded down.
#[inline(always)]
pub(super) fn to_fixed(value: f32) -> u64 {
    let bits = value.to_bits();
    let mantissa = u64::from(bits & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS);
    let shift = EXPONENT_BIAS - (bits >> MANTISSA_BITS);
    // From 2^-41 down, and so for 0, every bit is shifted out.
    (mantissa << (FRACTION_BITS - MANTISSA_BITS)) >> shift.min(63)
}

/// Replaces each logit by its distance from `greatest` in units of the temperature, at most 0,
/// and sets the weights. Gives their sum.
pub(super) fn weigh(
    logits: &mut [f32],
    greatest: f32,
    temperature: f32,
    weights: &mut Vec<u64>,
) -> u64 {
    let mut total = 0;
    weights.resize(logits.len(), 0);
    let (chunks, rest) = logits.as_chunks_mut::<LANES>();
    let (weight_chunks, weight_rest) = weights.as_chunks_mut::<LANES>();
    for (logits, weights) in chunks.iter_mut().zip(weight_chunks) {
        // Two loops, so that the first one is vectorised.
        let mut values = [0.0; LANES];
        for i in 0..LANES {
            logits[i] = (logits[i] - greatest) / temperature;
            values[i] = exp(logits[i]);
        }
        for i in 0..LANES {
            weights[i] = to_fixed(values[i]);
            total += weights[i];
        }
    }
    for (logit, weight) in rest.iter_mut().zip(weight_rest) {
        *logit = (*logit - greatest) / temperature;
        *weight = to_fixed(exp(*logit));
        total += *weight;
    }
    total
}

/// The sum of all weights at temperature 1.
pub(super) fn total_weight(logits: &[f32], greatest: f32) -> u64 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let chunks = chunks.iter().map(|logits| {
        let mut values = [0.0; LANES];
        for i in 0..LANES {
            values[i] = exp(logits[i] - greatest);
        }
        values.into_iter().map(to_fixed).sum::<u64>()
    });
    let rest = rest.iter().map(|logit| to_fixed(exp(logit - greatest)));
    chunks.chain(rest).sum()
}

const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_is_the_value_rounded_down() {
        assert_eq!(to_fixed(1.0), ONE);
        assert_eq!(to_fixed(0.5), ONE / 2);
        assert_eq!(to_fixed(0.0), 0);
        assert_eq!(to_fixed(f32::MIN_POSITIVE), 0);
        let mut value = 1.0_f32;
        for step in 0..2_000 {
            let exact = (f64::from(value) * ONE as f64).floor() as u64;
            assert_eq!(to_fixed(value), exact, "step {step}: {value:e}");
            value *= 0.983_1;
        }
    }

    #[test]
    fn weights_follow_the_temperature_and_no_logit_breaks_them() {
        let logits = [1.0, 0.0, -1.0, f32::NEG_INFINITY, f32::MIN, 1.0];
        for temperature in [f32::MIN_POSITIVE / 4.0, 1e-3, 0.5, 1.0, 7.0, f32::MAX] {
            let (mut distances, mut weights) = (logits, Vec::new());
            let total = weigh(&mut distances, 1.0, temperature, &mut weights);
            assert_eq!(total, weights.iter().sum::<u64>());
            assert_eq!((weights[0], weights[5]), (ONE, ONE));
            assert_eq!(weights[3], 0);
            let expected = (-1.0 / f64::from(temperature)).exp() * ONE as f64;
            let error = (weights[1] as f64 - expected).abs();
            assert!(error <= 1.0 + expected * 3e-7, "{temperature}: {error}");
        }
        let total = weigh(&mut logits.clone(), 1.0, 1.0, &mut Vec::new());
        assert_eq!(total_weight(&logits, 1.0), total);
    }
}
