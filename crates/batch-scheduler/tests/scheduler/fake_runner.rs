//! A model without weights whose every token depends on the KV of everything before it, read from
//! the physical blocks: whatever a scheduler gets wrong about blocks shows in the tokens.

use std::collections::{BTreeMap, HashSet};

use forebay_batch_scheduler::{
    Batch, BatchItem, Finish, NewSequence, Priority, Progress, Sampled, Scheduler, SchedulerConfig,
    SequenceId,
};
use forebay_kv_block_manager::{BlockPool, PoolConfig};
use forebay_tokens::{BlockChain, BlockSize, ContentKey, ContentNamespace, RoutingSeed, TokenId};

pub(crate) const BLOCK_SIZE: usize = 4;
const VOCABULARY: u64 = 50;
/// The sampler stops at this token.
const STOP: TokenId = 7;

fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The KV of one position: of its token, and of all before it.
fn kv(before: u64, token: TokenId) -> u64 {
    mix(before, u64::from(token) + 1)
}

fn next_token(kvs: impl Iterator<Item = u64>) -> TokenId {
    let all = kvs.fold(0, mix);
    ((all >> 32) % VOCABULARY) as TokenId
}

/// What a prompt's answer must be, stop token included.
pub(crate) fn reference(prompt: &[TokenId], max_new_tokens: usize) -> Vec<TokenId> {
    let mut kvs = vec![];
    let mut answer = vec![];
    let mut tokens = prompt.to_vec();
    while answer.len() < max_new_tokens && answer.last() != Some(&STOP) {
        for token in tokens.drain(..) {
            kvs.push(kv(kvs.last().copied().unwrap_or(0), token));
        }
        tokens.push(next_token(kvs.iter().copied()));
        answer.push(tokens[0]);
    }
    answer
}

/// A scheduler with the fake model's memory.
pub(crate) struct FakeRunner {
    pub(crate) scheduler: Scheduler,
    memory: Vec<[u64; BLOCK_SIZE]>,
    /// The sequences that have blocks.
    running: HashSet<SequenceId>,
    /// The tokens that each sequence got here, and why it ended.
    pub(crate) answers: BTreeMap<SequenceId, (Vec<TokenId>, Option<Finish>)>,
    /// Positions computed so far.
    pub(crate) n_computed: usize,
    /// All batches, for comparison.
    pub(crate) trace: Vec<Vec<BatchItem>>,
}

pub(crate) fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_batch_tokens: 64,
        max_chunk_tokens: 64,
        max_sequences: 8,
        max_waiting: 100,
        context_length: 1000,
    }
}

pub(crate) fn sequence(id: u64, prompt: &[TokenId], max_new_tokens: usize) -> NewSequence {
    let namespace = ContentNamespace::new(&ContentKey::new([1; 32]), b"model", b"");
    let block_size = BlockSize::new(BLOCK_SIZE as u32).unwrap();
    NewSequence {
        id: SequenceId(id),
        prompt: prompt.to_vec(),
        emitted: vec![],
        max_new_tokens,
        priority: Priority::default(),
        chain: BlockChain::new(namespace, RoutingSeed::default(), block_size),
    }
}

impl FakeRunner {
    pub(crate) fn new(config: SchedulerConfig, n_blocks: u32) -> Self {
        let block_size = BlockSize::new(BLOCK_SIZE as u32).unwrap();
        let pool = BlockPool::new(PoolConfig::full_attention(n_blocks, block_size)).unwrap();
        Self {
            scheduler: Scheduler::new(config, pool).unwrap(),
            memory: vec![[0; BLOCK_SIZE]; n_blocks as usize],
            running: HashSet::new(),
            answers: BTreeMap::new(),
            n_computed: 0,
            trace: vec![],
        }
    }

    pub(crate) fn submit(&mut self, id: u64, prompt: &[TokenId], max_new_tokens: usize) {
        self.scheduler
            .submit(sequence(id, prompt, max_new_tokens))
            .unwrap();
    }

    /// Plans a batch and computes it.
    pub(crate) fn compute(&mut self) -> (Batch, Vec<Sampled>) {
        let batch = self.schedule();
        let mut sampled = vec![];
        for item in batch.items() {
            let sequence = self.scheduler.sequence(item.id).unwrap();
            let table = sequence.block_table();
            let at = |p: usize| (table[p / BLOCK_SIZE].0 as usize, p % BLOCK_SIZE);
            for p in item.tokens.clone() {
                let before = match p {
                    0 => 0,
                    p => self.memory[at(p - 1).0][at(p - 1).1],
                };
                self.memory[at(p).0][at(p).1] = kv(before, sequence.tokens()[p]);
            }
            if item.samples {
                let kvs = (0..item.tokens.end).map(|p| self.memory[at(p).0][at(p).1]);
                let token = next_token(kvs);
                let stop = token == STOP;
                sampled.push(Sampled { token, stop });
            }
            self.n_computed += item.tokens.len();
        }
        (batch, sampled)
    }

