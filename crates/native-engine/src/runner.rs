//! One step of the model over any mix of sequences.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use forebay_tokens::{BlockId, TokenId};

use crate::error::{RunnerError, StepError};
use crate::kernel::{
    Kernel, Output, Pool, QuantisedRows, RopeAngles, RowTile, TILE_ROWS, attention, matmul,
    quantise, rms_norm, silu_product,
};
use crate::kv_memory::KvMemory;
use crate::model::{Layer, Model};

/// What a sequence contributes to a step.
#[derive(Clone, Copy, Debug)]
pub struct SequenceStep<'a> {
    /// The tokens to compute: a chunk of a prompt, or the one token sampled last.
    pub tokens: &'a [TokenId],
    /// Position of the first of them in the sequence. Keys and values of all positions before it
    /// must be in `blocks`.
    pub start: usize,
    /// The sequence's blocks in order, covering at least `start + tokens.len()` positions. Blocks
    /// that lie wholly before `start` are only read and may be shared between sequences.
    pub blocks: &'a [BlockId],
    /// For which of the tokens logits are computed.
    pub logits: LogitsWanted,
}

/// Which tokens of a sequence get a row of logits. Rows cost as much as several layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: a chunk in the middle of a prompt.
    None,
    /// The last token only.
    Last,
    /// Every token.
    All,
}

/// The logits of a step: rows of as many floats as the vocabulary has tokens.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    vocabulary: usize,
    values: Vec<f32>,
    /// For each sequence of the step, its rows.
    rows: Vec<Range<usize>>,
}

impl Logits {
    /// The rows of a sequence, by its index in the step's work: as many as were asked for, in
    /// order of their tokens.
    ///
    /// # Panics
    ///
    /// If the step had no such sequence.
    pub fn rows(&self, sequence: usize) -> impl ExactSizeIterator<Item = &[f32]> {
        self.rows[sequence]
            .clone()
            .map(|row| &self.values[row * self.vocabulary..][..self.vocabulary])
    }

    /// The last row of a sequence, if any were asked for.
    ///
    /// # Panics
    ///
    /// If the step had no such sequence.
    pub fn last(&self, sequence: usize) -> Option<&[f32]> {
        self.rows(sequence).last()
    }

    /// Like [`last`](Self::last), for a sampler that edits the row in place.
    ///
    /// # Panics
    ///
    /// If the step had no such sequence.
    pub fn last_mut(&mut self, sequence: usize) -> Option<&mut [f32]> {
        let row = self.rows[sequence].clone().last()?;
        Some(&mut self.values[row * self.vocabulary..][..self.vocabulary])
    }
}

/// How a [`Runner`] uses the CPU. No choice changes a result.
#[derive(Clone, Copy, Debug)]
pub struct RunnerOptions {
    /// Threads that compute, the caller of [`Runner::step`] included.
    pub threads: NonZeroUsize,
    /// Instructions to use.
    pub kernel: Kernel,
}

impl Default for RunnerOptions {
    /// All the threads that the process may run on, and the fastest kernel.
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            kernel: Kernel::best(),
        }
    }
}

/// Computes steps of a model over its KV memory.
///
/// **Batch invariance**: a row of logits has the same bits however its sequence was computed:
/// alone or with others, in one chunk or many, on keys and values computed now, earlier or
/// elsewhere, in whichever blocks, by whichever kernel, on any number of threads.
pub struct Runner {
    model: Arc<Model>,
    memory: KvMemory,
    kernel: Kernel,
    pool: Pool,
    scratch: Scratch,
}

/// Buffers that are kept between steps.
#[derive(Default)]
struct Scratch {
    /// Position of each row of the batch.
    positions: Vec<usize>,
    /// Where each row's keys and values go.
    slots: Vec<(BlockId, usize)>,
    angles: RopeAngles,
    hidden: Vec<f32>,
    query_key_value: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    quantised: QuantisedRows,
    /// Blocks that the step writes, and for which sequence.
    written: Vec<(BlockId, usize)>,
}

