//! Merging the bytes of a word into tokens.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use forebay_tokens::TokenId;
use rustc_hash::FxBuildHasher;

/// What two neighbours become: the rank of the merge, of which the least is first, above the new
/// token. Equal ranks are the same merge.
type Merge = u64;

/// A merge and where it was found: its rank above the place of its first token.
type Candidate = u64;

/// The merge of two neighbours that have none.
const NONE: Merge = Merge::MAX;

/// Bytes of a word up to which the next merge is found by looking at all of them.
const SHORT: usize = 40;

/// How a long word is merged piece by piece.
#[derive(Clone, Copy, Debug)]
struct Windows {
    /// Bytes that are merged at a time.
    bytes: usize,
    /// Bytes at the end of a window that are merged again as the beginning of the next.
    margin: usize,
}

const WINDOWS: Windows = Windows {
    bytes: 512,
    margin: 128,
};

/// The merges of a byte-level vocabulary.
///
/// A word becomes tokens by merging, again and again, the two neighbours whose merge has the least
/// rank, the leftmost of several.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    /// The token of each byte.
    bytes: [TokenId; 256],
    by_pair: HashMap<(TokenId, TokenId), Merge, FxBuildHasher>,
}

/// Memory of the merging, kept from word to word.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    tokens: Vec<TokenId>,
    /// The merge of each token with the next.
    merges: Vec<Merge>,
    /// The next and the previous of each token.
    next: Vec<u32>,
    previous: Vec<u32>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

/// A token and how many bytes of the word it has.
type Span = (TokenId, usize);

impl Merges {
    /// No merges yet, with room for some.
    pub(super) fn new(bytes: [TokenId; 256], capacity: usize) -> Self {
        Self {
            bytes,
            by_pair: HashMap::with_capacity_and_hasher(capacity, FxBuildHasher),
        }
    }

    /// Adds the merge of `left` and `right`; of two for the same pair, the later holds.
    pub(super) fn insert(&mut self, left: TokenId, right: TokenId, rank: u32, merged: TokenId) {
        let merge = u64::from(rank) << 32 | u64::from(merged);
        self.by_pair.insert((left, right), merge);
    }

    fn of(&self, left: TokenId, right: TokenId) -> Merge {
        self.by_pair.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of a word.
    ///
    /// The time is linear in the word's length, times its logarithm where tokens depend on what is
    /// far to their right.
    pub(super) fn append(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        if word.len() <= SHORT {
            self.append_short(word, scratch, out);
        } else {
            self.append_long(word, WINDOWS, scratch, out);
        }
    }

    fn append_short(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        let Scratch { tokens, merges, .. } = scratch;
        self.begin(word, tokens, merges);
        loop {
            let least = merges.iter().enumerate().min_by_key(|&(_, merge)| merge);
            let (at, &merge) = least.expect("the last token has an entry");
            if merge == NONE {
                return out.extend_from_slice(tokens);
            }
            tokens[at] = merge as TokenId;
            tokens.remove(at + 1);
            merges.remove(at + 1);
            merges[at] = match tokens.get(at + 1) {
                Some(&next) => self.of(tokens[at], next),
                None => NONE,
            };
            if let Some(previous) = at.checked_sub(1) {
                merges[previous] = self.of(tokens[previous], tokens[at]);
            }
        }
    }

    /// The tokens of the bytes, and their merges with the next: none for the last.
    fn begin(&self, word: &[u8], tokens: &mut Vec<TokenId>, merges: &mut Vec<Merge>) {
        tokens.clear();
        tokens.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)]));
        merges.clear();
        merges.extend(tokens.windows(2).map(|pair| self.of(pair[0], pair[1])));
        merges.push(NONE);
    }

    /// Merges window by window.
    ///
    /// Tokens are those of a word if and only if each two neighbours are the tokens of the bytes
    /// they have together: the first merge across the two within the word would have been the next
    /// within the two alone. So windows can be joined where the first token of one is the token that
    /// the window before it has there. Where it is not, the word is merged whole.
    fn append_long(
        &self,
        word: &[u8],
        windows: Windows,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        let begin = out.len();
        let window = |rest: &[u8]| rest.len().min(windows.bytes);
        let mut rest = word;
        let mut spans = self.spans(&rest[..window(rest)], scratch);
        while rest.len() > windows.bytes {
            let (count, bytes) = before_margin(&spans, windows.bytes - windows.margin);
            let after = &rest[bytes..];
            let following = self.spans(&after[..window(after)], scratch);
            if spans.get(count) == following.first() {
                out.extend(spans[..count].iter().map(|&(token, _)| token));
                (rest, spans) = (after, following);
            } else {
                out.truncate(begin);
                (rest, spans) = (&[], self.spans(word, scratch));
            }
        }
        out.extend(spans.iter().map(|&(token, _)| token));
    }

    /// The tokens of `word`, by a queue of the merges.
    fn spans(&self, word: &[u8], scratch: &mut Scratch) -> Vec<Span> {
        let Scratch {
            tokens,
            merges,
            next,
            previous,
            queue,
        } = scratch;
        let end = u32::try_from(word.len()).expect("a text is shorter than 4 GiB");
        self.begin(word, tokens, merges);
        next.clear();
        next.extend(1..=end);
        previous.clear();
        previous.extend((0..end).map(|at| at.saturating_sub(1)));
        queue.clear();
        let found = merges.iter().zip(0..).filter(|&(&merge, _)| merge != NONE);
        queue.extend(found.map(|(&merge, at)| candidate(merge, at)));

        while let Some(first) = queue.pop() {
            let at = first.0 as u32;
            let here = at as usize;
            if candidate(merges[here], at) != first {
                continue;
            }
            tokens[here] = merges[here] as TokenId;
            let gone = next[here] as usize;
            merges[gone] = NONE;
            next[here] = next[gone];
            merges[here] = NONE;
            if next[here] < end {
                let after = next[here] as usize;
                previous[after] = at;
                merges[here] = self.of(tokens[here], tokens[after]);
                if merges[here] != NONE {
                    queue.push(candidate(merges[here], at));
                }
            }
            if at > 0 {
                let before = previous[here] as usize;
                merges[before] = self.of(tokens[before], tokens[here]);
                if merges[before] != NONE {
                    queue.push(candidate(merges[before], previous[here]));
                }
            }
        }

        let mut spans = Vec::with_capacity(word.len() / 2);
        let mut at = 0;
        while at < word.len() {
            let after = next[at] as usize;
            spans.push((tokens[at], after - at));
            at = after;
        }
        spans
    }
}

