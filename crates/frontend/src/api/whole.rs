use axum::Json;
use axum::response::{IntoResponse, Response};
use forebay_chat::Tokenizer;
use forebay_pipeline::Finish;
use forebay_protocols::openai::{
    AssistantMessage, ChatChoice, ChatCompletion, Completion, CompletionChoice, Usage,
};
use forebay_protocols::worker::TokenLogprobs;
use forebay_tokens::TokenId;

use super::logprobs::{self, TextOffset};
use super::{Api, Envelope};
use crate::generation::Part;

/// Collects an answer that is given at once.
pub(crate) struct Whole {
    envelope: Envelope,
    choices: Vec<Collected>,
}

#[derive(Clone, Default)]
struct Collected {
    text: String,
    logprobs: Vec<(TokenId, TokenLogprobs)>,
    finish: Option<Finish>,
}

impl Whole {
    pub(crate) fn new(envelope: Envelope) -> Self {
        Self {
            choices: vec![Collected::default(); envelope.choices],
            envelope,
        }
    }

    pub(crate) fn part(&mut self, part: Part) {
        let choice = &mut self.choices[part.choice as usize];
        choice.text.push_str(&part.text);
        choice.logprobs.extend(part.logprobs);
        choice.finish = choice.finish.or(part.finish);
    }

    pub(crate) fn response(self, usage: Usage, tokenizer: &Tokenizer) -> Response {
        let Self { envelope, choices } = self;
        let choices = (0..).zip(choices);
        match envelope.api {
            Api::Chat => Json(ChatCompletion {
                choices: choices
                    .map(|(index, choice)| chat_choice(&envelope, index, choice, tokenizer))
                    .collect(),
                id: envelope.id,
                object: "chat.completion".into(),
                created: envelope.created,
                model: envelope.model,
                usage,
            })
            .into_response(),
            Api::Completion => Json(Completion {
                choices: choices
                    .map(|(index, choice)| completion_choice(&envelope, index, choice, tokenizer))
                    .collect(),
                id: envelope.id,
                object: "text_completion".into(),
                created: envelope.created,
                model: envelope.model,
                usage: Some(usage),
            })
            .into_response(),
        }
    }
}

fn chat_choice(
    envelope: &Envelope,
    index: u32,
    choice: Collected,
    tokenizer: &Tokenizer,
) -> ChatChoice {
    let (finish_reason, stop_reason) = choice.finish.map(|f| envelope.finish(f)).unzip();
    ChatChoice {
        index,
        message: AssistantMessage {
            role: "assistant".into(),
            content: Some(choice.text),
            refusal: None,
        },
        logprobs: envelope
            .logprobs
            .then(|| logprobs::chat(&choice.logprobs, tokenizer)),
        finish_reason,
        stop_reason: stop_reason.flatten(),
    }
}

fn completion_choice(
    envelope: &Envelope,
    index: u32,
    choice: Collected,
    tokenizer: &Tokenizer,
) -> CompletionChoice {
    let (finish_reason, stop_reason) = choice.finish.map(|f| envelope.finish(f)).unzip();
    let mut offset = TextOffset::default();
    CompletionChoice {
        text: choice.text,
        index,
        logprobs: envelope.logprobs.then(|| {
            let skip_special = envelope.skip_special;
            logprobs::completion(&choice.logprobs, tokenizer, skip_special, &mut offset)
        }),
        finish_reason,
        stop_reason: stop_reason.flatten(),
    }
}
