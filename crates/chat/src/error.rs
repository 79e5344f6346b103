use forebay_protocols::{Error, ErrorClass};

/// Why a chat template could not be compiled or rendered.
///
/// [`Syntax`](Self::Syntax) and [`Broken`](Self::Broken) are faults of the model's template; every
/// other variant is caused by the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template does not compile.
    #[error("chat template does not compile")]
    Syntax(#[source] minijinja::Error),
    /// The template cannot render even one plain user message.
    #[error("chat template cannot render a plain message")]
    Broken(#[source] minijinja::Error),
    /// The template refused the conversation through `raise_exception`; the message is its own.
    #[error("{0}")]
    Raised(String),
    /// The template failed on this conversation, for example on a field that a message lacks.
    #[error("chat template cannot render these messages")]
    Render(#[source] minijinja::Error),
    /// The rendered prompt exceeds [`TemplateLimits::output_bytes`](crate::TemplateLimits).
    #[error("rendered prompt exceeds {limit_bytes} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// Rendering took more steps than [`TemplateLimits::fuel`](crate::TemplateLimits).
    #[error("rendering the prompt exceeds {limit} template steps")]
    OutOfFuel {
        /// The limit, in template instructions.
        limit: u64,
    },
    /// A message is not of the chat format.
    #[error("messages[{index}]: {reason}")]
    InvalidMessage {
        /// Position of the message in the conversation.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A message has a content part that this template cannot place.
    #[error("messages[{index}]: this model takes no content part of type {kind:?}")]
    UnsupportedPart {
        /// Position of the message in the conversation.
        index: usize,
        /// The part's `type`.
        kind: String,
    },
    /// `chat_template_kwargs` sets a name that the renderer owns.
    #[error("chat_template_kwargs must not set {0:?}")]
    ReservedName(String),
}

/// Why a tokenizer could not be built or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The GGUF vocabulary is of a kind that is not supported (`tokenizer.ggml.model`).
    #[error("unsupported vocabulary model {0:?}")]
    UnsupportedModel(String),
    /// The GGUF names a pre-tokenizer that is not supported (`tokenizer.ggml.pre`).
    #[error("unsupported pre-tokenizer {0:?}")]
    UnsupportedPreTokenizer(String),
    /// The vocabulary contradicts itself.
    #[error("invalid vocabulary: {0}")]
    InvalidVocabulary(String),
    /// The tokenizer's definition is not valid.
    #[error("invalid tokenizer definition")]
    Definition(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A text has more tokens than the caller takes.
    #[error(
        "the text has at least {at_least_tokens} tokens, more than the limit of {limit_tokens}"
    )]
    TooLong {
        /// The most tokens that were allowed.
        limit_tokens: usize,
        /// A lower bound of the tokens the text has, greater than the limit; the text was not
        /// tokenized any further.
        at_least_tokens: usize,
    },
    /// A text could not be tokenized.
    #[error("text cannot be tokenized")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Tokens could not be turned into text.
    #[error("tokens cannot be decoded")]
    Decode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<TemplateError> for Error {
    /// A request's fault is told to the client in the template's own words; of a template's fault
    /// the client learns only that there is one.
    fn from(error: TemplateError) -> Self {
        use ErrorClass::{Internal, InvalidRequest, TooLarge, Unsupported};
        let (class, reason, param) = match &error {
            TemplateError::Syntax(_) | TemplateError::Broken(_) => {
                return Self::new(
                    Internal,
                    "chat_template_broken",
                    "the model's chat template is broken",
                )
                .with_diagnostic(with_causes(&error));
            }
            TemplateError::Raised(_) => (InvalidRequest, "chat_template_raised", "messages".into()),
            TemplateError::Render(_) => (InvalidRequest, "chat_template_failed", "messages".into()),
            TemplateError::TooLong { .. } | TemplateError::OutOfFuel { .. } => {
                (TooLarge, "prompt_too_large", "messages".into())
            }
            TemplateError::InvalidMessage { index, .. } => (
                InvalidRequest,
                "invalid_message",
                format!("messages[{index}]"),
            ),
            TemplateError::UnsupportedPart { index, .. } => (
                Unsupported,
                "unsupported_content_part",
                format!("messages[{index}].content"),
            ),
            TemplateError::ReservedName(_) => (
                InvalidRequest,
                "reserved_name",
                "chat_template_kwargs".into(),
            ),
        };
        Self::new(class, reason, error.to_string())
            .with_param(param)
            .with_diagnostic(with_causes(&error))
    }
}

impl From<TokenizerError> for Error {
    /// [`TooLong`](TokenizerError::TooLong) is the request's fault and told as it is. Every other is
    /// a fault of the model's files or of Forebay's own: the client learns only that there is one.
    fn from(error: TokenizerError) -> Self {
        if let TokenizerError::TooLong { .. } = error {
            return Self::new(
                ErrorClass::InvalidRequest,
                "context_length_exceeded",
                error.to_string(),
            );
        }
        Self::new(
            ErrorClass::Internal,
            "tokenizer_failed",
            "the model's tokenizer failed",
        )
        .with_diagnostic(with_causes(&error))
    }
}

/// The error and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