fn candidate(merge: Merge, at: u32) -> Reverse<Candidate> {
    Reverse(merge >> 32 << 32 | u64::from(at))
}

/// How many of the tokens, at least one, are before the margin that begins at `limit`, and their
/// bytes.
fn before_margin(spans: &[Span], limit: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for &(_, length) in spans {
        if count > 0 && bytes + length > limit {
            break;
        }
        count += 1;
        bytes += length;
    }
    (count, bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, to the letter.
    fn naive(merges: &Merges, word: &[u8]) -> Vec<TokenId> {
        let mut tokens: Vec<_> = word.iter().map(|&byte| TokenId::from(byte)).collect();
        loop {
            let pairs = tokens.windows(2).map(|pair| merges.of(pair[0], pair[1]));
            let Some((merge, at)) = pairs.zip(0..).min().filter(|&(merge, _)| merge != NONE) else {
                return tokens;
            };
            tokens.splice(at..at + 2, [merge as TokenId]);
        }
    }

    /// Merges among `a`, `b`, `c` and what they become, each pair of earlier tokens at most once.
    fn vocabularies() -> impl Strategy<Value = Merges> {
        let choice = any::<(prop::sample::Index, prop::sample::Index)>();
        prop::collection::vec(choice, 0..24).prop_map(|choices| {
            let mut bytes = [0; 256];
            (0..=u8::MAX).for_each(|byte| bytes[usize::from(byte)] = byte.into());
            let mut merges = Merges::new(bytes, 0);
            let mut tokens: Vec<(TokenId, Vec<u8>)> =
                b"abc".map(|byte| (byte.into(), vec![byte])).into();
            for (rank, (left, right)) in (0..).zip(choices) {
                let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
                let text = [left.1, right.1].concat();
                let known = tokens.iter().find(|token| token.1 == text);
                let merged = known.map_or(256 + rank, |token| token.0);
                if !merges.by_pair.contains_key(&(left.0, right.0)) {
                    merges.insert(left.0, right.0, rank, merged);
                    tokens.push((merged, text));
                }
            }
            merges
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn all_ways_are_the_definition(
            merges in vocabularies(),
            word in prop_oneof!["[abc]{0,40}", "(abc|ab|bca|a){0,30}", "a{0,80}"],
            bytes in 2..12usize,
            margin in 0..12usize,
        ) {
            let word = word.as_bytes();
            let expected = naive(&merges, word);
            let mut scratch = Scratch::default();
            let mut short = Vec::new();
            merges.append_short(word, &mut scratch, &mut short);
            prop_assert_eq!(&short, &expected);
            let windows = Windows { bytes, margin: margin.min(bytes) };
            let mut long = Vec::new();
            merges.append_long(word, windows, &mut scratch, &mut long);
            prop_assert_eq!(&long, &expected);
        }
    }
}
