#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod detokenizer;
mod error;
mod stop_strings;
mod template;
mod text_decoder;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use error::{TemplateError, TokenizerError};
pub use stop_strings::StopStrings;
pub use template::{ChatTemplate, TemplateInput, TemplateLimits};
pub use text_decoder::{TextDecoder, TextDelta, TextOptions};
pub use tokenizer::{GgufVocabulary, Tokenizer};
