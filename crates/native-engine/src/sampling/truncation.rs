//! Which tokens may be drawn: top-k, top-p and min-p without sorting the vocabulary.

use std::ops::Range;

use forebay_protocols::SamplingRules;

use super::weights::to_fixed;

/// Buckets to one unit of distance, a factor of e in probability.
const BUCKETS_PER_UNIT: f32 = 32.0;

/// Beyond this distance from the best token a weight is zero: `e^-28 < 2^-40`.
const REACH: usize = 28;

/// One bucket more than fit, for what is as far away as that.
const BUCKETS: usize = REACH * BUCKETS_PER_UNIT as usize + 1;

/// Buckets that are filled first. Most rows of a good model need no more.
const FIRST_BUCKETS: usize = 64;

/// Finds, in a row of distances and weights, the tokens that a draw may choose.
///
/// Tokens are ranked by distance from the best one, ties by id, and every rule keeps a prefix of
/// that ranking. A histogram over distances says in which bucket the prefix ends; only that
/// bucket, usually a handful of tokens, is sorted. The histogram is made as far as it is needed.
#[derive(Debug)]
pub(super) struct Truncation {
    /// Buckets from the nearest that are filled.
    filled: usize,
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
    /// What the kept tokens weigh together.
    pub(super) weight: u64,
}

impl Kept {
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
            filled: 0,
            counts: vec![0; BUCKETS],
            weights: vec![0; BUCKETS],
            bucket: Vec::new(),
        }
    }

    /// What the rules keep of a row; at least the best token.
    ///
    /// `distances` are at most 0 and one of them is 0; `weights` are theirs, and `total` the sum of
    /// these (see [`weigh`](super::weights::weigh)). Top-p is a share of what top-k leaves.
    pub(super) fn keep(
        &mut self,
        distances: &[f32],
        weights: &[u64],
        total: u64,
        params: &SamplingRules,
    ) -> Kept {
        let mut kept = Kept {
            last: (f32::NEG_INFINITY, u32::MAX),
            floor: to_fixed(params.min_p),
            weight: total,
        };
        let has_top_k = params.top_k < distances.len();
        let has_top_p = params.top_p < 1.0;
        self.clear();
        if has_top_k && let Some((last, weight)) = self.top_k(distances, weights, params.top_k) {
            (kept.last, kept.weight) = (last, weight);
        }
        if has_top_p {
            let target = (f64::from(params.top_p) * kept.weight as f64).ceil() as u64;
            let target = target.clamp(1, kept.weight);
            (kept.last, kept.weight) = self.top_p(distances, weights, target);
        }
        if kept.floor > 0 {
            let tokens = (0..).zip(distances.iter().zip(weights));
            kept.weight = tokens
                .filter(|(token, (distance, weight))| kept.contains(*token, **distance, **weight))
                .map(|(_, (_, weight))| *weight)
                .sum();
        }
        kept
    }

    fn clear(&mut self) {
        self.counts[..self.filled].fill(0);
        self.weights[..self.filled].fill(0);
        self.filled = 0;
    }

    /// Fills buckets up to and with this one.
    fn fill_to(&mut self, bucket: usize, distances: &[f32], weights: &[u64]) {
        if bucket < self.filled {
            return;
        }
        let end = (self.filled * 2).clamp(FIRST_BUCKETS, BUCKETS);
        for_each_within(distances, self.filled..end, |token| {
            let bucket = bucket_of(distances[token]);
            self.counts[bucket] += 1;
            self.weights[bucket] += weights[token];
        });
        self.filled = end;
    }

    /// The last of the `k` best tokens and the weight of all of these; `None` if that is further
    /// down than any weight.
    fn top_k(&mut self, distances: &[f32], weights: &[u64], k: usize) -> Option<((f32, u32), u64)> {
        let (mut count, mut weight) = (0, 0);
        for bucket in 0..BUCKETS {
            self.fill_to(bucket, distances, weights);
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

    /// The last of the fewest best tokens that weigh at least `target`, and what they weigh.
    fn top_p(&mut self, distances: &[f32], weights: &[u64], target: u64) -> ((f32, u32), u64) {
        let mut weight = 0;
        for bucket in 0..BUCKETS {
            self.fill_to(bucket, distances, weights);
            if weight + self.weights[bucket] >= target {
                for token in self.rank(distances, bucket) {
                    weight += weights[*token as usize];
                    if weight >= target {
                        return ((distances[*token as usize], *token), weight);
                    }
                }
            }
            weight += self.weights[bucket];
        }
        unreachable!("all that has a weight is in a bucket")
    }

    /// The tokens of a bucket in order of rank.
    fn rank(&mut self, distances: &[f32], bucket: usize) -> &[u32] {
        self.bucket.clear();
        for_each_within(distances, bucket..bucket + 1, |token| {
            self.bucket.push(token as u32);
        });
        // Stable, so equal distances stay in order of id.
        let distance = |token: &u32| distances[*token as usize];
        self.bucket
            .sort_by(|a, b| distance(b).total_cmp(&distance(a)));
        &self.bucket
    }
}

/// Nearer tokens are in lower buckets. The multiplication by a power of two is exact.
#[inline(always)]
fn bucket_of(distance: f32) -> usize {
    (distance * -BUCKETS_PER_UNIT) as u32 as usize
}

/// The tokens in a range of buckets, in order of id. Where there are few, it takes them at the
/// speed of comparisons, 16 at a time.
fn for_each_within(distances: &[f32], buckets: Range<usize>, mut visit: impl FnMut(usize)) {
    const LANES: usize = 16;
    let near = buckets.start as f32 / -BUCKETS_PER_UNIT;
    let far = buckets.end as f32 / -BUCKETS_PER_UNIT;
    let is_within = |distance: f32| (distance <= near) & (distance > far);
    let (chunks, rest) = distances.as_chunks::<LANES>();
    for (i, chunk) in chunks.iter().enumerate() {
        let mut any = false;
        for distance in chunk {
            any |= is_within(*distance);
        }
        if any {
            let tokens = (i * LANES..).zip(chunk);
            tokens
                .filter(|(_, d)| is_within(**d))
                .for_each(|(token, _)| visit(token));
        }
    }
    let tokens = (chunks.len() * LANES..).zip(rest);
    tokens
        .filter(|(_, d)| is_within(**d))
        .for_each(|(token, _)| visit(token));
}
