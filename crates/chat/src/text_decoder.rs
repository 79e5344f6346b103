use forebay_tokens::TokenId;

use crate::{Detokenizer, StopStrings, Tokenizer, TokenizerError};

/// How a stream of tokens becomes text.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Strings that end the stream (OpenAI `stop`). See [`StopStrings`] for which wins.
    pub stop: Vec<String>,
    /// Keep the matched stop string in the text (`include_stop_str_in_output`).
    pub include_stop: bool,
    /// Leave special tokens out of the text (`skip_special_tokens`).
    pub skip_special: bool,
    /// A stop string may not end within the text of so many first tokens (`min_tokens`).
    pub min_tokens: usize,
}

impl Default for TextOptions {
    /// No stop strings, and no special tokens in the text.
    fn default() -> Self {
        Self {
            stop: Vec::new(),
            include_stop: false,
            skip_special: true,
            min_tokens: 0,
        }
    }
}

/// What a step of a [`TextDecoder`] adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextDelta {
    /// Text that is now final.
    pub text: String,
    /// How many of the pushed tokens belong to the answer: all, or up to the one that completed a
    /// stop string.
    pub consumed_tokens: usize,
    /// Index in [`TextOptions::stop`] of the stop string that ended the stream.
    pub stopped: Option<usize>,
}

/// Text of one choice of one answer, as its tokens arrive: [`Detokenizer`], then [`StopStrings`].
///
/// ```
/// use forebay_chat::{TextDecoder, TextOptions, Tokenizer};
///
/// let tokenizer = Tokenizer::bytes();
/// let options = TextOptions { stop: vec!["END".into()], ..TextOptions::default() };
/// let mut decoder = TextDecoder::new(&tokenizer, &options);
///
/// let delta = decoder.push(&tokenizer.encode("Hello E", false)?)?;
/// assert_eq!(delta.text, "Hello "); // the E may begin a stop string
/// let delta = decoder.push(&tokenizer.encode("NDLESS", false)?)?;
/// assert_eq!((delta.stopped, delta.consumed_tokens), (Some(0), 2));
/// assert_eq!(decoder.finish()?, "");
/// # Ok::<(), forebay_chat::TokenizerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextDecoder {
    detokenizer: Detokenizer,
    stops: StopStrings,
    /// Tokens whose text may not complete a stop string.
    exempt_tokens: usize,
    /// The text of one token, kept for its allocation.
    piece: String,
}

impl TextDecoder {
    /// A stream that begins now.
    pub fn new(tokenizer: &Tokenizer, options: &TextOptions) -> Self {
        Self {
            detokenizer: Detokenizer::new(tokenizer, options.skip_special),
            stops: StopStrings::new(&options.stop, options.include_stop),
            exempt_tokens: options.min_tokens,
            piece: String::new(),
        }
    }

    /// Takes the next tokens. After a stop string nothing is consumed any more.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`]: never for a byte-level vocabulary.
    pub fn push(&mut self, ids: &[TokenId]) -> Result<TextDelta, TokenizerError> {
        let mut delta = TextDelta {
            stopped: self.stops.stopped(),
            ..TextDelta::default()
        };
        for &id in ids {
            if delta.stopped.is_some() {
                break;
            }
            self.piece.clear();
            self.detokenizer.push(id, &mut self.piece)?;
            delta.consumed_tokens += 1;
            if self.exempt_tokens > 0 {
                self.exempt_tokens -= 1;
                self.stops.push_exempt(&self.piece, &mut delta.text);
            } else {
                delta.stopped = self.stops.push(&self.piece, &mut delta.text);
            }
        }
        Ok(delta)
    }

    /// Ends the stream and gives the text that was still held back; nothing after a stop string.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let mut text = String::new();
        self.piece.clear();
        self.detokenizer.finish(&mut self.piece)?;
        self.stops.push_exempt(&self.piece, &mut text);
        self.stops.finish(&mut text);
        Ok(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the tokens are cut into steps, text, stop and count are those of one step.
        #[test]
        fn cuts_do_not_matter(
            text in "[ab\u{e9}]{0,20}",
            stop in prop::collection::vec("[ab\u{e9}]{1,3}", 0..3),
            cuts in prop::collection::vec(1..5usize, 1..8),
            include_stop: bool,
            min_tokens in 0..6usize,
        ) {
            let tokenizer = Tokenizer::bytes();
            let ids = tokenizer.encode(&text, false).unwrap();
            let options = TextOptions { stop, include_stop, min_tokens, ..TextOptions::default() };

            let mut whole = TextDecoder::new(&tokenizer, &options);
            let mut expected = whole.push(&ids).unwrap();
            expected.text.push_str(&whole.finish().unwrap());

            let mut decoder = TextDecoder::new(&tokenizer, &options);
            let mut sum = TextDelta::default();
            let mut rest = &ids[..];
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (step, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                let delta = decoder.push(step).unwrap();
                sum.text.push_str(&delta.text);
                sum.consumed_tokens += delta.consumed_tokens;
                sum.stopped = delta.stopped;
            }
            sum.text.push_str(&decoder.finish().unwrap());
            prop_assert_eq!(&sum, &expected);
            if sum.stopped.is_some() {
                prop_assert!(sum.consumed_tokens > min_tokens);
            }
        }
    }

    #[test]
    fn an_incomplete_character_is_given_out_at_the_end() {
        let mut decoder = TextDecoder::new(&Tokenizer::bytes(), &TextOptions::default());
        assert_eq!(decoder.push(&[0x61, 0xe2, 0x82]).unwrap().text, "a");
        assert_eq!(decoder.finish().unwrap(), "\u{fffd}");
    }

    #[test]
    fn special_tokens_appear_when_asked_for() {
        let options = TextOptions {
            skip_special: false,
            ..TextOptions::default()
        };
        let mut decoder = TextDecoder::new(&Tokenizer::bytes(), &options);
        assert_eq!(decoder.push(&[0x61, 257]).unwrap().text, "a<|im_end|>");
    }
}
