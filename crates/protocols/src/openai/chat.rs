use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::generation::{Generation, generation_request};
use super::{FinishReason, StopReason, Usage};
use crate::Error;

generation_request! {
    /// The body of `POST /v1/chat/completions`.
    pub struct ChatCompletionRequest {
        /// The conversation so far; at least one message.
        pub messages: Vec<ChatMessage>,
        /// The same as `max_tokens`, by its newer name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_completion_tokens: Option<u32>,
        /// Report the log probability of each token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub logprobs: Option<bool>,
        /// Report this many of the most probable tokens as well; 0 to 20, needs `logprobs`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub top_logprobs: Option<u32>,
        /// Ask the template for the head of an answer; default true.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub add_generation_prompt: Option<bool>,
        /// More variables for the chat template; up to 4096 values at all levels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub chat_template_kwargs: Option<Map<String, Value>>,
    }
}

impl ChatCompletionRequest {
    /// The most messages of a conversation, and the most parts of all its messages together.
    pub const MAX_MESSAGES: usize = 16_384;
    /// The most values of `chat_template_kwargs`: elements of arrays and fields of objects at every
    /// level.
    pub const MAX_TEMPLATE_VALUES: usize = 4096;

    /// What the request asks of generation, checked.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, unknown, or understood and not supported, by name.
    pub fn generation(&self) -> Result<Generation, Error> {
        let max_tokens = match (self.max_completion_tokens, self.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message = format!("contradicts max_tokens: {new} and {old}");
                return Err(Error::invalid("max_completion_tokens", message));
            }
            (Some(0), _) => {
                return Err(Error::invalid(
                    "max_completion_tokens",
                    "must be at least 1",
                ));
            }
            (new, old) => new.or(old),
        };
        let top_logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Some(top.unwrap_or(0)),
            (false, None | Some(0)) => None,
            (false, Some(_)) => {
                return Err(Error::invalid(
                    "top_logprobs",
                    "is only allowed with logprobs",
                ));
            }
        };
        if self.messages.is_empty() {
            return Err(Error::invalid("messages", "must have at least one message"));
        }
        let parts = self.messages.iter().map(ChatMessage::parts);
        if self.messages.len().max(parts.sum()) > Self::MAX_MESSAGES {
            let most = Self::MAX_MESSAGES;
            let message = format!("has more than {most} messages or parts of messages");
            return Err(Error::invalid("messages", message));
        }
        for (index, message) in self.messages.iter().enumerate() {
            message.check(index)?;
        }
        let variables = self.chat_template_kwargs.iter().flat_map(Map::values);
        if variables.map(values).sum::<usize>() > Self::MAX_TEMPLATE_VALUES {
            let most = Self::MAX_TEMPLATE_VALUES;
            let message = format!("has more than {most} values");
            return Err(Error::invalid("chat_template_kwargs", message));
        }
        self.shared_generation(max_tokens, top_logprobs)
    }
}

/// How many values this is, with those in it. JSON that was read has few levels.
fn values(value: &Value) -> usize {
    let within: usize = match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    };
    1 + within
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<MessageContent>,
    /// The other fields, as they came; the chat template sees them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatMessage {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

    fn parts(&self) -> usize {
        match &self.content {
            Some(MessageContent::Parts(parts)) => parts.len(),
            Some(MessageContent::Text(_)) | None => 0,
        }
    }

    fn check(&self, index: usize) -> Result<(), Error> {
        if !Self::ROLES.contains(&&*self.role) {
            let roles = Self::ROLES.join(", ");
            let message = format!("must be one of {roles}");
            return Err(Error::invalid(format!("messages[{index}].role"), message));
        }
        if self.content.is_none() && self.role != "assistant" {
            return Err(Error::invalid(
                format!("messages[{index}].content"),
                "is required",
            ));
        }
        let Some(MessageContent::Parts(parts)) = &self.content else {
            return Ok(());
        };
        for (part_index, part) in parts.iter().enumerate() {
            let field = |name| format!("messages[{index}].content[{part_index}].{name}");
            match (&*part.r#type, &part.text) {
                ("text", Some(_)) => {}
                ("text", None) => return Err(Error::invalid(field("text"), "is required")),
                _ => {
                    let message = "only text is supported by this model";
                    return Err(Error::unsupported(field("type"), message));
                }
            }
        }
        Ok(())
    }
}

impl From<ChatMessage> for Value {
    /// The message as JSON, as it would be written; its texts are moved.
    fn from(message: ChatMessage) -> Self {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), message.role.into());
        match message.content {
            Some(MessageContent::Text(text)) => {
                fields.insert("content".to_owned(), text.into());
            }
            Some(MessageContent::Parts(parts)) => {
                let parts: Vec<Self> = parts.into_iter().map(Self::from).collect();
                fields.insert("content".to_owned(), parts.into());
            }
            None => {}
        }
        fields.extend(message.extra);
        Self::Object(fields)
    }
}

/// A message's content: a text, or parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "expected a string or an array of content parts")]
pub enum MessageContent {
    /// Plain text.
    Text(String),
    /// Text and other media in order.
    Parts(Vec<ContentPart>),
}

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContentPart {
    /// `text`, or another medium's name.
    pub r#type: String,
    /// The text of a `text` part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The other fields, as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl From<ContentPart> for Value {
    /// The part as JSON, as it would be written; its texts are moved.
    fn from(part: ContentPart) -> Self {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), part.r#type.into());
        if let Some(text) = part.text {
            fields.insert("text".to_owned(), text.into());
        }
        fields.extend(part.extra);
        Self::Object(fields)
    }
}

/// The answer to a chat completion that is not streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatCompletion {
    /// The answer's id.
    pub id: String,
    /// Always `chat.completion`.
    pub object: Cow<'static, str>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The model that was asked for.
    pub model: String,
    /// The choices, in order of index.
    pub choices: Vec<ChatChoice>,
    /// What it took.
    pub usage: Usage,
}

/// One choice of a [`ChatCompletion`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChoice {
    /// From 0.
    pub index: u32,
    /// What the model said.
    pub message: AssistantMessage,
    /// If they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// What stopped it, beside the model's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
}

/// What the model said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssistantMessage {
    /// Always `assistant`.
    pub role: Cow<'static, str>,
    /// Its text.
    pub content: Option<String>,
    /// Never set: a model of this server does not refuse beside its text.
    pub refusal: Option<String>,
}

/// One event of a streamed chat completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatCompletionChunk {
    /// The same in every chunk of an answer.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: Cow<'static, str>,
    /// When the answer was begun, in seconds since 1970.
    pub created: u64,
    /// The model that was asked for.
    pub model: String,
    /// What came, of one choice; empty in the chunk that has the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// In the last chunk, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What came of one choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatChunkChoice {
    /// From 0.
    pub index: u32,
    /// The new part of the message.
    pub delta: ChatDelta,
    /// Of the tokens of this chunk, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// In the choice's last chunk.
    pub finish_reason: Option<FinishReason>,
    /// What stopped it, beside the model's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
}

/// The new part of a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatDelta {
    /// `assistant`, in a choice's first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Cow<'static, str>>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// The log probabilities of a choice's tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChatLogprobs {
    /// One for each token.
    pub content: Vec<TokenLogprob>,
}

/// The log probability of a chosen token, and of what else was probable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenLogprob {
    /// Its text; a lone part of a character shows as U+FFFD.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
    /// The most probable tokens in its place, best first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that was probable, and how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopLogprob {
    /// Its text; a lone part of a character shows as U+FFFD.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
}
