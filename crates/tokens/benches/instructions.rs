//! Hot paths of the vocabulary: what every prompt and every full block pays.

use forebay_testkit::instructions::{self, measured};
use forebay_tokens::{
    BlockChain, BlockHash, BlockSize, ContentId, ContentKey, ContentNamespace, RoutingHash,
    RoutingSeed, TokenId,
};

const TOKENS: u32 = 8192;
const BLOCK: usize = 16;

fn tokens() -> Vec<TokenId> {
    (0..TOKENS).collect()
}

fn namespace() -> ContentNamespace {
    ContentNamespace::new(&ContentKey::new([7; 32]), b"model", b"tenant")
}

fn routing_chain() {
    let (tokens, seed) = (tokens(), RoutingSeed::default());
    measured(|| {
        let blocks = tokens
            .chunks_exact(BLOCK)
            .map(|block| seed.block_hash(block, &[]));
        let mut blocks = blocks.map(|BlockHash(hash)| hash);
        let first = RoutingHash(blocks.next().unwrap_or_default());
        blocks.fold(first, |parent, hash| parent.child(BlockHash(hash)))
    });
}

fn content_chain() {
    let (tokens, namespace) = (tokens(), namespace());
    measured(|| {
        let blocks = tokens.chunks_exact(BLOCK);
        blocks.fold(None, |parent: Option<ContentId>, block| {
            Some(namespace.content_id(parent, block, [].into_iter()))
        })
    });
}

fn block_chain_of_prompt() {
    let tokens = tokens();
    let mut chain = chain();
    measured(|| chain.extend(&tokens));
}

fn block_chain_by_token() {
    let mut chain = chain();
    measured(|| (0..TOKENS).for_each(|token| chain.push(token)));
}

fn chain() -> BlockChain {
    let size = BlockSize::new(BLOCK as u32).expect("16 is a block size");
    BlockChain::new(namespace(), RoutingSeed::default(), size)
}

fn main() {
    instructions::main(&[
        ("routing_chain_8192", routing_chain),
        ("content_chain_8192", content_chain),
        ("block_chain_prompt_8192", block_chain_of_prompt),
        ("block_chain_by_token_8192", block_chain_by_token),
    ]);
}
