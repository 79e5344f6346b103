//! Causal attention over paged keys and values.
//!
//! For one query row and head, whatever the batch, the chunk and the blocks:
//!
//! - a score sums its products in four chains (dimensions 0, 4, 8.., 1, 5, 9.. and so on), adds
//!   the chains as `(0 + 1) + (2 + 3)`, and is then scaled;
//! - the softmax takes its sum over 16 lanes by position and then as a tree;
//! - the output adds `probability * value` in ascending position and multiplies with the
//!   inverse of the sum last.

use std::cell::RefCell;
use std::ops::Range;

use forebay_tokens::BlockId;

use super::cpu::prefetch;
use super::elementwise::{exp, sum_lanes};
use super::shared::DisjointRows;
use super::{Kernel, LANES, Pool, vectorised};

/// Rows of one task at most: a block's keys are read once for all of them.
pub(crate) const TILE_ROWS: usize = 8;

/// Chains that a score is summed in.
const CHAINS: usize = 4;

/// The keys and values of one layer.
///
/// `data` holds blocks of `block_floats` floats. In each, from `layer_offset` on: the keys as
/// `[kv head][dimension][slot]`, then the values as `[kv head][slot][dimension]`.
#[derive(Clone, Copy)]
pub(crate) struct KvView<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) block_floats: usize,
    pub(crate) layer_offset: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_tokens: usize,
}

impl<'a> KvView<'a> {
    fn part(&self, block: BlockId, part: usize) -> &'a [f32] {
        let floats = self.head_dim * self.block_tokens;
        let start = block.0 as usize * self.block_floats + self.layer_offset + part * floats;
        &self.data[start..start + floats]
    }

    fn keys(&self, block: BlockId, kv_head: usize) -> &'a [f32] {
        self.part(block, kv_head)
    }

    fn values(&self, block: BlockId, kv_head: usize) -> &'a [f32] {
        self.part(block, self.kv_heads + kv_head)
    }
}

/// Up to [`TILE_ROWS`] consecutive rows of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct RowTile<'a> {
    /// Rows of the batch.
    pub(crate) rows: Range<usize>,
    /// Position of the first row in its sequence.
    pub(crate) position: usize,
    /// The sequence's blocks, which hold all positions up to the last row's.
    pub(crate) blocks: &'a [BlockId],
}

/// Attention of every row and head. `query` rows have `query_columns` columns of which the first
/// `heads * head_dim` are used; `out` rows have `heads * head_dim`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention(
    kernel: Kernel,
    pool: &mut Pool,
    kv: KvView<'_>,
    heads: usize,
    query: &[f32],
    query_columns: usize,
    tiles: &[RowTile<'_>],
    out: &mut [f32],
) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
    }
    let dim = kv.head_dim;
    // Query heads that share keys and values stay together, unless that left threads idle.
    let shared = heads / kv.kv_heads;
    let together = if tiles.len() * kv.kv_heads < 2 * pool.threads() {
        1
    } else {
        shared
    };
    let parts = heads / together;
    let out = DisjointRows::new(out, heads * dim);
    pool.for_each(tiles.len() * parts, &|task| {
        let (tile, first_head) = (&tiles[task / parts], task % parts * together);
        let places = (first_head..first_head + together).flat_map(|head| {
            tile.rows
                .clone()
                .map(move |row| (row, head * dim..(head + 1) * dim))
        });
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.query.clear();
            for (row, columns) in places.clone() {
                scratch
                    .query
                    .extend_from_slice(&query[row * query_columns..][columns]);
            }
            attend(kernel, &kv, first_head / shared, tile, scratch);
            for (from, (row, columns)) in scratch.out.chunks_exact(dim).zip(places) {
                // SAFETY: each (row, head) belongs to one task.
                unsafe { out.part(row, columns) }.copy_from_slice(from);
            }
        });
    });
}

/// A thread's buffers for one task.
pub(super) struct Scratch {
    /// Queries of the task's heads, and for each head of the tile's rows.
    query: Vec<f32>,
    /// A row of scores for each query.
    scores: Vec<f32>,
    /// The result for each query.
    out: Vec<f32>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            query: Vec::new(),
            scores: Vec::new(),
            out: Vec::new(),
        }
    }
}

vectorised! {
    fn attend(kv: &KvView<'_>, kv_head: usize, tile: &RowTile<'_>, scratch: &mut Scratch)
        = attend_body
}

