//! The two forms of an answer, whole and as server-sent events.

mod chunks;
mod events;
mod logprobs;
mod whole;

use forebay_chat::TextOptions;
use forebay_pipeline::{Finish, Plan};
use forebay_protocols::openai::{FinishReason, StopReason};

pub(crate) use chunks::Chunks;
pub(crate) use events::Events;
pub(crate) use whole::Whole;

/// Which of the two APIs an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Completion,
}

/// What the answers of both APIs begin with.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) api: Api,
    pub(crate) id: String,
    /// In seconds since 1970.
    pub(crate) created: u64,
    /// As the client named it.
    pub(crate) model: String,
    /// How many choices the answer has.
    pub(crate) choices: usize,
    /// Whether log probabilities were asked for.
    pub(crate) logprobs: bool,
    /// Whether special tokens have no text.
    pub(crate) skip_special: bool,
    /// To tell which of them was found.
    pub(crate) stop_strings: Vec<String>,
}

impl Envelope {
    pub(crate) fn new(api: Api, plan: &Plan, model: String, text: &TextOptions) -> Self {
        let prefix = match api {
            Api::Chat => "chatcmpl",
            Api::Completion => "cmpl",
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            api,
            id: format!("{prefix}-{}", plan.id),
            created: now.map_or(0, |now| now.as_secs()),
            model,
            choices: plan.choices() as usize,
            logprobs: plan.output.logprobs.is_some(),
            skip_special: text.skip_special,
            stop_strings: text.stop.clone(),
        }
    }

    /// A finish in the API's terms, and what stopped the choice beside the model's own end.
    fn finish(&self, finish: Finish) -> (FinishReason, Option<StopReason>) {
        match finish {
            Finish::EndOfSequence => (FinishReason::Stop, None),
            Finish::StopToken(token) => (FinishReason::Stop, Some(StopReason::Token(token))),
            Finish::StopString(index) => {
                let text = self.stop_strings.get(index).cloned();
                (FinishReason::Stop, text.map(StopReason::Text))
            }
            Finish::Length => (FinishReason::Length, None),
        }
    }
}
