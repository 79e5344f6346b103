use std::collections::BTreeMap;

use forebay_chat::Tokenizer;
use forebay_protocols::openai::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use forebay_protocols::worker::TokenLogprobs;
use forebay_tokens::TokenId;

type Tokens = [(TokenId, TokenLogprobs)];

/// The chat API's form.
pub(super) fn chat(tokens: &Tokens, tokenizer: &Tokenizer) -> ChatLogprobs {
    let bytes = |id| Some(tokenizer.token_bytes(id).to_vec());
    let content = tokens.iter().map(|(id, logprobs)| TokenLogprob {
        token: tokenizer.token_text(*id),
        logprob: logprobs.logprob,
        bytes: bytes(*id),
        top_logprobs: logprobs
            .top
            .iter()
            .map(|top| TopLogprob {
                token: tokenizer.token_text(top.token_id),
                logprob: top.logprob,
                bytes: bytes(top.token_id),
            })
            .collect(),
    });
    ChatLogprobs {
        content: content.collect(),
    }
}

/// Where a choice's next token begins in its text, in characters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TextOffset(u32);

/// The completion API's form.
pub(super) fn completion(
    tokens: &Tokens,
    tokenizer: &Tokenizer,
    skip_special: bool,
    offset: &mut TextOffset,
) -> CompletionLogprobs {
    let mut result = CompletionLogprobs::default();
    for (id, logprobs) in tokens {
        let text = tokenizer.token_text(*id);
        // The chosen token is always among the reported ones, and of equal texts the most probable
        // token counts.
        let mut top = BTreeMap::new();
        for entry in &logprobs.top {
            let text = tokenizer.token_text(entry.token_id);
            top.entry(text).or_insert(entry.logprob);
        }
        top.entry(text.clone()).or_insert(logprobs.logprob);
        result.tokens.push(text);
        result.token_logprobs.push(Some(logprobs.logprob));
        result.top_logprobs.push(Some(top));
        let bytes = match skip_special && tokenizer.is_special(*id) {
            true => &[],
            false => tokenizer.token_bytes(*id),
        };
        result.text_offset.push(offset.pass(bytes));
    }
    result
}

impl TextOffset {
    /// Goes past a token of these bytes; gives the place of the character it begins in.
    fn pass(&mut self, bytes: &[u8]) -> u32 {
        let continues = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        let begin = match bytes.first() {
            Some(first) if continues(first) => self.0.saturating_sub(1),
            _ => self.0,
        };
        let begun = bytes.iter().filter(|byte| !continues(byte)).count();
        self.0 += u32::try_from(begun).unwrap_or(u32::MAX);
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters_that_tokens_may_split() {
        let mut offset = TextOffset::default();
        let tokens: [&[u8]; 5] = [b"ab", b"\xc3", b"\xa9", b"\xa9x", b"y"];
        let begins = tokens.map(|bytes| offset.pass(bytes));
        assert_eq!(begins, [0, 2, 2, 2, 4]);
    }

    #[test]
    fn a_special_token_without_text_takes_no_place() {
        let tokenizer = Tokenizer::bytes();
        // The second is special: `<|im_start|>`.
        let tokens: Vec<_> = [97, 256, 98]
            .map(|id| (id, TokenLogprobs::default()))
            .into();
        let offsets = |skip_special| {
            let mut offset = TextOffset::default();
            completion(&tokens, &tokenizer, skip_special, &mut offset).text_offset
        };
        assert_eq!(offsets(true), [0, 1, 1]);
        assert_eq!(offsets(false), [0, 1, 13]);
    }
}