impl Runner {
    /// A runner of `model` over `memory`.
    ///
    /// # Errors
    ///
    /// [`RunnerError`] if `memory` has another layout, or the threads cannot be started.
    pub fn new(
        model: Arc<Model>,
        memory: KvMemory,
        options: RunnerOptions,
    ) -> Result<Self, RunnerError> {
        if *memory.layout() != model.kv_layout(memory.layout().block_size) {
            return Err(RunnerError::Layout);
        }
        Ok(Self {
            model,
            memory,
            kernel: options.kernel,
            pool: Pool::new(options.threads)?,
            scratch: Scratch::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The KV memory.
    pub fn memory(&self) -> &KvMemory {
        &self.memory
    }

    /// The KV memory, for importing blocks.
    pub fn memory_mut(&mut self) -> &mut KvMemory {
        &mut self.memory
    }

    /// Computes keys, values and the wanted logits of all tokens in `work`, and replaces the
    /// contents of `logits`.
    ///
    /// In each layer the keys and values of all tokens are written before any is read, so one
    /// sequence of a step may read blocks that another one fills.
    ///
    /// # Errors
    ///
    /// [`StepError`] if an input is invalid; nothing has changed then.
    pub fn step(
        &mut self,
        work: &[SequenceStep<'_>],
        logits: &mut Logits,
    ) -> Result<(), StepError> {
        self.check(work)?;
        let block_tokens = self.memory.layout().block_size.get();
        let model = Arc::clone(&self.model);
        let hidden = model.shape.hidden;
        let scratch = &mut self.scratch;

        scratch.positions.clear();
        scratch.slots.clear();
        scratch.hidden.clear();
        let mut tiles = Vec::new();
        for sequence in work {
            let first_row = scratch.positions.len();
            for (position, token) in (sequence.start..).zip(sequence.tokens) {
                scratch.positions.push(position);
                let block = sequence.blocks[position / block_tokens];
                scratch.slots.push((block, position % block_tokens));
                let end = scratch.hidden.len();
                scratch.hidden.resize(end + hidden, 0.0);
                model
                    .embedding
                    .row(*token as usize, &mut scratch.hidden[end..]);
            }
            for offset in (0..sequence.tokens.len()).step_by(TILE_ROWS) {
                let rows = TILE_ROWS.min(sequence.tokens.len() - offset);
                tiles.push(RowTile {
                    rows: first_row + offset..first_row + offset + rows,
                    position: sequence.start + offset,
                    blocks: sequence.blocks,
                });
            }
        }
        scratch
            .angles
            .set(&mut self.pool, &model.rope, &scratch.positions);

        for (number, layer) in model.layers.iter().enumerate() {
            self.attention(number, layer, &tiles);
            self.feed_forward(layer);
        }
        self.output(work, logits);
        Ok(())
    }

    /// Adds a layer's attention to the hidden states.
    fn attention(&mut self, number: usize, layer: &Layer, tiles: &[RowTile<'_>]) {
        let (kernel, pool, scratch) = (self.kernel, &mut self.pool, &mut self.scratch);
        let shape = &self.model.shape;
        let (query, kv) = (shape.query_columns(), shape.kv_columns());
        let columns = query + 2 * kv;
        let rows = scratch.positions.len();

        let (x, quantised) = (&mut scratch.hidden, &mut scratch.quantised);
        rms_norm(
            kernel,
            pool,
            x,
            &layer.attention_norm,
            self.model.epsilon,
            quantised,
        );
        scratch.query_key_value.resize(rows * columns, 0.0);
        let all = &mut scratch.query_key_value;
        matmul(
            kernel,
            pool,
            quantised,
            &layer.query_key_value,
            Output::Store,
            all,
        );
        scratch
            .angles
            .rotate(kernel, pool, all, columns, shape.heads + shape.kv_heads);
        for (row, (block, slot)) in all.chunks_exact(columns).zip(&scratch.slots) {
            let (keys, values) = row[query..].split_at(kv);
            self.memory.write(number, *block, *slot, keys, values);
        }

        scratch.attended.resize(rows * query, 0.0);
        let (view, out) = (self.memory.layer(number), &mut scratch.attended);
        attention(kernel, pool, view, shape.heads, all, columns, tiles, out);
        quantise(kernel, pool, out, query, quantised);
        matmul(
            kernel,
            pool,
            quantised,
            &layer.attention_output,
            Output::Add,
            x,
        );
    }

    /// Adds a layer's feed-forward part to the hidden states.
    fn feed_forward(&mut self, layer: &Layer) {
        let (kernel, pool, scratch) = (self.kernel, &mut self.pool, &mut self.scratch);
        let columns = self.model.shape.feed_forward;
        let (x, quantised) = (&mut scratch.hidden, &mut scratch.quantised);
        rms_norm(
            kernel,
            pool,
            x,
            &layer.feed_forward_norm,
            self.model.epsilon,
            quantised,
        );
        scratch
            .gate_up
            .resize(scratch.positions.len() * 2 * columns, 0.0);
        let gate_up = &mut scratch.gate_up;
        matmul(
            kernel,
            pool,
            quantised,
            &layer.gate_up,
            Output::Store,
            gate_up,
        );
        silu_product(kernel, pool, gate_up, columns, quantised);
        matmul(kernel, pool, quantised, &layer.down, Output::Add, x);
    }

    /// Computes the wanted logits from the last hidden states.
    fn output(&mut self, work: &[SequenceStep<'_>], logits: &mut Logits) {
        let hidden = self.model.shape.hidden;
        let x = &mut self.scratch.hidden;
        logits.vocabulary = self.model.shape.vocabulary;
        logits.rows.clear();
        // The wanted rows move to the front.
        let (mut row, mut kept) = (0, 0);
        for sequence in work {
            let end = row + sequence.tokens.len();
            let wanted = match sequence.logits {
                LogitsWanted::None => end..end,
                LogitsWanted::Last => end - 1..end,
                LogitsWanted::All => row..end,
            };
            let first = kept;
            kept += wanted.len();
            x.copy_within(wanted.start * hidden..wanted.end * hidden, first * hidden);
            logits.rows.push(first..kept);
            row = end;
        }
        x.truncate(kept * hidden);
        logits.values.resize(kept * logits.vocabulary, 0.0);
        let (kernel, pool, quantised) = (self.kernel, &mut self.pool, &mut self.scratch.quantised);
        rms_norm(
            kernel,
            pool,
            x,
            &self.model.output_norm,
            self.model.epsilon,
            quantised,
        );
        let output = self.model.output();
        matmul(
            kernel,
            pool,
            quantised,
            output,
            Output::Store,
            &mut logits.values,
        );
    }

    /// Checks everything about a step that could be wrong.
    fn check(&mut self, work: &[SequenceStep<'_>]) -> Result<(), StepError> {
        let shape = &self.model.shape;
        let block_size = self.memory.layout().block_size;
        let blocks = self.memory.blocks();
        let written = &mut self.scratch.written;
        written.clear();
        for (sequence, step) in work.iter().enumerate() {
            if step.tokens.is_empty() {
                return Err(StepError::Empty { sequence });
            }
            let end = step.start.saturating_add(step.tokens.len());
            if end > shape.context_length {
                return Err(StepError::Context {
                    sequence,
                    tokens: end,
                    context: shape.context_length,
                });
            }
            let vocabulary = shape.vocabulary;
            let unknown = step
                .tokens
                .iter()
                .find(|token| **token as usize >= vocabulary);
            if let Some(&token) = unknown {
                return Err(StepError::Token {
                    sequence,
                    token,
                    vocabulary,
                });
            }
            let needed = block_size.blocks_for(end);
            let Some(used) = step.blocks.get(..needed) else {
                return Err(StepError::BlockTable {
                    sequence,
                    got: step.blocks.len(),
                    needed,
                });
            };
            if let Some(&block) = used.iter().find(|block| block.0 as usize >= blocks) {
                return Err(StepError::NoSuchBlock {
                    sequence,
                    block,
                    blocks,
                });
            }
            let blocks = &used[step.start / block_size.get()..];
            written.extend(blocks.iter().map(|block| (*block, sequence)));
        }
        written.sort_unstable();
        match written.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(()),
            Some(pair) => Err(StepError::SharedWrite {
                sequence: pair[1].1,
                block: pair[1].0,
            }),
        }
    }
}
