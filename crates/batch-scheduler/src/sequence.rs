use std::collections::VecDeque;

use forebay_kv_block_manager::{Acquired, MutableBlock, RegisteredBlock};
use forebay_tokens::{BlockChain, BlockId, BlockIdentity, ContentId, TokenId};

use crate::{NewSequence, Priority, SequenceId};

/// Who goes before whom, everywhere: the more urgent, then the earlier. No two sequences have the
/// same.
pub(crate) type Rank = (Priority, u64);

/// A sequence that a scheduler has: its tokens and the blocks that hold their KV.
#[derive(Debug)]
pub struct Sequence {
    id: SequenceId,
    rank: Rank,
    /// Prompt, then what was generated.
    tokens: Vec<TokenId>,
    n_prompt: usize,
    max_new_tokens: usize,
    chain: BlockChain,
    /// Leading tokens whose KV is in place.
    n_computed: usize,
    /// `None` until the first admission.
    cached_tokens: Option<usize>,
    /// The leading full blocks, each by its identity in the chain.
    registered: Vec<RegisteredBlock>,
    /// The blocks after them.
    open: VecDeque<MutableBlock>,
    block_table: Vec<BlockId>,
    /// While it waits: the block that another sequence computes for it.
    awaited: Option<ContentId>,
}

impl Sequence {
    pub(crate) fn new(new: NewSequence, arrival: u64) -> Self {
        let NewSequence {
            id,
            prompt: mut tokens,
            emitted,
            max_new_tokens,
            priority,
            mut chain,
        } = new;
        let n_prompt = tokens.len();
        tokens.extend(emitted);
        chain.extend(&tokens);
        Self {
            id,
            rank: (priority, arrival),
            tokens,
            n_prompt,
            max_new_tokens,
            chain,
            n_computed: 0,
            cached_tokens: None,
            registered: Vec::new(),
            open: VecDeque::new(),
            block_table: Vec::new(),
            awaited: None,
        }
    }

    /// Its name.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        self.rank.0
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The tokens it was started from.
    pub fn prompt(&self) -> &[TokenId] {
        &self.tokens[..self.n_prompt]
    }

    /// The tokens generated, here and before it came here.
    pub fn emitted(&self) -> &[TokenId] {
        &self.tokens[self.n_prompt..]
    }

    /// How many tokens may be generated in all.
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// How many leading tokens have their KV in place; 0 while it waits.
    pub fn n_computed(&self) -> usize {
        self.n_computed
    }

    /// How many prompt tokens the cache had when the sequence was first admitted; 0 before.
    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens.unwrap_or(0)
    }

    /// The physical blocks of its tokens in order; empty while it waits. It reaches at least to the
    /// end of what the present batch computes. An entry can change when a block is completed and
    /// its content turns out to be known already.
    pub fn block_table(&self) -> &[BlockId] {
        &self.block_table
    }

    /// The identities of all full blocks of its tokens, computed or not.
    pub fn identities(&self) -> &[BlockIdentity] {
        self.chain.identities()
    }

    /// The leading blocks that are full and registered. A clone keeps a block for longer than the
    /// sequence lives.
    pub fn registered_blocks(&self) -> &[RegisteredBlock] {
        &self.registered
    }

    pub(crate) fn rank(&self) -> Rank {
        self.rank
    }

    pub(crate) fn awaited(&self) -> Option<&ContentId> {
        self.awaited.as_ref()
    }

    pub(crate) fn set_awaited(&mut self, content: Option<ContentId>) {
        self.awaited = content;
    }

    /// Tokens whose KV is missing; at least one, since the last token's logits are always to come.
    pub(crate) fn n_uncomputed(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// The blocks that may come from the cache: not the one of the last token, which is computed
    /// again for its logits.
    pub(crate) fn matchable(&self) -> &[BlockIdentity] {
        let n = (self.tokens.len() - 1) / self.chain.block_size().get();
        &self.chain.identities()[..n]
    }

    /// The full blocks that are still to be computed.
    pub(crate) fn unregistered(&self) -> &[BlockIdentity] {
        &self.chain.identities()[self.registered.len()..]
    }

    /// Starts to run with these blocks.
    pub(crate) fn admit(&mut self, blocks: Acquired) {
        self.awaited = None;
        self.registered = blocks.matched.blocks;
        self.open = blocks.fresh.into();
        self.block_table = self.registered.iter().map(RegisteredBlock::id).collect();
        self.block_table
            .extend(self.open.iter().map(MutableBlock::id));
        self.n_computed = self.registered.len() * self.chain.block_size().get();
        self.cached_tokens
            .get_or_insert(self.n_computed.min(self.n_prompt));
    }

    /// Gives up the blocks and what was computed; the tokens stay.
    pub(crate) fn preempt(&mut self) {
        self.registered.clear();
        self.open.clear();
        self.block_table.clear();
        self.n_computed = 0;
    }

    /// How many more blocks it must get to compute its next token.
    pub(crate) fn n_missing_blocks(&self) -> usize {
        let needed = self.chain.block_size().blocks_for(self.n_computed + 1);
        needed.saturating_sub(self.block_table.len())
    }

    pub(crate) fn grow(&mut self, blocks: Vec<MutableBlock>) {
        self.block_table.extend(blocks.iter().map(MutableBlock::id));
        self.open.extend(blocks);
    }

    /// The KV of everything before `n_computed` is in place now: registers the blocks that became
    /// full.
    pub(crate) fn advance(&mut self, n_computed: usize) {
        self.n_computed = n_computed;
        while (self.registered.len() + 1) * self.chain.block_size().get() <= n_computed {
            let i = self.registered.len();
            let block = self
                .open
                .pop_front()
                .expect("the block table reaches to what was computed");
            let block = block.complete(&self.chain.identities()[..=i]).register();
            self.block_table[i] = block.id();
            self.registered.push(block);
        }
    }

    pub(crate) fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
        self.chain.push(token);
    }

    /// Whether it has all the tokens it may have.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.emitted().len() >= self.max_new_tokens
    }
}
