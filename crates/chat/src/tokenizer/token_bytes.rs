use forebay_tokens::TokenId;
use tokenizers::DecoderWrapper;

use super::byte_level::byte_of;

/// What each token stands for, in one table.
#[derive(Clone)]
pub(super) struct TokenBytes {
    /// The bytes of all tokens, in the order of their ids.
    data: Box<[u8]>,
    /// Where each token's bytes end.
    ends: Box<[u32]>,
    special: Box<[bool]>,
    /// Bytes of the longest token.
    longest: usize,
}

impl TokenBytes {
    pub(super) fn new(model: &tokenizers::Tokenizer) -> Self {
        let vocabulary = model.get_added_vocabulary();
        let size = model
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&greatest| greatest + 1);
        let mut data = Vec::new();
        let mut ends = Vec::with_capacity(size as usize);
        let mut special = Vec::with_capacity(size as usize);
        let mut longest = 0;
        for id in 0..size {
            let token = vocabulary
                .simple_id_to_token(id)
                .or_else(|| model.id_to_token(id));
            special.push(
                token
                    .as_deref()
                    .is_some_and(|token| vocabulary.is_special_token(token)),
            );
            if let Some(token) = token {
                let start = data.len();
                append(&token, model.get_decoder(), &mut data);
                longest = longest.max(data.len() - start);
            }
            ends.push(u32::try_from(data.len()).expect("a vocabulary's text is far below 4 GiB"));
        }
        Self {
            data: data.into(),
            ends: ends.into(),
            special: special.into(),
            longest,
        }
    }

    pub(super) fn get(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = id.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        &self.data[start as usize..end as usize]
    }

    /// The fewest tokens that a text of so many bytes can have.
    pub(super) fn fewest_tokens(&self, text_bytes: usize) -> usize {
        text_bytes.div_ceil(self.longest.max(1))
    }

    pub(super) fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Appends what a vocabulary entry stands for.
fn append(token: &str, decoder: Option<&DecoderWrapper>, data: &mut Vec<u8>) {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => {
            let start = data.len();
            for character in token.chars() {
                let Some(byte) = byte_of(character) else {
                    // An added token, written as it is.
                    data.truncate(start);
                    data.extend_from_slice(token.as_bytes());
                    return;
                };
                data.push(byte);
            }
        }
        // SentencePiece: bytes are spelled `<0xAB>`, spaces `▁`.
        Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::Sequence(_)) => {
            match spelled_byte(token) {
                Some(byte) => data.push(byte),
                None => data.extend_from_slice(token.replace('▁', " ").as_bytes()),
            }
        }
        _ => data.extend_from_slice(token.as_bytes()),
    }
}

fn spelled_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}
