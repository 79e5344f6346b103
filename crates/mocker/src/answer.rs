use std::ops::Range;

use forebay_protocols::worker::GenerateRequest;
use forebay_tokens::{RoutingSeed, TokenId};

/// What a mocker answers to a request: a token for every position, known beforehand.
///
/// A token depends on the prompt, on the request's draw and on its position in the answer, and on
/// nothing else. So a test can say what must stand at a position whichever engine generated it, and
/// whichever engines generated what is before it.
///
/// With `p` the xxh3-64 of the prompt's token ids (little-endian `u32`, seed 1337) and `d` the
/// draw, the token at position `i` of `n` possible ones is number
/// `mix((p ^ d) + i * 0x9e3779b97f4a7c15) * n / 2^64`, where `mix` is the finaliser of splitmix64
/// and sums wrap. At temperature 0 the draw is 0; else it is `mix(seed ^ mix(choice + 1))`.
///
/// The request's rules come on top: where a token may not stand because it would end the choice
/// before its minimum, the next possible one stands; and an end-of-sequence token stands where the
/// mocker's settings let an answer end.
///
/// ```
/// use forebay_mocker::{Answer, MockerConfig};
/// use forebay_protocols::worker::GenerateRequest;
///
/// let request = GenerateRequest { prompt_token_ids: vec![1, 2, 3], ..Default::default() };
/// let words = MockerConfig::default().answer_vocabulary();
/// let answer = Answer::new(&request, words.clone());
/// assert!(words.contains(&answer.token(0)));
/// assert_ne!(answer.token(0), answer.token(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    state: u64,
    tokens: Range<TokenId>,
}

impl Answer {
    /// The answer to a request, of the possible `tokens`: see
    /// [`MockerConfig::answer_vocabulary`](crate::MockerConfig::answer_vocabulary).
    ///
    /// # Panics
    ///
    /// If `tokens` is empty.
    pub fn new(request: &GenerateRequest, tokens: Range<TokenId>) -> Self {
        assert!(!tokens.is_empty(), "an answer is made of tokens");
        let prompt = RoutingSeed::default().block_hash(&request.prompt_token_ids, &[]);
        let draw = match &request.sampling {
            Some(sampling) if sampling.temperature == Some(0.0) => 0,
            sampling => {
                let seed = sampling.as_ref().map_or(0, |sampling| sampling.seed);
                mix(seed ^ mix(u64::from(request.choice_index) + 1))
            }
        };
        Self {
            state: prompt.0 ^ draw,
            tokens,
        }
    }

    /// The token at a position of the answer, from 0.
    pub fn token(&self, position: usize) -> TokenId {
        self.token_but(position, &[])
    }

    /// The token at a position, or the next possible one that is not `banned`; if all are, the one
    /// that would stand there otherwise.
    pub(crate) fn token_but(&self, position: usize, banned: &[TokenId]) -> TokenId {
        let steps = (position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = mix(self.state.wrapping_add(steps));
        let n = self.tokens.len() as u64;
        // The high half is below `n`, which is a `u32`.
        let drawn = ((u128::from(random) * u128::from(n)) >> 64) as u32;
        (0..=banned.len() as u32)
            .map(|further| {
                let at = (u64::from(drawn) + u64::from(further)) % n;
                self.tokens.start + at as u32
            })
            .find(|token| !banned.contains(token))
            .unwrap_or(self.tokens.start + drawn)
    }
}

/// The finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use forebay_protocols::worker::SamplingParams;

    use super::*;

    fn answer(prompt: &[TokenId], temperature: f32, seed: u64, choice: u32) -> Vec<TokenId> {
        let request = GenerateRequest {
            prompt_token_ids: prompt.to_vec(),
            choice_index: choice,
            sampling: Some(SamplingParams {
                temperature: Some(temperature),
                seed,
                ..SamplingParams::default()
            }),
            ..GenerateRequest::default()
        };
        let answer = Answer::new(&request, 1_000..9_000);
        (0..20).map(|position| answer.token(position)).collect()
    }

    /// The documented formula, to the letter: it is a contract with tests elsewhere.
    #[test]
    fn tokens_are_what_the_formula_says() {
        let prompt = RoutingSeed::default().block_hash(&[5, 6, 7], &[]).0;
        let state = prompt ^ mix(9 ^ mix(1 + 1));
        let third = mix(state.wrapping_add(2_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let third = 1_000 + ((u128::from(third) * 8_000) >> 64) as u32;
        assert_eq!(answer(&[5, 6, 7], 1.0, 9, 1)[2], third);
    }

    #[test]
    fn prompt_seed_and_choice_matter_and_greedy_has_only_the_prompt() {
        let base = answer(&[1, 2, 3], 1.0, 7, 0);
        for other in [
            answer(&[1, 2, 4], 1.0, 7, 0),
            answer(&[1, 2, 3], 1.0, 8, 0),
            answer(&[1, 2, 3], 1.0, 7, 1),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(answer(&[1], 0.0, 7, 0), answer(&[1], 0.0, 8, 3));
        assert_ne!(answer(&[1], 0.0, 7, 0), answer(&[2], 0.0, 7, 0));
    }

    #[test]
    fn banned_tokens_give_way_to_the_next() {
        let answer = Answer {
            state: 1,
            tokens: 10..13,
        };
        let usual = answer.token(4);
        let next = |token| if token == 12 { 10 } else { token + 1 };
        assert_eq!(answer.token_but(4, &[usual]), next(usual));
        let two = [usual, next(usual)];
        assert_eq!(answer.token_but(4, &two), next(next(usual)));
        assert_eq!(answer.token_but(4, &[10, 11, 12]), usual);
    }
}
