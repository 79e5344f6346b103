use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, worker};

/// What ends a choice: one text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub enum Stop {
    /// One.
    One(String),
    /// Several; the one that is found first ends the choice.
    Many(Vec<String>),
}

/// What a stream reports beside its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamOptions {
    /// Send the usage in a last chunk that has no choices.
    #[serde(default)]
    pub include_usage: bool,
}

/// What a request asks of generation, checked: the common part of chat and text completions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// How tokens are drawn. Its seed is 0 if `seed` is `None`.
    pub sampling: worker::SamplingParams,
    /// When a choice ends; end-of-sequence tokens are the model's, and not filled in here.
    pub stop: worker::StopConditions,
    /// What the engine is to report.
    pub output: worker::OutputOptions,
    /// The client's seed; whoever dispatches draws one if there is none.
    pub seed: Option<u64>,
    /// How many choices, 1 to [`Self::MAX_CHOICES`].
    pub choices: u32,
    /// Texts that end a choice; none is empty.
    pub stop_strings: Vec<String>,
    /// Whether a stop string is part of the answer.
    pub include_stop_string: bool,
    /// Whether special tokens are left out of the text.
    pub skip_special_tokens: bool,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with its usage.
    pub include_usage: bool,
    /// Separates KV that must not be shared; empty for none.
    pub cache_salt: String,
    /// Lower goes first.
    pub priority: i32,
}

impl Generation {
    /// The most choices of one request.
    pub const MAX_CHOICES: u32 = 128;
    /// The most stop strings of one request.
    pub const MAX_STOP_STRINGS: usize = 16;
    /// The longest stop string, in bytes.
    pub const MAX_STOP_STRING_BYTES: usize = 1024;
    /// The most stop tokens of one request.
    pub const MAX_STOP_TOKENS: usize = 64;
    /// The most tokens whose logits a request can shift.
    pub const MAX_LOGIT_BIASES: usize = 1024;
    /// The most log probabilities reported beside the chosen token's.
    pub const MAX_TOP_LOGPROBS: u32 = 20;
    /// The longest cache salt, in bytes.
    pub const MAX_CACHE_SALT_BYTES: usize = 256;
    /// The most entries of a request's metadata.
    pub const MAX_METADATA: usize = 16;
    /// The longest key of the metadata, in characters.
    pub const MAX_METADATA_KEY_CHARS: usize = 64;
    /// The longest value of the metadata, in characters.
    pub const MAX_METADATA_VALUE_CHARS: usize = 512;
}

/// Adds to a request type the fields that chat and text completions share, and reads them.
macro_rules! generation_request {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name {
            /// The served model's name.
            pub model: String,
            $($(#[$field_meta])* pub $field: $type,)*
            /// How many choices to generate; 1 to 128, default 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub n: Option<u32>,
            /// The most tokens to generate for a choice; at least 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_tokens: Option<u32>,
            /// 0 (greedy) to 2; default 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub temperature: Option<f32>,
            /// Draw from the smallest set of tokens with this probability; above 0 to 1, default 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub top_p: Option<f32>,
            /// Draw from this many most probable tokens; -1 or 0 for all, the default.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub top_k: Option<i32>,
            /// Draw from tokens with at least this share of the best one's probability; 0 to 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_p: Option<f32>,
            /// Divides logits of tokens that occurred; above 0 to 10, default 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub repetition_penalty: Option<f32>,
            /// Subtracted from logits of tokens in the output; -2 to 2, default 0.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub presence_penalty: Option<f32>,
            /// The same for each occurrence; -2 to 2, default 0.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub frequency_penalty: Option<f32>,
            /// Equal seeds give equal answers; drawn at random if absent.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub seed: Option<i64>,
            /// Up to 16 texts that end a choice.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stop: Option<$crate::openai::Stop>,
            /// Up to 64 token ids that end a choice.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stop_token_ids: Option<Vec<u32>>,
            /// No end before this many tokens; default 0.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_tokens: Option<u32>,
            /// Go on after an end-of-sequence token.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ignore_eos: Option<bool>,
            /// Keep the stop string in the answer.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub include_stop_str_in_output: Option<bool>,
            /// Leave special tokens out of the text; default true.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub skip_special_tokens: Option<bool>,
            /// From token id (as text) to what is added to its logit; -100 to 100.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            /// Answer as server-sent events.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stream: Option<bool>,
            /// What a stream reports beside its text.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stream_options: Option<$crate::openai::StreamOptions>,
            /// Requests with different salts share no KV; up to 256 bytes.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub cache_salt: Option<String>,
            /// Lower goes first; default 0.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub priority: Option<i32>,
            /// The client's own notes: up to 16, with keys of 1 to 64 and values of up to 512
            /// characters. Checked, and not kept.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub metadata: Option<std::collections::BTreeMap<String, String>>,
            /// Whom the client acts for. Changes nothing.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub user: Option<String>,
            /// The fields that are none of the above, as they came.
            #[serde(flatten)]
            pub extra: serde_json::Map<String, serde_json::Value>,
        }

        impl $name {
            const FIELDS: &'static [&'static str] = &[
                "model", $(stringify!($field),)* "n", "max_tokens", "temperature", "top_p",
                "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
                "seed", "stop", "stop_token_ids", "min_tokens", "ignore_eos",
                "include_stop_str_in_output", "skip_special_tokens", "logit_bias", "stream",
                "stream_options", "cache_salt", "priority", "metadata", "user",
            ];

            /// Checks the shared fields; `max_tokens` and `top_logprobs` come from the fields that
            /// differ.
            fn shared_generation(
                &self,
                max_tokens: Option<u32>,
                top_logprobs: Option<u32>,
            ) -> Result<$crate::openai::Generation, $crate::Error> {
                $crate::openai::extra::refuse(&self.extra, Self::FIELDS)?;
                $crate::openai::generation::Fields {
                    n: self.n,
                    max_tokens,
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    seed: self.seed,
                    stop: self.stop.as_ref(),
                    stop_token_ids: self.stop_token_ids.as_deref(),
                    min_tokens: self.min_tokens,
                    ignore_eos: self.ignore_eos,
                    include_stop_str_in_output: self.include_stop_str_in_output,
                    skip_special_tokens: self.skip_special_tokens,
                    logit_bias: self.logit_bias.as_ref(),
                    stream: self.stream,
                    stream_options: self.stream_options.as_ref(),
                    cache_salt: self.cache_salt.as_deref(),
                    priority: self.priority,
                    metadata: self.metadata.as_ref(),
                    top_logprobs,
                }
                .check()
            }
        }
    };
}
pub(super) use generation_request;

