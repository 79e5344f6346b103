use crate::config::{Length, Workload};
use crate::random::Random;
use crate::trace::TRACE_BLOCK_TOKENS;
use crate::words::{WORDS, Words};

/// How many tokens a server counts for a prompt of words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenFit {
    /// At least a quarter; 1 with the mocker's vocabulary.
    pub(crate) tokens_per_word: f64,
    /// What the chat template and special tokens add.
    pub(crate) overhead_tokens: f64,
}

impl TokenFit {
    /// One token a word and nothing around them: what is assumed of a server that counts nothing.
    pub(crate) const ASSUMED: Self = Self {
        tokens_per_word: 1.0,
        overhead_tokens: 0.0,
    };

    /// The line through two probes, each (words, tokens as counted), the second with more words.
    /// `None` if the counts do not grow with the words.
    pub(crate) fn from_probes(few: (u32, u32), many: (u32, u32)) -> Option<Self> {
        let words = many.0.checked_sub(few.0).filter(|&words| words > 0)?;
        let tokens_per_word = f64::from(many.1.checked_sub(few.1)?) / f64::from(words);
        (tokens_per_word >= 0.25).then(|| Self {
            tokens_per_word,
            overhead_tokens: (f64::from(few.1) - f64::from(few.0) * tokens_per_word).max(0.0),
        })
    }

    /// Words that make a prompt of `tokens`; at least one.
    fn words(&self, tokens: u32) -> usize {
        let words = (f64::from(tokens) - self.overhead_tokens) / self.tokens_per_word;
        words.round().max(1.0) as usize
    }

    /// Words that are `tokens` inside of a prompt.
    fn inner_words(&self, tokens: u64) -> usize {
        (tokens as f64 / self.tokens_per_word).round() as usize
    }
}

/// The stream of the seed that the shared prefix is drawn from.
const PREFIX_STREAM: u64 = u64::MAX - 1;

/// Keeps blocks of a trace apart from requests of the same number.
const BLOCK_SEED: u64 = 0xB10C;

/// Makes the prompt of each request from its number: the same seed and number are the same text,
/// in whatever order they are asked for.
#[derive(Debug)]
pub(crate) struct Prompts {
    words: Words,
    workload: Workload,
    fit: TokenFit,
    seed: u64,
    shared_prefix: Vec<u8>,
}

impl Prompts {
    pub(crate) fn new(workload: Workload, fit: TokenFit, seed: u64) -> Self {
        let words = Words::new();
        let mut shared_prefix = Vec::new();
        if let Workload::Synthetic(synthetic) = &workload {
            let count = fit.inner_words(synthetic.shared_prefix_tokens.into());
            words.push_random(
                count,
                &mut Random::new(seed, PREFIX_STREAM),
                &mut shared_prefix,
            );
        }
        Self {
            words,
            workload,
            fit,
            seed,
            shared_prefix,
        }
    }

    /// Appends the prompt of a request, and returns how many tokens its answer has to have. The
    /// text is letters and spaces, so it stands in JSON as it is.
    ///
    /// # Panics
    ///
    /// If `number` is beyond the end of a trace.
    pub(crate) fn write(&self, number: u64, text: &mut Vec<u8>) -> u32 {
        match &self.workload {
            Workload::Synthetic(synthetic) => {
                let mut random = Random::new(self.seed, number);
                let count = self.fit.words(draw(synthetic.isl, &mut random));
                let output_tokens = draw(synthetic.osl, &mut random);
                text.extend_from_slice(&self.shared_prefix);
                let shared = self.shared_prefix.len() / crate::words::WORD_BYTES;
                self.write_unique(
                    number,
                    count.saturating_sub(shared).max(1),
                    &mut random,
                    text,
                );
                output_tokens
            }
            Workload::Trace(trace) => {
                let request = &trace.requests()[number as usize];
                let end = self.fit.words(request.input_tokens);
                for (index, &id) in (0_u64..).zip(&request.hash_ids) {
                    let block = u64::from(TRACE_BLOCK_TOKENS);
                    let from = self.fit.inner_words(index * block).min(end);
                    let to = self.fit.inner_words((index + 1) * block).min(end);
                    let mut random = Random::new(self.seed ^ BLOCK_SEED, id);
                    self.words.push_random(to - from, &mut random, text);
                }
                request.output_tokens
            }
        }
    }

    /// Appends a prompt to warm a server up with. It is like the load's and not one of them: a
    /// prefix cache is to know no more after it than what all prompts share.
    pub(crate) fn write_warm_up(&self, number: u64, text: &mut Vec<u8>) -> u32 {
        /// Numbers out of reach of the load's.
        const FIRST_NUMBER: u64 = 1 << 38;
        match &self.workload {
            Workload::Synthetic(_) => self.write(FIRST_NUMBER + number, text),
            Workload::Trace(_) => {
                self.write_words(FIRST_NUMBER + number, 128, text);
                16
            }
        }
    }

    /// Appends a prompt of `count` words that no other number has.
    pub(crate) fn write_words(&self, number: u64, count: u32, text: &mut Vec<u8>) {
        let mut random = Random::new(self.seed, number);
        self.write_unique(number, count as usize, &mut random, text);
    }

