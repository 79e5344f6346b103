//! What a pre-tokenizer asks of a character.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// A set of properties of a character, as bits; none of `LETTER`, `NUMBER` and `SPACE` overlap.
pub(super) type Properties = u8;

/// `\p{L}`.
pub(super) const LETTER: Properties = 1;
/// `\p{N}`.
pub(super) const NUMBER: Properties = 2;
/// `\s`.
pub(super) const SPACE: Properties = 4;
/// [`char::is_numeric`], which is not the regular expressions' table and may know other characters.
pub(super) const NUMERIC: Properties = 8;

/// Characters in a block of the table.
const BLOCK: usize = 256;

/// The end of the two planes that have all numeric characters.
const END_OF_NUMERIC: char = '\u{20000}';

/// The properties of all characters: equal blocks are stored once.
struct Table {
    /// Which block each run of 256 code points has.
    index: Box<[u8]>,
    blocks: Vec<[Properties; BLOCK]>,
}

/// From the tables of the regular expressions that the field's tokenizers are written in, so that
/// both know the same characters.
static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

impl Table {
    fn new() -> Self {
        let mut properties = vec![0; char::MAX as usize + 1];
        for (pattern, property) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
            for range in ranges(pattern) {
                properties[range.start() as usize..=range.end() as usize]
                    .iter_mut()
                    .for_each(|properties| *properties |= property);
            }
        }
        for character in '\0'..END_OF_NUMERIC {
            if character.is_numeric() {
                properties[character as usize] |= NUMERIC;
            }
        }
        let mut blocks = Vec::new();
        let index = properties
            .as_chunks()
            .0
            .iter()
            .map(|block| {
                let known = blocks.iter().position(|known| known == block);
                let index = known.unwrap_or_else(|| {
                    blocks.push(*block);
                    blocks.len() - 1
                });
                u8::try_from(index).expect("Unicode has about a hundred different blocks")
            })
            .collect();
        Self { index, blocks }
    }

    fn of(&self, code: u32) -> Properties {
        let code = code as usize;
        self.blocks[usize::from(self.index[code / BLOCK])][code % BLOCK]
    }
}

fn ranges(pattern: &str) -> Vec<regex_syntax::hir::ClassUnicodeRange> {
    let class = regex_syntax::parse(pattern).expect("the pattern is valid");
    match class.into_kind() {
        HirKind::Class(Class::Unicode(class)) => class.ranges().to_vec(),
        _ => unreachable!("the pattern is a class of characters"),
    }
}

/// Makes the table now, which takes a millisecond, and not within the first text that needs it.
pub(super) fn prepare() {
    LazyLock::force(&TABLE);
}

/// Properties of the ASCII characters, at hand without the table.
const ASCII: [Properties; 128] = {
    let mut properties = [0; 128];
    let mut code = 0;
    while code < 128 {
        properties[code as usize] = match code {
            b'A'..=b'Z' | b'a'..=b'z' => LETTER,
            b'0'..=b'9' => NUMBER | NUMERIC,
            b'\t'..=b'\r' | b' ' => SPACE,
            _ => 0,
        };
        code += 1;
    }
    properties
};

/// The properties of the character of `text` that begins at byte `at`, and its length in bytes;
/// none and 0 at the end.
///
/// # Panics
/// May panic if `at` is not where a character begins.
#[inline(always)]
pub(super) fn properties_at(text: &str, at: usize) -> (Properties, usize) {
    match text.as_bytes().get(at) {
        None => (0, 0),
        Some(&byte) if byte.is_ascii() => (ASCII[usize::from(byte)], 1),
        Some(_) => beyond_ascii(text, at),
    }
}

#[inline(never)]
fn beyond_ascii(text: &str, at: usize) -> (Properties, usize) {
    let character = text[at..].chars().next().expect("not at the end");
    (TABLE.of(character.into()), character.len_utf8())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_as_the_regular_expressions_see_it() {
        let patterns = [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)];
        let sets = patterns.map(|(pattern, property)| (ranges(pattern), property));
        for character in '\0'..=char::MAX {
            let text = character.to_string();
            let (properties, length) = properties_at(&text, 0);
            assert_eq!(length, text.len());
            for (ranges, property) in &sets {
                let inside = ranges
                    .iter()
                    .any(|range| (range.start()..=range.end()).contains(&character));
                assert_eq!(properties & property != 0, inside, "{character:?}");
            }
            assert_eq!(properties & NUMERIC != 0, character.is_numeric());
        }
        assert_eq!(properties_at("a", 1), (0, 0));
    }
}
