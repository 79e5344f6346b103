use forebay_tokens::TokenId;

use crate::{Tokenizer, TokenizerError};

/// Tokens after which a window that still ends in an incomplete character is given out as it is:
/// a character has at most four bytes, each at most one token.
const LONGEST_WINDOW_TOKENS: usize = 8;

/// Turns a stream of tokens into text as it arrives.
///
/// The pieces of one stream add up to [`Tokenizer::decode`] of all its tokens, wherever they are
/// cut, and none ends within a character. The work per token does not grow with the stream.
///
/// This holds for byte-level vocabularies (all of GGUF's `gpt2` kind). Others decode a token by its
/// neighbours: there the text of a short window of tokens is compared with and without the new ones,
/// as the field's engines do, and the sum equals the whole wherever the tokens are valid text.
///
/// ```
/// use forebay_chat::{Detokenizer, Tokenizer};
///
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = Detokenizer::new(&tokenizer, true);
/// let mut text = String::new();
/// for (id, so_far) in [(0xc3, ""), (0xa9, "é"), (u32::from(b'!'), "é!")] {
///     stream.push(id, &mut text)?;
///     assert_eq!(text, so_far);
/// }
/// # Ok::<(), forebay_chat::TokenizerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The beginning of a character, at most three bytes.
    Bytes { incomplete: Vec<u8> },
    /// The tokens whose text is compared: those given out last, then those not yet.
    Window { ids: Vec<TokenId>, given_out: usize },
}

impl Detokenizer {
    /// A stream that begins now. `skip_special` leaves special tokens out of the text.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        let state = if tokenizer.is_concatenative() {
            State::Bytes {
                incomplete: Vec::with_capacity(4),
            }
        } else {
            State::Window {
                ids: Vec::new(),
                given_out: 0,
            }
        };
        Self {
            tokenizer: tokenizer.clone(),
            skip_special,
            state,
        }
    }

    /// Takes the next token and appends the text that is final with it.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`]: never for a byte-level vocabulary.
    pub fn push(&mut self, id: TokenId, text: &mut String) -> Result<(), TokenizerError> {
        match &mut self.state {
            State::Bytes { incomplete } => {
                if !(self.skip_special && self.tokenizer.is_special(id)) {
                    append_utf8(incomplete, self.tokenizer.token_bytes(id), text);
                }
                Ok(())
            }
            State::Window { ids, given_out } => {
                ids.push(id);
                let before = self
                    .tokenizer
                    .decode(&ids[..*given_out], self.skip_special)?;
                let after = self.tokenizer.decode(ids, self.skip_special)?;
                let pending = ids.len() - *given_out;
                if after.ends_with(char::REPLACEMENT_CHARACTER) && pending < LONGEST_WINDOW_TOKENS {
                    return Ok(());
                }
                if let Some(new) = new_text(&before, &after) {
                    text.push_str(new);
                    ids.drain(..*given_out);
                    *given_out = ids.len();
                }
                Ok(())
            }
        }
    }

    /// Ends the stream: appends what is left, U+FFFD for the beginning of a character whose rest
    /// never came.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self, text: &mut String) -> Result<(), TokenizerError> {
        match &mut self.state {
            State::Bytes { incomplete } => {
                text.push_str(&String::from_utf8_lossy(incomplete));
                incomplete.clear();
            }
            State::Window { ids, given_out } => {
                let before = self
                    .tokenizer
                    .decode(&ids[..*given_out], self.skip_special)?;
                let after = self.tokenizer.decode(ids, self.skip_special)?;
                text.push_str(new_text(&before, &after).unwrap_or_default());
                ids.clear();
                *given_out = 0;
            }
        }
        Ok(())
    }
}

/// What `after` has beyond `before`, if anything.
fn new_text<'a>(before: &str, after: &'a str) -> Option<&'a str> {
    after.get(before.len()..).filter(|new| !new.is_empty())
}

/// Appends the valid part of `incomplete` and `bytes` together to `text`, with U+FFFD for what can
/// never become valid, and leaves the beginning of a character in `incomplete`: the same cut as
/// [`String::from_utf8_lossy`] of the whole.
fn append_utf8(incomplete: &mut Vec<u8>, bytes: &[u8], text: &mut String) {
    if incomplete.is_empty() {
        append_chunks(bytes, incomplete, text);
    } else {
        let mut joined = std::mem::take(incomplete);
        joined.extend_from_slice(bytes);
        append_chunks(&joined, incomplete, text);
    }
}