    /// The first words spell the number, so that prompts of three words and more differ from
    /// their beginning, whatever is drawn for the rest.
    fn write_unique(&self, number: u64, count: usize, random: &mut Random, text: &mut Vec<u8>) {
        const NUMBER_WORDS: usize = 3;
        let base = u64::from(WORDS);
        let spelled = count.min(NUMBER_WORDS);
        let mut rest = number;
        for _ in 0..spelled {
            self.words.push((rest % base) as u32, text);
            rest /= base;
        }
        self.words.push_random(count - spelled, random, text);
    }
}

fn draw(length: Length, random: &mut Random) -> u32 {
    length.min + random.below((length.max - length.min).saturating_add(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{Synthetic, Trace};

    fn prompts(isl: u32, shared_prefix_tokens: u32, fit: TokenFit) -> Prompts {
        let synthetic = Synthetic {
            isl: Length::fixed(isl),
            osl: Length { min: 2, max: 9 },
            shared_prefix_tokens,
        };
        Prompts::new(Workload::Synthetic(synthetic), fit, 5)
    }

    fn prompt(prompts: &Prompts, number: u64) -> String {
        let mut text = Vec::new();
        prompts.write(number, &mut text);
        String::from_utf8(text).unwrap()
    }

    fn count(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn two_probes_give_the_line() {
        let fit = TokenFit::from_probes((50, 134), (250, 584)).unwrap();
        assert_eq!(fit.tokens_per_word, 2.25);
        assert_eq!(fit.overhead_tokens, 21.5);
        assert_eq!(fit.words(584), 250);
        assert_eq!(fit.words(3), 1, "a prompt is never empty");
        assert_eq!(TokenFit::from_probes((50, 100), (250, 100)), None);
        assert_eq!(TokenFit::from_probes((50, 100), (50, 200)), None);
    }

    #[test]
    fn every_prompt_is_unique_from_its_third_word() {
        let prompts = prompts(16, 0, TokenFit::ASSUMED);
        let starts: BTreeSet<String> = (0..30_000)
            .map(|number| prompt(&prompts, number)[..15].to_owned())
            .collect();
        assert_eq!(starts.len(), 30_000);
        let one_word = self::prompts(1, 0, TokenFit::ASSUMED);
        let words: BTreeSet<String> = (0..10_000).map(|n| prompt(&one_word, n)).collect();
        assert_eq!(words.len(), 10_000);
    }

    #[test]
    fn a_shared_prefix_is_shared_and_no_more() {
        let prompts = prompts(100, 60, TokenFit::ASSUMED);
        let (a, b) = (prompt(&prompts, 1), prompt(&prompts, 2));
        assert_eq!((count(&a), count(&b)), (100, 100));
        let common = a.split(' ').zip(b.split(' ')).take_while(|(a, b)| a == b);
        assert_eq!(
            common.count(),
            1 + 60,
            "the text before the first space, and 60 words"
        );
    }

    #[test]
    fn requests_of_a_trace_share_what_their_ids_say() {
        let text = r#"{"timestamp":0,"input_length":1100,"output_length":7,"hash_ids":[1,2,3]}
{"timestamp":0,"input_length":1300,"output_length":8,"hash_ids":[1,2,9]}"#;
        let fit = TokenFit {
            tokens_per_word: 2.0,
            overhead_tokens: 20.0,
        };
        let prompts = Prompts::new(Workload::Trace(Trace::parse(text).unwrap()), fit, 0);
        let (a, b) = (prompt(&prompts, 0), prompt(&prompts, 1));
        assert_eq!((count(&a), count(&b)), (540, 640));
        let common = a.split(' ').zip(b.split(' ')).take_while(|(a, b)| a == b);
        assert_eq!(common.count(), 1 + 512);
    }

    #[test]
    fn a_warm_up_has_prompts_of_its_own() {
        let trace = r#"{"timestamp":0,"input_length":128,"output_length":7,"hash_ids":[1]}"#;
        let trace = Workload::Trace(Trace::parse(trace).unwrap());
        let traced = Prompts::new(trace, TokenFit::ASSUMED, 5);
        for (prompts, shared) in [(prompts(100, 60, TokenFit::ASSUMED), 60), (traced, 0)] {
            let mut text = Vec::new();
            assert!(prompts.write_warm_up(0, &mut text) > 0);
            let text = String::from_utf8(text).unwrap();
            let load = prompt(&prompts, 0);
            let common = text
                .split(' ')
                .zip(load.split(' '))
                .take_while(|(a, b)| a == b);
            assert_eq!(common.count(), 1 + shared);
        }
    }

    proptest! {
        #[test]
        fn lengths_are_as_asked(isl in 1_u32..600, number: u64, overhead in 0.0..30.0_f64) {
            let fit = TokenFit { tokens_per_word: 1.0, overhead_tokens: overhead };
            let prompts = prompts(isl, 0, fit);
            let mut text = Vec::new();
            let output_tokens = prompts.write(number, &mut text);
            prop_assert!((2..=9).contains(&output_tokens));
            let text = String::from_utf8(text).unwrap();
            let expected = (f64::from(isl) - overhead).round().max(1.0);
            prop_assert_eq!(count(&text) as f64, expected);
            prop_assert_eq!(prompt(&prompts, number), text);
        }
    }
}
