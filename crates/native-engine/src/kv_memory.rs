//! The memory of KV blocks.

use forebay_tokens::{BlockId, BlockSize};

use crate::error::KvError;
use crate::kernel::KvView;

/// How elements of a KV block are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvDtype {
    /// 32-bit IEEE 754 floats, little-endian when exported.
    F32,
}

impl KvDtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
        }
    }
}

/// What a KV block holds, and in which order.
///
/// A block is one contiguous region for `block_size` tokens: for each layer the keys and then the
/// values, for each of them the KV heads in turn. A head's keys are `[dimension][slot]` (a score
/// needs one dimension of all slots), its values `[slot][dimension]`. Heads are outermost within
/// a layer, so that a tensor-parallel rank's share is contiguous per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// Transformer layers.
    pub layers: usize,
    /// Key and value heads in a layer.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Tokens in a block.
    pub block_size: BlockSize,
    /// Element type.
    pub dtype: KvDtype,
}

impl KvLayout {
    /// Bytes of one block.
    pub const fn bytes_per_block(&self) -> usize {
        self.block_floats() * self.dtype.bytes()
    }

    const fn head_floats(&self) -> usize {
        self.head_dim * self.block_size.get()
    }

    const fn layer_floats(&self) -> usize {
        2 * self.kv_heads * self.head_floats()
    }

    const fn block_floats(&self) -> usize {
        self.layers * self.layer_floats()
    }
}

/// All KV blocks of an engine, in one arena.
///
/// The arena is zeroed virtual memory: the system provides a page when it is first written, so
/// blocks that were never used cost nothing. Which block holds what is decided elsewhere (the
/// block manager); here a block is a number and bytes.
pub struct KvMemory {
    layout: KvLayout,
    blocks: usize,
    arena: Vec<f32>,
    /// Where the first block begins in `arena`, so that blocks begin at cache lines.
    offset: usize,
}

/// Floats in a cache line.
const LINE_FLOATS: usize = 16;

impl KvMemory {
    /// Reserves `blocks` blocks.
    ///
    /// # Errors
    ///
    /// [`KvError::OutOfMemory`] if the address space or the system's limits do not allow it.
    pub fn new(layout: KvLayout, blocks: usize) -> Result<Self, KvError> {
        let refused = KvError::OutOfMemory {
            blocks,
            bytes_per_block: layout.bytes_per_block(),
        };
        let floats = layout
            .block_floats()
            .checked_mul(blocks)
            .and_then(|floats| floats.checked_add(LINE_FLOATS))
            .filter(|floats| *floats <= isize::MAX as usize / layout.dtype.bytes());
        let Some(floats) = floats.filter(|_| u32::try_from(blocks).is_ok()) else {
            return Err(refused);
        };
        let arena = crate::kernel::zeroed_floats(floats).ok_or(refused)?;
        let offset = arena
            .as_ptr()
            .align_offset(LINE_FLOATS * 4)
            .min(LINE_FLOATS);
        Ok(Self {
            layout,
            blocks,
            arena,
            offset,
        })
    }

    /// What each block holds.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Number of blocks; their ids are `0..blocks`.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// A copy of a block's bytes: [`KvLayout::bytes_per_block`] of them, the same on every
    /// machine.
    ///
    /// # Errors
    ///
    /// [`KvError::NoSuchBlock`].
    pub fn export(&self, block: BlockId) -> Result<Vec<u8>, KvError> {
        let range = self.range(block)?;
        let mut bytes = Vec::with_capacity(self.layout.bytes_per_block());
        bytes.extend(
            self.arena[range]
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        );
        Ok(bytes)
    }

    /// Replaces a block's bytes by those of an exported block.
    ///
    /// # Errors
    ///
    /// [`KvError::NoSuchBlock`], or [`KvError::WrongLength`] when `bytes` are not a block of this
    /// layout. Nothing is changed then.
    pub fn import(&mut self, block: BlockId, bytes: &[u8]) -> Result<(), KvError> {
        let range = self.range(block)?;
        if bytes.len() != self.layout.bytes_per_block() {
            return Err(KvError::WrongLength {
                got: bytes.len(),
                expected: self.layout.bytes_per_block(),
            });
        }
        for (value, bytes) in self.arena[range].iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// Keys and values of all blocks for one layer.
    pub(crate) fn layer(&self, layer: usize) -> KvView<'_> {
        KvView {
            data: &self.arena[self.offset..],
            block_floats: self.layout.block_floats(),
            layer_offset: layer * self.layout.layer_floats(),
            kv_heads: self.layout.kv_heads,
            head_dim: self.layout.head_dim,
            block_tokens: self.layout.block_size.get(),
        }
    }

    /// Stores one token's keys and values (`kv_heads * head_dim` each) of one layer.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        block: BlockId,
        slot: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let layout = self.layout;
        let (dim, slots) = (layout.head_dim, layout.block_size.get());
        let start =
            self.offset + block.0 as usize * layout.block_floats() + layer * layout.layer_floats();
        let region = &mut self.arena[start..start + layout.layer_floats()];
        let (all_keys, all_values) = region.split_at_mut(layout.layer_floats() / 2);
        for (head, keys) in all_keys
            .chunks_exact_mut(dim * slots)
            .zip(keys.chunks_exact(dim))
        {
            for (slots, key) in head.chunks_exact_mut(slots).zip(keys) {
                slots[slot] = *key;
            }
        }
        for (head, values) in all_values
            .chunks_exact_mut(dim * slots)
            .zip(values.chunks_exact(dim))
        {
            head[slot * dim..][..dim].copy_from_slice(values);
        }
    }

    fn range(&self, block: BlockId) -> Result<std::ops::Range<usize>, KvError> {
        let id = block.0 as usize;
        if id >= self.blocks {
            return Err(KvError::NoSuchBlock {
                block,
                blocks: self.blocks,
            });
        }
        let start = self.offset + id * self.layout.block_floats();
        Ok(start..start + self.layout.block_floats())
    }
}
