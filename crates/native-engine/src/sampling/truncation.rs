//! Which tokens may be drawn: top-k, top-p and min-p without sorting the vocabulary.

use super::SamplingParams;
use super::weights::to_fixed;

/// Buckets to one unit of distance, a factor of e in probability.
const BUCKETS_PER_UNIT: usize = 32;

/// Beyond this distance from the best token a weight is zero: `e^-28 < 2^-40`.
const REACH: usize = 28;

/// Buckets for everything that has a weight, and one for all the rest.
const BUCKETS: usize = REACH * BUCKETS_PER_UNIT + 1;

/// Finds, in a row of distances and weights, the tokens that a draw may choose.
///
/// Tokens are ranked by distance from the best one, ties by id, and every rule keeps a prefix of
/// that ranking. A histogram over distances says in which bucket the prefix ends; only that
/// bucket, usually a handful of tokens, is sorted.
#[derive(Debug)]
pub(super) struct Truncation {
    counts: Vec<u32>,
    weights: Vec<u64>,
    bucket: Vec<u32>,
}

/// The tokens that are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    /// The last token of the ranking that is kept, by distance and id.
    last: (f32, u32),
    /// The least weight that is kept.
    floor: u64,
}

impl Kept {
    const ALL: Self = Self {
        last: (f32::NEG_INFINITY, u32::MAX),
        floor: 0,
    };

    /// Whether a token is kept.
    #[inline(always)]
    pub(super) fn contains(&self, token: u32, distance: f32, weight: u64) -> bool {
        let (last, id) = self.last;
        (distance > last || (distance == last && token <= id)) && weight >= self.floor
    }
}

impl Truncation {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            weights: vec![0; BUCKETS],
            bucket: Vec::new(),
        }
    }

    /// What the rules keep of a row; at least the best token.
    ///
    /// `distances` are at most 0 and one of them is 0, `weights` their weights (see
    /// [`weigh`](super::weights::weigh)). Top-p is a share of what top-k leaves.
    pub(super) fn keep(
        &mut self,
        distances: &[f32],
        weights: &[u64],
        params: &SamplingParams,
    ) -> Kept {
        let mut kept = Kept {
            floor: to_fixed(params.min_p),
            ..Kept::ALL
        };
        let has_top_k = params.top_k < distances.len();
        let has_top_p = params.top_p < 1.0;
        if !has_top_k && !has_top_p {
            return kept;
        }
        self.fill(distances, weights);
        let mut total = self.weights.iter().sum();
        if has_top_k && let Some((last, weight)) = self.top_k(distances, weights, params.top_k) {
            kept.last = last;
            total = weight;
        }
        if has_top_p {
            let target = (f64::from(params.top_p) * total as f64).ceil() as u64;
            let target = target.clamp(1, total);
            kept.last = self.top_p(distances, weights, target);
        }
        kept
    }

    fn fill(&mut self, distances: &[f32], weights: &[u64]) {
        self.counts.fill(0);
        self.weights.fill(0);
        for (distance, weight) in distances.iter().zip(weights) {
            let bucket = bucket_of(*distance);
            self.counts[bucket] += 1;
            self.weights[bucket] += weight;
        }
    }

    /// The last of the `k` best tokens and the weight of all of these; `None` if that is further
    /// down than any weight.
    fn top_k(&mut self, distances: &[f32], weights: &[u64], k: usize) -> Option<((f32, u32), u64)> {
        let (mut count, mut weight) = (0, 0);
        for bucket in 0..BUCKETS - 1 {
            let in_bucket = self.counts[bucket] as usize;
            if count + in_bucket >= k {
                let ranked = self.rank(distances, bucket);
                let ranked = &ranked[..k - count];
                let last = *ranked.last()?;
                weight += ranked.iter().map(|t| weights[*t as usize]).sum::<u64>();
                return Some(((distances[last as usize], last), weight));
            }
            count += in_bucket;
            weight += self.weights[bucket];
        }
        None
    }

    /// The last of the fewest best tokens that weigh at least `target`, which all together do.
    fn top_p(&mut self, distances: &[f32], weights: &[u64], target: u64) -> (f32, u32) {
        let mut weight = 0;
        for bucket in 0..BUCKETS {
            if weight + self.weights[bucket] >= target {
                for token in self.rank(distances, bucket) {
                    weight += weights[*token as usize];
                    if weight >= target {
                        return (distances[*token as usize], *token);
                    }
                }
            }
            weight += self.weights[bucket];
        }
        unreachable!("the tokens of all buckets weigh at least the target")
    }

    /// The tokens of a bucket in order of rank.
    fn rank(&mut self, distances: &[f32], bucket: usize) -> &[u32] {
        self.bucket.clear();
        let tokens = (0..).zip(distances);
        let tokens = tokens.filter(|(_, distance)| bucket_of(**distance) == bucket);
        self.bucket.extend(tokens.map(|(token, _)| token));
        // Stable, so equal distances stay in order of id.
        let distance = |token: &u32| distances[*token as usize];
        self.bucket
            .sort_by(|a, b| distance(b).total_cmp(&distance(a)));
        &self.bucket
    }
}

/// Nearer tokens are in lower buckets.
#[inline(always)]
fn bucket_of(distance: f32) -> usize {
    // A conversion to an integer saturates, at 0 and for -infinity at the last bucket.
    ((distance * -(BUCKETS_PER_UNIT as f32)) as u32 as usize).min(BUCKETS - 1)
}
