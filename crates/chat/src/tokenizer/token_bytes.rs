use forebay_tokens::TokenId;
use tokenizers::DecoderWrapper;

use super::byte_level::append_bytes;

/// What each token stands for, in one table.
#[derive(Clone)]
pub(super) struct TokenBytes {
    /// The bytes of all tokens, in the order of their ids.
    data: Vec<u8>,
    /// Where each token's bytes begin, and where the last one's end.
    starts: Vec<u32>,
    special: Vec<bool>,
    /// Bytes of the longest token.
    longest: usize,
}

/// How a vocabulary's entries are written.
#[derive(Clone, Copy)]
enum Spelling {
    /// A character for each byte.
    ByteLevel,
    /// SentencePiece's: bytes are spelled `<0xAB>`, spaces `▁`.
    Pieces,
    /// As the text they stand for.
    Plain,
}

impl TokenBytes {
    /// The table of a byte-level vocabulary: the entry of each id, and whether it is special.
    pub(super) fn byte_level<'a>(
        entries: impl ExactSizeIterator<Item = Option<(&'a str, bool)>>,
    ) -> Self {
        let mut table = Self::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Some((token, special)) => table.push(token, special, Spelling::ByteLevel),
                None => table.push("", false, Spelling::ByteLevel),
            }
        }
        table
    }

    /// The table of any model's vocabulary.
    pub(super) fn of(model: &tokenizers::Tokenizer) -> Self {
        let spelling = match model.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => Spelling::ByteLevel,
            Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::Sequence(_)) => Spelling::Pieces,
            _ => Spelling::Plain,
        };
        let vocabulary = model.get_added_vocabulary();
        let ids = model.get_vocab(true).into_values();
        let size = ids.max().map_or(0, |greatest| greatest + 1);
        let mut table = Self::with_capacity(size as usize);
        for id in 0..size {
            let added = vocabulary.simple_id_to_token(id);
            let token = added.or_else(|| model.id_to_token(id)).unwrap_or_default();
            table.push(&token, vocabulary.is_special_token(&token), spelling);
        }
        table
    }

    fn with_capacity(tokens: usize) -> Self {
        let mut starts = Vec::with_capacity(tokens + 1);
        starts.push(0);
        Self {
            data: Vec::with_capacity(tokens * 8),
            starts,
            special: Vec::with_capacity(tokens),
            longest: 0,
        }
    }

    fn push(&mut self, token: &str, special: bool, spelling: Spelling) {
        let start = self.data.len();
        match spelling {
            Spelling::ByteLevel => {
                if append_bytes(token, &mut self.data).is_none() {
                    // An added token, written as it is.
                    self.data.truncate(start);
                    self.data.extend_from_slice(token.as_bytes());
                }
            }
            Spelling::Pieces => match spelled_byte(token) {
                Some(byte) => self.data.push(byte),
                None => self
                    .data
                    .extend_from_slice(token.replace('▁', " ").as_bytes()),
            },
            Spelling::Plain => self.data.extend_from_slice(token.as_bytes()),
        }
        self.longest = self.longest.max(self.data.len() - start);
        let end = u32::try_from(self.data.len()).expect("a vocabulary has less than 4 GiB of text");
        self.starts.push(end);
        self.special.push(special);
    }

    /// The bytes of a token; none for an id that is not in the vocabulary.
    #[inline]
    pub(super) fn get(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        match self.starts.get(id..id.saturating_add(2)) {
            Some(&[start, end]) => &self.data[start as usize..end as usize],
            _ => &[],
        }
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The fewest tokens that a text of so many bytes can have, where each byte of the text is in
    /// one token.
    pub(super) fn fewest_tokens(&self, text_bytes: usize) -> usize {
        text_bytes.div_ceil(self.longest.max(1))
    }

    pub(super) fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    pub(super) fn len(&self) -> usize {
        self.special.len()
    }
}

fn spelled_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}
