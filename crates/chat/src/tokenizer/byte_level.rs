use forebay_tokens::TokenId;

use super::{GgufVocabulary, Tokenizer, gguf};

/// The byte that a character stands for in a byte-level vocabulary (GPT-2's `bytes_to_unicode`):
/// printable Latin-1 is itself, the other 68 bytes are U+0100 onwards, in their order.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes that a vocabulary entry spells; `None`, with some appended, if it is no such
/// spelling.
pub(super) fn append_bytes(entry: &str, bytes: &mut Vec<u8>) -> Option<()> {
    for character in entry.chars() {
        bytes.push(byte_of(character)?);
    }
    Some(())
}

/// The character that a byte is written as: the inverse of [`byte_of`].
pub(super) fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte) - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).expect("all codes are below U+0144")
}

pub(super) fn build() -> Tokenizer {
    const SPECIAL: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];
    const START: TokenId = 256;
    const END: TokenId = 257;
    let bytes = (0..=u8::MAX).map(|byte| char_of(byte).to_string());
    let tokens: Vec<String> = bytes.chain(SPECIAL.map(String::from)).collect();
    let mut token_types = vec![gguf::NORMAL; tokens.len()];
    token_types[START as usize..].fill(gguf::CONTROL);
    Tokenizer::from_gguf(GgufVocabulary {
        model: "gpt2".into(),
        pre: "gpt-2".into(),
        tokens,
        token_types,
        eos: Some(END),
        ..GgufVocabulary::default()
    })
    .expect("the built-in vocabulary is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_are_one_to_one() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
            assert!(alphabet.contains(&char_of(byte)));
        }
        assert_eq!(byte_of('\u{ad}'), None);
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!((char_of(b' '), char_of(b'\n')), ('Ġ', 'Ċ'));
    }
}
