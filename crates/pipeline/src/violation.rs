use forebay_protocols::{Error, ErrorClass};

/// What an engine must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("output after the finish of the choice")]
    OutputAfterFinish,
    #[error("the first output has no prompt usage, or a later one has it")]
    PromptUsage,
    #[error("the prompt usage is {prompt} tokens, {cached} of them cached, for a prompt of {sent}")]
    PromptTokens {
        sent: usize,
        prompt: u32,
        cached: u32,
    },
    #[error("{tokens} tokens where the budget is {budget}")]
    Budget { tokens: usize, budget: u32 },
    #[error("{logprobs} log probabilities for {tokens} tokens")]
    Logprobs { tokens: usize, logprobs: usize },
    #[error("{0} is no finish reason")]
    FinishReason(i32),
    #[error("a stop that does not end in the token that caused it")]
    StopToken,
    #[error("the stream ended without a finish reason")]
    Unfinished,
}

impl Violation {
    fn reason(self) -> &'static str {
        match self {
            Self::OutputAfterFinish => "output_after_finish",
            Self::PromptUsage | Self::PromptTokens { .. } => "prompt_usage_invalid",
            Self::Budget { .. } => "budget_exceeded",
            Self::Logprobs { .. } => "logprobs_mismatch",
            Self::FinishReason(_) | Self::StopToken => "finish_invalid",
            Self::Unfinished => "stream_unfinished",
        }
    }
}

impl From<Violation> for Error {
    /// The client learns that it was the engine; the operator, what it did.
    fn from(violation: Violation) -> Self {
        Self::new(
            ErrorClass::BackendProtocol,
            violation.reason(),
            "the engine broke its protocol",
        )
        .with_diagnostic(violation.to_string())
    }
}