    fn check(&self, batch: &Batch) {
        let config = self.scheduler.config();
        assert!(batch.n_tokens() <= config.max_batch_tokens);
        assert!(self.scheduler.load().running <= config.max_sequences);
        self.check_order(batch);
        let mut ids = HashSet::new();
        let mut written = HashSet::new();
        for item in batch.items() {
            assert!(ids.insert(item.id), "a sequence is in a batch once");
            let sequence = self.scheduler.sequence(item.id).unwrap();
            let n_tokens = sequence.tokens().len();
            assert!(!item.tokens.is_empty() && item.tokens.len() <= config.max_chunk_tokens);
            assert_eq!(item.tokens.start, sequence.n_computed());
            assert_eq!(item.samples, item.tokens.end == n_tokens);
            assert_eq!(item.cached_tokens, sequence.cached_tokens());
            assert!(item.cached_tokens <= sequence.prompt().len());
            let first = item.tokens.start / BLOCK_SIZE;
            let last = (item.tokens.end - 1) / BLOCK_SIZE;
            assert!(sequence.registered_blocks().len() <= first);
            for block in &sequence.block_table()[first..=last] {
                assert!(written.insert(*block), "a block has one writer");
            }
        }
        for item in batch.items() {
            let sequence = self.scheduler.sequence(item.id).unwrap();
            for block in sequence.registered_blocks() {
                assert!(
                    !written.contains(&block.id()),
                    "what is shared is not written"
                );
            }
        }
    }

    /// Every decode, then prefills under way, then new sequences.
    fn check_order(&self, batch: &Batch) {
        let was_running = |id| self.running.contains(&id);
        let n_uncomputed = |id| {
            let sequence = self.scheduler.sequence(id).unwrap();
            sequence.tokens().len() - sequence.n_computed()
        };
        let kind = |item: &BatchItem| (!was_running(item.id), n_uncomputed(item.id) > 1);
        let n_old = batch.items().partition_point(|item| was_running(item.id));
        let (old, new) = batch.items().split_at(n_old);
        assert!(old.is_sorted_by_key(kind));
        assert!(new.iter().all(|item| !was_running(item.id)));
        assert!(batch.preempted().is_empty() || new.is_empty());
        for id in &self.running {
            let is_planned = batch.items().iter().any(|item| item.id == *id);
            let is_preempted = batch.preempted().contains(id);
            assert!(is_planned || is_preempted || n_uncomputed(*id) > 1);
        }
    }

    /// Plans a batch and checks it.
    fn schedule(&mut self) -> Batch {
        let Self {
            scheduler, running, ..
        } = self;
        let has_blocks = |id| {
            let sequence = scheduler.sequence(id);
            sequence.is_some_and(|sequence| !sequence.block_table().is_empty())
        };
        running.retain(|id| has_blocks(*id));
        let batch = self.scheduler.schedule();
        self.check(&batch);
        self.running
            .extend(batch.items().iter().map(|item| item.id));
        self.trace.push(batch.items().to_vec());
        batch
    }

    /// Plans a batch that is never computed.
    pub(crate) fn lose_step(&mut self) {
        let _lost = self.schedule();
    }

    /// Completes a batch and keeps the answers.
    pub(crate) fn complete(&mut self, batch: Batch, sampled: &[Sampled]) -> Vec<Progress> {
        let progress = self.scheduler.complete(batch, sampled);
        for p in &progress {
            let (tokens, finish) = self.answers.entry(p.id).or_default();
            assert_eq!(*finish, None, "nothing comes after the end");
            tokens.extend(p.token);
            *finish = p.finish;
        }
        progress
    }

    pub(crate) fn step(&mut self) -> Vec<Progress> {
        let (batch, sampled) = self.compute();
        self.complete(batch, &sampled)
    }

    /// Steps until every sequence is finished.
    pub(crate) fn run(&mut self) {
        while !self.scheduler.is_idle() {
            let load = self.scheduler.load();
            let progress = self.step();
            assert_eq!(progress.is_empty(), load.running + load.waiting == 0);
        }
        assert_eq!(self.n_active(), 0);
    }

    pub(crate) fn n_active(&self) -> usize {
        self.scheduler.load().active_blocks
    }

    /// The tokens that a sequence got.
    pub(crate) fn answer(&self, id: u64) -> &[TokenId] {
        &self.answers[&SequenceId(id)].0
    }
}
