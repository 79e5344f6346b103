//! The OpenAI API's types, as its clients send and read them.
//!
//! Requests keep the fields that they do not know (in `extra`), so that a proxy can forward them
//! and a frontend that renders and tokenizes itself can refuse them by name
//! ([`ChatCompletionRequest::generation`], [`CompletionRequest::generation`]). Beside OpenAI's own
//! fields, the sampling extensions that vLLM and SGLang share are understood.

mod chat;
mod completion;
mod error;
mod extra;
mod generation;
mod model;
mod parse;
mod usage;

pub use chat::{
    AssistantMessage, ChatChoice, ChatChunkChoice, ChatCompletion, ChatCompletionChunk,
    ChatCompletionRequest, ChatDelta, ChatLogprobs, ChatMessage, ContentPart, MessageContent,
    TokenLogprob, TopLogprob,
};
pub use completion::{Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt};
pub use error::{ErrorBody, ErrorEnvelope};
pub use generation::{Generation, Stop, StreamOptions};
pub use model::{Model, ModelList, ModelVersion};
pub use parse::{MAX_BODY_VALUES, has_more_values, parse};
pub use usage::{CompletionTokensDetails, FinishReason, PromptTokensDetails, StopReason, Usage};