/// The shared fields of a request, to be checked.
pub(super) struct Fields<'a> {
    pub(super) n: Option<u32>,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<i32>,
    pub(super) min_p: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<&'a Stop>,
    pub(super) stop_token_ids: Option<&'a [u32]>,
    pub(super) min_tokens: Option<u32>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) include_stop_str_in_output: Option<bool>,
    pub(super) skip_special_tokens: Option<bool>,
    pub(super) logit_bias: Option<&'a BTreeMap<String, f32>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<&'a StreamOptions>,
    pub(super) cache_salt: Option<&'a str>,
    pub(super) priority: Option<i32>,
    pub(super) metadata: Option<&'a BTreeMap<String, String>>,
    pub(super) top_logprobs: Option<u32>,
}

impl Fields<'_> {
    pub(super) fn check(self) -> Result<Generation, Error> {
        let choices = self.n.unwrap_or(1);
        if !(1..=Generation::MAX_CHOICES).contains(&choices) {
            let most = Generation::MAX_CHOICES;
            return Err(Error::invalid(
                "n",
                format!("must be 1 to {most}, not {choices}"),
            ));
        }
        if self.max_tokens == Some(0) {
            return Err(Error::invalid("max_tokens", "must be at least 1"));
        }
        if let (Some(min), Some(max)) = (self.min_tokens, self.max_tokens)
            && min > max
        {
            let message = format!("must be at most max_tokens, {max}, not {min}");
            return Err(Error::invalid("min_tokens", message));
        }
        if let Some(top) = self.top_logprobs
            && top > Generation::MAX_TOP_LOGPROBS
        {
            let most = Generation::MAX_TOP_LOGPROBS;
            return Err(Error::invalid(
                "top_logprobs",
                format!("must be 0 to {most}, not {top}"),
            ));
        }
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(Error::invalid(
                "stream_options",
                "is only allowed with stream",
            ));
        }
        let cache_salt = self.cache_salt.unwrap_or_default();
        if cache_salt.len() > Generation::MAX_CACHE_SALT_BYTES {
            let most = Generation::MAX_CACHE_SALT_BYTES;
            return Err(Error::invalid(
                "cache_salt",
                format!("must have at most {most} bytes"),
            ));
        }
        self.check_metadata()?;
        let seed = self.seed.map(i64::cast_unsigned);
        Ok(Generation {
            stop_strings: self.stop_strings()?,
            stop: worker::StopConditions {
                max_tokens: self.max_tokens,
                min_tokens: self.min_tokens.unwrap_or(0),
                stop_token_ids: self.stop_token_ids()?,
                eos_token_ids: Vec::new(),
                ignore_eos: self.ignore_eos.unwrap_or(false),
            },
            output: worker::OutputOptions {
                logprobs: self.top_logprobs,
            },
            sampling: self.sampling(seed)?,
            seed,
            choices,
            include_stop_string: self.include_stop_str_in_output.unwrap_or(false),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(true),
            stream,
            include_usage: self
                .stream_options
                .is_some_and(|options| options.include_usage),
            cache_salt: cache_salt.to_owned(),
            priority: self.priority.unwrap_or(0),
        })
    }

    fn check_metadata(&self) -> Result<(), Error> {
        let invalid = |message| Err(Error::invalid("metadata", message));
        let Some(metadata) = self.metadata else {
            return Ok(());
        };
        let (most, longest_key, longest_value) = (
            Generation::MAX_METADATA,
            Generation::MAX_METADATA_KEY_CHARS,
            Generation::MAX_METADATA_VALUE_CHARS,
        );
        if metadata.len() > most {
            return invalid(format!("has more than {most} entries"));
        }
        let key_fits = |key: &String| (1..=longest_key).contains(&key.chars().count());
        if !metadata.keys().all(key_fits) {
            return invalid(format!("a key must have 1 to {longest_key} characters"));
        }
        match (metadata.values()).all(|value| value.chars().count() <= longest_value) {
            true => Ok(()),
            false => invalid(format!(
                "a value must have at most {longest_value} characters"
            )),
        }
    }

    fn sampling(&self, seed: Option<u64>) -> Result<worker::SamplingParams, Error> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        above_zero("top_p", self.top_p, 1.0)?;
        above_zero("repetition_penalty", self.repetition_penalty, 10.0)?;
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            top_k => u32::try_from(top_k)
                .map_err(|_| Error::invalid("top_k", format!("must be -1 or more, not {top_k}")))?,
        };
        Ok(worker::SamplingParams {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k,
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: seed.unwrap_or(0),
            logit_bias: self.logit_bias()?,
        })
    }

    fn logit_bias(&self) -> Result<Vec<worker::LogitBias>, Error> {
        let Some(biases) = self.logit_bias else {
            return Ok(Vec::new());
        };
        if biases.len() > Generation::MAX_LOGIT_BIASES {
            let most = Generation::MAX_LOGIT_BIASES;
            return Err(Error::invalid(
                "logit_bias",
                format!("has more than {most} tokens"),
            ));
        }
        let mut result = biases
            .iter()
            .map(|(token, bias)| {
                let token_id = token
                    .parse()
                    .map_err(|_| Error::invalid("logit_bias", "a key is not a token id"))?;
                within("logit_bias", Some(*bias), -100.0, 100.0)?;
                Ok(worker::LogitBias {
                    token_id,
                    bias: *bias,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        // "7" and "07" are one token.
        result.sort_by_key(|bias| bias.token_id);
        match result
            .windows(2)
            .any(|pair| pair[0].token_id == pair[1].token_id)
        {
            true => Err(Error::invalid("logit_bias", "names a token twice")),
            false => Ok(result),
        }
    }

    fn stop_strings(&self) -> Result<Vec<String>, Error> {
        let strings = match self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text.clone()],
            Some(Stop::Many(texts)) => texts.clone(),
        };
        let (most, longest) = (
            Generation::MAX_STOP_STRINGS,
            Generation::MAX_STOP_STRING_BYTES,
        );
        if strings.len() > most {
            return Err(Error::invalid(
                "stop",
                format!("has more than {most} strings"),
            ));
        }
        match strings
            .iter()
            .all(|text| (1..=longest).contains(&text.len()))
        {
            true => Ok(strings),
            false => Err(Error::invalid(
                "stop",
                format!("a string must have 1 to {longest} bytes"),
            )),
        }
    }

    fn stop_token_ids(&self) -> Result<Vec<u32>, Error> {
        let tokens = self.stop_token_ids.unwrap_or_default();
        let most = Generation::MAX_STOP_TOKENS;
        match tokens.len() <= most {
            true => Ok(tokens.to_vec()),
            false => Err(Error::invalid(
                "stop_token_ids",
                format!("has more than {most} tokens"),
            )),
        }
    }
}

fn within(name: &str, value: Option<f32>, low: f32, high: f32) -> Result<(), Error> {
    match value {
        Some(value) if !(low..=high).contains(&value) => Err(Error::invalid(
            name,
            format!("must be {low} to {high}, not {value}"),
        )),
        _ => Ok(()),
    }
}

fn above_zero(name: &str, value: Option<f32>, high: f32) -> Result<(), Error> {
    match value {
        Some(value) if !(value > 0.0 && value <= high) => {
            let message = format!("must be above 0 and at most {high}, not {value}");
            Err(Error::invalid(name, message))
        }
        _ => Ok(()),
    }
}
