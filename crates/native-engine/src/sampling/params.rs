use forebay_protocols::{Error, worker};
use forebay_tokens::TokenId;

/// The most alternatives beside each token that a request may ask for, as in the OpenAI API.
pub(crate) const MAX_LOGPROBS: u32 = 20;

/// How tokens are drawn: the worker protocol's message with defaults filled in and ranges checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SamplingParams {
    /// 0 is greedy.
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    /// `usize::MAX` for all.
    pub(crate) top_k: usize,
    pub(crate) min_p: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) seed: u64,
    /// Ascending by token.
    pub(crate) logit_bias: Vec<(TokenId, f32)>,
}

impl SamplingParams {
    /// Checks a message for a vocabulary of `vocabulary` tokens.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the field.
    pub(crate) fn check(
        message: &worker::SamplingParams,
        vocabulary: usize,
    ) -> Result<Self, Error> {
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
            logit_bias: check_bias(&message.logit_bias, vocabulary)?,
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
    pub(crate) fn has_penalties(&self) -> bool {
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
    use forebay_protocols::worker::LogitBias;

    use super::*;

    #[test]
    fn absent_fields_are_the_defaults() {
        let params = SamplingParams::check(&worker::SamplingParams::default(), 10).unwrap();
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
            let error = SamplingParams::check(&message, 10).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field), "{message:?}");
        }
        assert!(SamplingParams::check(&bias(&[(9, -100.0), (0, 100.0)]), 10).is_ok());
    }
}
