use bytes::{BufMut, BytesMut};
use forebay_chat::Tokenizer;
use forebay_protocols::Error;
use forebay_protocols::openai::{ErrorEnvelope, Usage};
use serde::Serialize;

use super::logprobs::{self, TextOffset};
use super::{Api, Envelope};
use crate::generation::Part;

/// Writes an answer as server-sent events, byte for byte as OpenAI's clients expect them.
///
/// What all events of an answer share is made once: a token costs the escaping of its text and a
/// few copies.
pub(crate) struct Chunks {
    envelope: Envelope,
    /// Up to the choices.
    head: Vec<u8>,
    /// After the choices.
    tail: &'static [u8],
    /// By choice.
    states: Vec<State>,
}

struct State {
    /// Of an event with this choice: up to what came of it.
    head: Vec<u8>,
    opened: bool,
    offset: TextOffset,
}

impl Chunks {
    pub(crate) fn new(envelope: Envelope, include_usage: bool) -> Self {
        let object = match envelope.api {
            Api::Chat => "chat.completion.chunk",
            Api::Completion => "text_completion",
        };
        let mut head = b"data: {\"id\":".to_vec();
        json(&mut head, &envelope.id);
        head.extend_from_slice(b",\"object\":");
        json(&mut head, object);
        head.extend_from_slice(b",\"created\":");
        json(&mut head, &envelope.created);
        head.extend_from_slice(b",\"model\":");
        json(&mut head, &envelope.model);
        head.extend_from_slice(b",\"choices\":[");
        Self {
            states: (0..envelope.choices)
                .map(|choice| State {
                    head: [&*head, format!("{{\"index\":{choice}").as_bytes()].concat(),
                    opened: false,
                    offset: TextOffset::default(),
                })
                .collect(),
            head,
            // Where the usage comes at the end, the events before have none by name.
            tail: match include_usage {
                true => b"],\"usage\":null}\n\n",
                false => b"]}\n\n",
            },
            envelope,
        }
    }

    /// About how long an event is that has one token.
    pub(crate) fn usual_bytes(&self) -> usize {
        self.head.len() + 128
    }

    /// Appends a part's events: the role before a chat choice's first, its text, its finish.
    pub(crate) fn part(&mut self, out: &mut BytesMut, part: &Part, tokenizer: &Tokenizer) {
        let state = &mut self.states[part.choice as usize];
        let is_first = !std::mem::replace(&mut state.opened, true);
        if is_first && self.envelope.api == Api::Chat {
            self.open(out, part.choice);
            out.extend_from_slice(
                b",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\
                  \"finish_reason\":null}",
            );
            self.close(out);
        }
        if !part.text.is_empty() || !part.logprobs.is_empty() {
            self.text(out, part, tokenizer);
        }
        if let Some(finish) = part.finish {
            let (reason, stop_reason) = self.envelope.finish(finish);
            self.open(out, part.choice);
            out.extend_from_slice(match self.envelope.api {
                Api::Chat => b",\"delta\":{},\"logprobs\":null,\"finish_reason\":",
                Api::Completion => b",\"text\":\"\",\"logprobs\":null,\"finish_reason\":",
            });
            json(out, &reason);
            if let Some(stop_reason) = stop_reason {
                out.extend_from_slice(b",\"stop_reason\":");
                json(out, &stop_reason);
            }
            out.put_u8(b'}');
            self.close(out);
        }
    }

    fn text(&mut self, out: &mut BytesMut, part: &Part, tokenizer: &Tokenizer) {
        self.open(out, part.choice);
        match self.envelope.api {
            Api::Chat => {
                out.extend_from_slice(b",\"delta\":{\"content\":");
                json(out, &part.text);
                out.extend_from_slice(b"},\"logprobs\":");
            }
            Api::Completion => {
                out.extend_from_slice(b",\"text\":");
                json(out, &part.text);
                out.extend_from_slice(b",\"logprobs\":");
            }
        }
        match self.envelope.api {
            _ if part.logprobs.is_empty() => out.extend_from_slice(b"null"),
            Api::Chat => json(out, &logprobs::chat(&part.logprobs, tokenizer)),
            Api::Completion => {
                let offset = &mut self.states[part.choice as usize].offset;
                let skip_special = self.envelope.skip_special;
                let form = logprobs::completion(&part.logprobs, tokenizer, skip_special, offset);
                json(out, &form);
            }
        }
        out.extend_from_slice(b",\"finish_reason\":null}");
        self.close(out);
    }

    /// Appends the event that has the usage, and no choices.
    pub(crate) fn usage(&self, out: &mut BytesMut, usage: &Usage) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"],\"usage\":");
        json(out, usage);
        out.extend_from_slice(b"}\n\n");
    }

    /// Appends the end of a whole answer.
    pub(crate) fn done(out: &mut BytesMut) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Appends the end of an answer that failed: what failed, and no `[DONE]`.
    pub(crate) fn error(out: &mut BytesMut, error: &Error) {
        out.extend_from_slice(b"data: ");
        json(out, &ErrorEnvelope::from(error));
        out.extend_from_slice(b"\n\n");
    }

    fn open(&self, out: &mut BytesMut, choice: u32) {
        out.extend_from_slice(&self.states[choice as usize].head);
    }

    fn close(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.tail);
    }
}

fn json<T: Serialize + ?Sized>(out: &mut impl BufMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("the value serialises, and memory takes it");
}