fn append_chunks(bytes: &[u8], incomplete: &mut Vec<u8>, text: &mut String) {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => return text.push_str(valid),
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).expect("checked up to here"));
                let Some(length) = error.error_len() else {
                    return incomplete.extend_from_slice(invalid);
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &invalid[length..];
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SentencePiece-like definition: Llama 2's decoder over a handful of tokens.
    fn sentencepiece() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        for token in ["<unk>", "▁Hello", "▁world", "!", "ing", "▁", "</s>"] {
            vocab.insert(token.into(), vocab.len().into());
        }
        for byte in 0..=u8::MAX {
            vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
        }
        let definition = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{
                "id": 6, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }],
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true},
        });
        Tokenizer::from_json(definition.to_string().as_bytes()).unwrap()
    }

    /// The text of a stream, and that no piece of it ends within a character that comes later.
    fn stream(tokenizer: &Tokenizer, ids: &[TokenId], skip: bool) -> String {
        let mut detokenizer = Detokenizer::new(tokenizer, skip);
        let mut text = String::new();
        for &id in ids {
            detokenizer.push(id, &mut text).unwrap();
        }
        detokenizer.finish(&mut text).unwrap();
        text
    }

    proptest! {
        #[test]
        fn pieces_add_up_for_any_bytes(ids in prop::collection::vec(0..262u32, 0..64), skip: bool) {
            let tokenizer = Tokenizer::bytes();
            prop_assert_eq!(stream(&tokenizer, &ids, skip), tokenizer.decode(&ids, skip).unwrap());
        }

        #[test]
        fn pieces_add_up_around_characters(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("é"), Just("日本"), Just("👩‍👩‍👧"), Just("\u{fffd}"), Just("x"), Just("<|im_end|>"),
                ],
                0..20,
            ),
            cut in 0..4usize,
        ) {
            let tokenizer = Tokenizer::bytes();
            let mut ids = tokenizer.encode(&parts.concat(), false).unwrap();
            ids.truncate(ids.len().saturating_sub(cut));
            prop_assert_eq!(stream(&tokenizer, &ids, false), tokenizer.decode(&ids, false).unwrap());
        }

        #[test]
        fn nothing_final_is_held_back(text in "[a-c\u{e9}\u{65e5}\u{1f642}]{0,12}") {
            let tokenizer = Tokenizer::bytes();
            let mut detokenizer = Detokenizer::new(&tokenizer, true);
            let mut out = String::new();
            for character in text.chars() {
                let before = out.clone();
                let ids = tokenizer.encode(&character.to_string(), false).unwrap();
                for (number, &id) in ids.iter().enumerate() {
                    prop_assert_eq!(&out, &before, "after {} bytes of {}", number, character);
                    detokenizer.push(id, &mut out).unwrap();
                }
                prop_assert!(out.ends_with(character));
            }
        }

        #[test]
        fn pieces_add_up_for_sentencepiece(
            words in prop::collection::vec(
                prop_oneof![
                    (1..7u32).prop_map(|id| vec![id]),
                    "[é日🙂]".prop_map(|text| text.bytes().map(|byte| 7 + u32::from(byte)).collect()),
                ],
                0..20,
            ),
            skip: bool,
        ) {
            let tokenizer = sentencepiece();
            let ids = words.concat();
            prop_assert_eq!(stream(&tokenizer, &ids, skip), tokenizer.decode(&ids, skip).unwrap());
        }
    }

    #[test]
    fn a_long_window_is_bounded() {
        let tokenizer = sentencepiece();
        let mut detokenizer = Detokenizer::new(&tokenizer, true);
        let mut text = String::new();
        for _ in 0..1000 {
            detokenizer.push(7 + 0xff, &mut text).unwrap();
            let State::Window { ids, .. } = &detokenizer.state else {
                panic!("not byte-level")
            };
            assert!(ids.len() <= 2 * LONGEST_WINDOW_TOKENS);
        }
        detokenizer.finish(&mut text).unwrap();
        assert_eq!(text, "\u{fffd}".repeat(1000));
    }
}
