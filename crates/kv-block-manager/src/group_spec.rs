use std::ops::Range;

use forebay_tokens::BlockSize;

/// What a group's layers do with their cache; the names are those of engines' KV events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupKind {
    /// Every token attends to every token before it.
    FullAttention,
    /// Every token attends to a fixed number of tokens before it.
    SlidingWindow,
    /// A recurrent state that stands for everything before it.
    StateSpace,
    /// Attention to an encoder's output; the chain is that of the encoder's input.
    CrossAttention,
}

/// Which of a sequence's blocks the next token still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retention {
    /// All of them.
    All,
    /// Those that hold any of the last `tokens - 1` tokens: with the next token itself, a window
    /// of `tokens`.
    Window {
        /// The window in tokens, the attending token included.
        tokens: usize,
    },
    /// The last one: it holds the state after its last token.
    Last,
}

/// The rules of one cache group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupSpec {
    /// What the group's layers do.
    pub kind: GroupKind,
    /// Tokens a block.
    pub block_size: BlockSize,
    /// Which blocks a sequence needs to go on.
    pub retention: Retention,
}

impl GroupSpec {
    /// Full attention: a prefix is of use only whole.
    pub const fn full_attention(block_size: BlockSize) -> Self {
        Self {
            kind: GroupKind::FullAttention,
            block_size,
            retention: Retention::All,
        }
    }

    /// Attention to the last `window` tokens, the attending one included.
    pub const fn sliding_window(block_size: BlockSize, window: usize) -> Self {
        Self {
            kind: GroupKind::SlidingWindow,
            block_size,
            retention: Retention::Window { tokens: window },
        }
    }

    /// A recurrent state, kept once every `block_size` tokens.
    pub const fn state_space(block_size: BlockSize) -> Self {
        Self {
            kind: GroupKind::StateSpace,
            block_size,
            retention: Retention::Last,
        }
    }

    /// Attention to an encoder's output.
    pub const fn cross_attention(block_size: BlockSize) -> Self {
        Self {
            kind: GroupKind::CrossAttention,
            block_size,
            retention: Retention::All,
        }
    }

    /// The indices of the blocks that a sequence of `tokens` tokens needs to compute its next one.
    pub fn live_blocks(&self, tokens: usize) -> Range<usize> {
        let end = self.block_size.blocks_for(tokens);
        let start = match self.retention {
            Retention::All => 0,
            Retention::Window { tokens: window } => {
                (tokens + 1).saturating_sub(window) / self.block_size.get()
            }
            Retention::Last => end.saturating_sub(1),
        };
        start.min(end)..end
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_follows_the_retention_rule() {
        let size = BlockSize::new(4).unwrap();
        let full = GroupSpec::full_attention(size);
        assert_eq!(full.live_blocks(0), 0..0);
        assert_eq!(full.live_blocks(9), 0..3);

        // Token 9 sees tokens 4..=9, token 8 sees 3..=8, of which 8 itself is not cached yet.
        let window = GroupSpec::sliding_window(size, 6);
        assert_eq!(window.live_blocks(9), 1..3);
        assert_eq!(window.live_blocks(8), 0..2);
        // A window of one token needs nothing that was before it.
        assert_eq!(GroupSpec::sliding_window(size, 1).live_blocks(8), 2..2);

        let state = GroupSpec::state_space(size);
        assert_eq!(state.live_blocks(8), 1..2);
        assert_eq!(state.live_blocks(0), 0..0);
    }
}