#[inline(always)]
fn attend_body(kv: &KvView<'_>, kv_head: usize, tile: &RowTile<'_>, scratch: &mut Scratch) {
    let (dim, block_tokens) = (kv.head_dim, kv.block_tokens);
    let rows = tile.rows.len();
    let blocks = &tile.blocks[..(tile.position + rows).div_ceil(block_tokens)];
    let stride = (blocks.len() * block_tokens).next_multiple_of(LANES);
    let queries = scratch.query.len() / dim;
    scratch.scores.resize(queries * stride, 0.0);
    let scale = 1.0 / (dim as f32).sqrt();

    for (i, block) in blocks.iter().enumerate() {
        let keys = kv.keys(*block, kv_head);
        if let Some(next) = blocks.get(i + 1) {
            prefetch(kv.keys(*next, kv_head));
        }
        let scores = scratch.scores.chunks_exact_mut(stride);
        for (query, scores) in scratch.query.chunks_exact(dim).zip(scores) {
            let scores = &mut scores[i * block_tokens..][..block_tokens];
            score_block(query, keys, scale, scores);
        }
    }

    // The sums replace the queries, which are not needed any more.
    for (i, scores) in scratch.scores.chunks_exact_mut(stride).enumerate() {
        scratch.query[i] = exponentials(scores, tile.position + i % rows + 1);
    }

    scratch.out.clear();
    scratch.out.resize(queries * dim, 0.0);
    for (i, block) in blocks.iter().enumerate() {
        let values = kv.values(*block, kv_head);
        if let Some(next) = blocks.get(i + 1) {
            prefetch(kv.values(*next, kv_head));
        }
        let first = i * block_tokens;
        let scores = scratch.scores.chunks_exact(stride);
        for (query, (out, scores)) in scratch.out.chunks_exact_mut(dim).zip(scores).enumerate() {
            let seen = tile.position + query % rows + 1;
            let seen = seen.saturating_sub(first).min(block_tokens);
            add_values(&scores[first..first + seen], values, out);
        }
    }
    for (out, sum) in scratch.out.chunks_exact_mut(dim).zip(&scratch.query) {
        let inverse = 1.0 / sum;
        out.iter_mut().for_each(|out| *out *= inverse);
    }
}

/// Scores of one query with all slots of a block, whose keys are `[dimension][slot]`.
#[inline(always)]
fn score_block(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    let slots = scores.len();
    let mut slot = 0;
    while slot + LANES <= slots {
        let [mut a, mut b, mut c, mut d] = [[0.0f32; LANES]; CHAINS];
        for (query, keys) in query
            .as_chunks::<CHAINS>()
            .0
            .iter()
            .zip(keys.chunks_exact(CHAINS * slots))
        {
            add_scaled(&mut a, query[0], &keys[slot..]);
            add_scaled(&mut b, query[1], &keys[slots + slot..]);
            add_scaled(&mut c, query[2], &keys[2 * slots + slot..]);
            add_scaled(&mut d, query[3], &keys[3 * slots + slot..]);
        }
        let mut joined = [0.0; LANES];
        for lane in 0..LANES {
            joined[lane] = join_chains([a[lane], b[lane], c[lane], d[lane]]) * scale;
        }
        scores[slot..slot + LANES].copy_from_slice(&joined);
        slot += LANES;
    }
    for slot in slot..slots {
        let mut chains = [0.0; CHAINS];
        for (query, keys) in query
            .as_chunks::<CHAINS>()
            .0
            .iter()
            .zip(keys.chunks_exact(CHAINS * slots))
        {
            for chain in 0..CHAINS {
                chains[chain] += query[chain] * keys[chain * slots + slot];
            }
        }
        scores[slot] = join_chains(chains) * scale;
    }
}

#[inline(always)]
fn add_scaled(sums: &mut [f32; LANES], factor: f32, values: &[f32]) {
    let values: &[f32; LANES] = values[..LANES].try_into().expect("16 floats");
    for lane in 0..LANES {
        sums[lane] += factor * values[lane];
    }
}

#[inline(always)]
fn join_chains(chains: [f32; CHAINS]) -> f32 {
    (chains[0] + chains[1]) + (chains[2] + chains[3])
}

/// Replaces the first `count` scores by `e^(score - largest)` and returns their sum. What follows
/// them up to a multiple of 16 is overwritten.
#[inline(always)]
fn exponentials(scores: &mut [f32], count: usize) -> f32 {
    let (lanes, _) = scores[..count.next_multiple_of(LANES)].as_chunks_mut::<LANES>();
    if let Some(last) = lanes.last_mut() {
        for (i, score) in last.iter_mut().enumerate() {
            if i > (count - 1) % LANES {
                *score = f32::NEG_INFINITY;
            }
        }
    }
    let mut largest = [f32::NEG_INFINITY; LANES];
    for scores in lanes.iter() {
        for i in 0..LANES {
            largest[i] = if scores[i] > largest[i] {
                scores[i]
            } else {
                largest[i]
            };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for scores in lanes {
        for i in 0..LANES {
            scores[i] = exp(scores[i] - largest);
            sums[i] += scores[i];
        }
    }
    sum_lanes(sums)
}

/// Adds `probability * value` for each slot in order; `values` are `[slot][dimension]`.
#[inline(always)]
fn add_values(probabilities: &[f32], values: &[f32], out: &mut [f32]) {
    let dim = out.len();
    let mut first = 0;
    while first + 4 * LANES <= dim {
        add_value_lanes::<{ 4 * LANES }>(probabilities, values, dim, first, out);
        first += 4 * LANES;
    }
    while first < dim {
        add_value_lanes::<LANES>(probabilities, values, dim, first, out);
        first += LANES;
    }
}

#[inline(always)]
fn add_value_lanes<const N: usize>(
    probabilities: &[f32],
    values: &[f32],
    dim: usize,
    first: usize,
    out: &mut [f32],
) {
    let out: &mut [f32; N] = (&mut out[first..first + N]).try_into().expect("N floats");
    let mut sums = *out;
    for (probability, values) in probabilities.iter().zip(values.chunks_exact(dim)) {
        let values: &[f32; N] = values[first..first + N].try_into().expect("N floats");
        for i in 0..N {
            sums[i] += probability * values[i];
        }
    }
    *out = sums;
}

#[cfg(test)]
mod tests;
