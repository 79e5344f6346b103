#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use forebay_tokens::BlockSize;

use super::*;
use crate::kv_memory::{KvDtype, KvLayout, KvMemory};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn number(seed: usize) -> f32 {
    ((seed * 7_919 + seed / 31 * 104_729) % 2_003) as f32 / 1_001.0 - 1.0
}

struct Case {
    head_dim: usize,
    block_tokens: u32,
    tokens: usize,
}

impl Case {
    fn query(&self) -> Vec<f32> {
        (0..self.tokens * HEADS * self.head_dim)
            .map(|i| 3.0 * number(i))
            .collect()
    }

    fn keys(&self, position: usize) -> Vec<f32> {
        (0..KV_HEADS * self.head_dim)
            .map(|i| number(position * 1_000 + i))
            .collect()
    }

    fn values(&self, position: usize) -> Vec<f32> {
        (0..KV_HEADS * self.head_dim)
            .map(|i| number(position * 2_000 + i + 7))
            .collect()
    }

    /// Runs the kernel with the sequence in the given blocks and cut into tiles of `tile` rows.
    fn run(&self, kernel: Kernel, threads: usize, blocks: &[BlockId], tile: usize) -> Vec<f32> {
        let layout = KvLayout {
            layers: 2,
            kv_heads: KV_HEADS,
            head_dim: self.head_dim,
            block_size: BlockSize::new(self.block_tokens).unwrap(),
            dtype: KvDtype::F32,
        };
        let size = layout.block_size.get();
        let mut memory = KvMemory::new(layout, 64).unwrap();
        for position in 0..self.tokens {
            let (block, slot) = (blocks[position / size], position % size);
            memory.write(1, block, slot, &self.keys(position), &self.values(position));
        }
        let tiles: Vec<RowTile<'_>> = (0..self.tokens)
            .step_by(tile)
            .map(|first| RowTile {
                rows: first..(first + tile).min(self.tokens),
                position: first,
                blocks,
            })
            .collect();
        let columns = HEADS * self.head_dim;
        let mut out = vec![f32::NAN; self.tokens * columns];
        let view = memory.layer(1);
        let mut pool = pool(threads);
        attention(
            kernel,
            &mut pool,
            view,
            HEADS,
            &self.query(),
            columns,
            &tiles,
            &mut out,
        );
        out
    }

    fn exact(&self) -> Vec<f64> {
        let dim = self.head_dim;
        let query = self.query();
        let mut out = Vec::new();
        for row in 0..self.tokens {
            for head in 0..HEADS {
                let kv = head / (HEADS / KV_HEADS) * dim;
                let query = &query[(row * HEADS + head) * dim..][..dim];
                let dot = |keys: &[f32]| -> f64 {
                    query
                        .iter()
                        .zip(&keys[kv..])
                        .map(|(q, k)| f64::from(*q) * f64::from(*k))
                        .sum()
                };
                let weights: Vec<f64> = (0..=row)
                    .map(|position| (dot(&self.keys(position)) / (dim as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..dim {
                    let value = |position: usize| f64::from(self.values(position)[kv + d]);
                    out.push((0..=row).map(|p| weights[p] * value(p)).sum::<f64>() / sum);
                }
            }
        }
        out
    }
}

#[test]
fn attention_has_the_same_bits_for_any_kernel_tiling_threads_and_placement() {
    for (head_dim, block_tokens, tokens) in [
        (64, 16, 45),
        (32, 16, 17),
        (16, 5, 23),
        (80, 1, 9),
        (128, 48, 50),
    ] {
        let case = Case {
            head_dim,
            block_tokens,
            tokens,
        };
        let needed = tokens.div_ceil(block_tokens as usize) as u32;
        let in_order: Vec<BlockId> = (0..needed).map(BlockId).collect();
        let scattered: Vec<BlockId> = (0..needed).map(|i| BlockId((i * 23 + 5) % 64)).collect();
        let expected = case.run(Kernel::available()[0], 1, &in_order, 1);
        for (got, exact) in expected.iter().zip(case.exact()) {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} for {exact}");
        }
        for kernel in Kernel::available() {
            for (threads, blocks, tile) in
                [(1, &in_order, 8), (3, &scattered, 3), (2, &scattered, 8)]
            {
                let got = case.run(kernel, threads, blocks, tile);
                assert!(
                    got.iter()
                        .zip(&expected)
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{kernel}, {threads} threads, tiles of {tile}, head dimension {head_dim}"
                );
            }
        }
    }
}
