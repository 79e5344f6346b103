use forebay_tokens::TokenId;

use crate::{Error, worker};

/// How tokens are drawn: the worker protocol's message with defaults filled in and ranges checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplingRules {
    /// At least 0; 0 is greedy.
    pub temperature: f32,
    /// The smallest set of tokens with this probability; above 0, at most 1.
    pub top_p: f32,
    /// The most probable tokens only; `usize::MAX` for all.
    pub top_k: usize,
    /// Only tokens with this share of the most probable one's probability; 0 to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; above 0.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token in the output; -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from the logit for each occurrence in the output; -2 to 2.
    pub frequency_penalty: f32,
    /// What every random draw depends on.
    pub seed: u64,
    /// Added to logits, -100 to 100; ascending by token.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl SamplingRules {
    /// Checks a message for a vocabulary of `vocabulary_size` tokens.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the field.
    pub fn check(message: &worker::SamplingParams, vocabulary_size: usize) -> Result<Self, Error> {
        let params = Self {
            temperature: message.temperature.unwrap_or(1.0),
            top_p: message.top_p.unwrap_or(1.0),
            top_k: match message.top_k {
                0 => usize::MAX,
                k => k as usize,
            },
            min_p: message.min_p,
            repetition_penalty: message.repetition_penalty.unwrap_or(1.0),
            presence_penalty: message.presence_penalty,
            frequency_penalty: message.frequency_penalty,
            seed: message.seed,
            logit_bias: check_bias(&message.logit_bias, vocabulary_size)?,
        };
        let finite_above =
            |value: f32, open: bool| value.is_finite() && (value > 0.0 || value == 0.0 && !open);
        let penalty = |value| (-2.0..=2.0).contains(&value);
        let checks = [
            (
                "sampling.temperature",
                finite_above(params.temperature, false),
                "must be a number of at least 0",
            ),
            (
                "sampling.top_p",
                params.top_p > 0.0 && params.top_p <= 1.0,
                "must be above 0 and at most 1",
            ),
            (
                "sampling.min_p",
                (0.0..=1.0).contains(&params.min_p),
                "must be from 0 to 1",
            ),
            (
                "sampling.repetition_penalty",
                finite_above(params.repetition_penalty, true),
                "must be a number above 0",
            ),
            (
                "sampling.presence_penalty",
                penalty(params.presence_penalty),
                "must be from -2 to 2",
            ),
            (
                "sampling.frequency_penalty",
                penalty(params.frequency_penalty),
                "must be from -2 to 2",
            ),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, rule)) => Err(Error::invalid(field, rule)),
            None => Ok(params),
        }
    }

    /// Whether the next token depends on which tokens were there before.
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }
}

fn check_bias(
    entries: &[worker::LogitBias],
    vocabulary: usize,
) -> Result<Vec<(TokenId, f32)>, Error> {
    let invalid = |message: String| Err(Error::invalid("sampling.logit_bias", message));
    let mut bias: Vec<_> = entries.iter().map(|e| (e.token_id, e.bias)).collect();
    bias.sort_unstable_by_key(|(token, _)| *token);
    for (token, bias) in &bias {
        if *token as usize >= vocabulary {
            return invalid(format!(
                "token {token} is not in the vocabulary of {vocabulary}"
            ));
        }
        if !(-100.0..=100.0).contains(bias) {
            return invalid(format!(
                "the bias of token {token} must be from -100 to 100"
            ));
        }
    }
    match bias.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => invalid(format!("token {} is there twice", pair[0].0)),
        None => Ok(bias),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::worker::LogitBias;

    fn check(message: &worker::SamplingParams) -> Result<SamplingRules, Error> {
        SamplingRules::check(message, 10)
    }

    #[test]
    fn absent_fields_are_the_defaults() {
        let params = check(&worker::SamplingParams::default()).unwrap();
        assert_eq!(params.temperature, 1.0);
        assert_eq!(
            (params.top_p, params.top_k, params.min_p),
            (1.0, usize::MAX, 0.0)
        );
        assert!(!params.has_penalties());
    }

    #[test]
    fn every_field_has_its_range() {
        let base = worker::SamplingParams::default;
        let bias = |entries: &[(u32, f32)]| worker::SamplingParams {
            logit_bias: entries
                .iter()
                .map(|(token_id, bias)| LogitBias {
                    token_id: *token_id,
                    bias: *bias,
                })
                .collect(),
            ..base()
        };
        let nan = f32::NAN;
        let mut cases = vec![
            (bias(&[(10, 1.0)]), "sampling.logit_bias"),
            (bias(&[(1, 1.0), (2, 0.0), (1, 1.0)]), "sampling.logit_bias"),
            (bias(&[(1, 100.5)]), "sampling.logit_bias"),
            (bias(&[(1, nan)]), "sampling.logit_bias"),
        ];
        for value in [nan, f32::INFINITY, -0.1] {
            let temperature = worker::SamplingParams {
                temperature: Some(value),
                ..base()
            };
            let repetition = worker::SamplingParams {
                repetition_penalty: Some(value),
                ..base()
            };
            cases.push((temperature, "sampling.temperature"));
            cases.push((repetition, "sampling.repetition_penalty"));
        }
        for value in [nan, 0.0, 1.1] {
            let top_p = worker::SamplingParams {
                top_p: Some(value),
                ..base()
            };
            cases.push((top_p, "sampling.top_p"));
        }
        for value in [nan, -0.1, 1.1] {
            cases.push((
                worker::SamplingParams {
                    min_p: value,
                    ..base()
                },
                "sampling.min_p",
            ));
        }
        for value in [nan, -2.1, 2.1] {
            let presence = worker::SamplingParams {
                presence_penalty: value,
                ..base()
            };
            let frequency = worker::SamplingParams {
                frequency_penalty: value,
                ..base()
            };
            cases.push((presence, "sampling.presence_penalty"));
            cases.push((frequency, "sampling.frequency_penalty"));
        }
        for (message, field) in cases {
            let error = check(&message).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field), "{message:?}");
        }
        assert!(check(&bias(&[(9, -100.0), (0, 100.0)])).is_ok());
    }
}
