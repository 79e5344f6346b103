use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Iteration};

/// The coefficients of a [`Polynomial`]: finite, at least 0, and 0 by default, in files too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coefficients {
    /// Seconds that every iteration takes: launching it, and reading the weights once.
    pub fixed_seconds: f64,
    /// Seconds for each prompt token: the layers' arithmetic.
    pub prefill_token_seconds: f64,
    /// Seconds for each token that a prompt token attends to: attention, which makes the prefill of
    /// a long prompt quadratic.
    pub prefill_context_token_seconds: f64,
    /// Seconds for each sequence that decodes.
    pub decode_sequence_seconds: f64,
    /// Seconds for each token of context that decoding sequences read from the KV cache.
    pub decode_context_token_seconds: f64,
}

/// Iteration time as a weighted sum of the work:
///
/// `fixed + a * prefill_tokens + b * prefill_context_tokens + c * decode_sequences
/// + d * decode_context_tokens`
///
/// It is quadratic in a prompt's length, and linear in the batch and in the context of decodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Coefficients", into = "Coefficients")]
pub struct Polynomial {
    coefficients: Coefficients,
}

impl Polynomial {
    /// Takes coefficients.
    ///
    /// # Errors
    ///
    /// [`Error::Seconds`] for one that is negative, infinite or not a number.
    pub fn new(coefficients: Coefficients) -> Result<Self, Error> {
        let Coefficients {
            fixed_seconds,
            prefill_token_seconds,
            prefill_context_token_seconds,
            decode_sequence_seconds,
            decode_context_token_seconds,
        } = coefficients;
        for (field, value) in [
            ("fixed_seconds", fixed_seconds),
            ("prefill_token_seconds", prefill_token_seconds),
            (
                "prefill_context_token_seconds",
                prefill_context_token_seconds,
            ),
            ("decode_sequence_seconds", decode_sequence_seconds),
            ("decode_context_token_seconds", decode_context_token_seconds),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Seconds { field, value });
            }
        }
        Ok(Self { coefficients })
    }

    /// A made-up accelerator of middle size with a model of some 8 billion parameters; no hardware
    /// was measured. One sequence decodes at 6 ms a token; prompts of usual length are computed at
    /// 10,000 to 17,000 tokens a second; 64 sequences over 2,000 tokens each get a token every 25 ms.
    pub const MID_SIZE: Self = Self {
        coefficients: Coefficients {
            fixed_seconds: 5.7e-3,
            prefill_token_seconds: 56e-6,
            prefill_context_token_seconds: 1e-9,
            decode_sequence_seconds: 40e-6,
            decode_context_token_seconds: 130e-9,
        },
    };

    /// The coefficients.
    pub const fn coefficients(&self) -> &Coefficients {
        &self.coefficients
    }

    /// How long an iteration takes; an empty one, no time at all.
    pub fn iteration_time(&self, iteration: &Iteration) -> Duration {
        if iteration.is_empty() {
            return Duration::ZERO;
        }
        let by = &self.coefficients;
        crate::perf_model::duration(
            by.fixed_seconds
                + by.prefill_token_seconds * iteration.prefill_tokens as f64
                + by.prefill_context_token_seconds * iteration.prefill_context_tokens as f64
                + by.decode_sequence_seconds * iteration.decode_sequences as f64
                + by.decode_context_token_seconds * iteration.decode_context_tokens as f64,
        )
    }

    /// The same with every time divided by `speed`, which is a finite number above 0.
    pub(crate) fn at_speed(self, speed: f64) -> Self {
        let by = self.coefficients;
        Self {
            coefficients: Coefficients {
                fixed_seconds: by.fixed_seconds / speed,
                prefill_token_seconds: by.prefill_token_seconds / speed,
                prefill_context_token_seconds: by.prefill_context_token_seconds / speed,
                decode_sequence_seconds: by.decode_sequence_seconds / speed,
                decode_context_token_seconds: by.decode_context_token_seconds / speed,
            },
        }
    }
}

impl TryFrom<Coefficients> for Polynomial {
    type Error = Error;

    fn try_from(coefficients: Coefficients) -> Result<Self, Error> {
        Self::new(coefficients)
    }
}

impl From<Polynomial> for Coefficients {
    fn from(polynomial: Polynomial) -> Self {
        polynomial.coefficients
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_its_docs_say() {
        let seconds = |work: Iteration| Polynomial::MID_SIZE.iteration_time(&work).as_secs_f64();
        assert!((5.5e-3..6.5e-3).contains(&seconds(Iteration::decode(1, 1_000))));
        assert!((24e-3..26e-3).contains(&seconds(Iteration::decode(64, 64 * 2_000))));
        for tokens in [512, 2_048, 8_192, 32_768] {
            let rate = tokens as f64 / seconds(Iteration::prefill(0..tokens));
            assert!((10_000.0..17_000.0).contains(&rate), "{tokens}: {rate}");
        }
    }

    #[test]
    fn each_coefficient_counts_its_own() {
        let polynomial = Polynomial::new(Coefficients {
            fixed_seconds: 1.0,
            prefill_token_seconds: 10.0,
            prefill_context_token_seconds: 100.0,
            decode_sequence_seconds: 1_000.0,
            decode_context_token_seconds: 10_000.0,
        });
        let work = Iteration {
            prefill_tokens: 2,
            prefill_context_tokens: 3,
            decode_sequences: 4,
            decode_context_tokens: 5,
        };
        let time = polynomial.unwrap().iteration_time(&work);
        assert_eq!(time, Duration::from_secs(1 + 20 + 300 + 4_000 + 50_000));
    }

    #[test]
    fn wrong_coefficients_are_named() {
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            let error = Polynomial::new(Coefficients {
                decode_sequence_seconds: value,
                ..Coefficients::default()
            });
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("decode_sequence_seconds"), "{error}");
        }
    }

    #[test]
    fn what_is_endless_is_the_longest_duration() {
        let polynomial = Polynomial::new(Coefficients {
            prefill_token_seconds: f64::MAX,
            ..Coefficients::default()
        });
        let time = polynomial
            .unwrap()
            .iteration_time(&Iteration::prefill(0..100));
        assert_eq!(time, Duration::MAX);
    }
}
