//! Cutting a text into words, as the regular expressions of the models' own tokenizers do.

use super::classes::{LETTER, NUMBER, NUMERIC, Properties, SPACE, properties_at};

/// How a family of models cuts a text into words, no token of which goes beyond one.
///
/// Each follows a published regular expression whose alternatives are tried in order, without the
/// expression: one look at each character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tokenizer) enum WordRule {
    /// GPT-2's: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    Gpt2,
    /// Each numeric character alone, and what is between them by GPT-2's.
    DigitsThenGpt2,
    /// [`LLAMA_3`](Self::LLAMA_3).
    Llama3,
    /// [`QWEN_2`](Self::QWEN_2).
    Qwen2,
}

impl WordRule {
    /// The regular expression of Llama 3.
    pub(in crate::tokenizer) const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    /// The regular expression of Qwen 2: Llama 3's, with single digits.
    pub(in crate::tokenizer) const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// The end of the word of `text` that begins at byte `start`, which is inside the text.
    #[inline]
    pub(in crate::tokenizer) fn end(self, text: &str, start: usize) -> usize {
        match self {
            Self::Gpt2 => gpt2::<false>(text, start),
            Self::DigitsThenGpt2 => gpt2::<true>(text, start),
            Self::Llama3 => llama3(text, start, 3),
            Self::Qwen2 => llama3(text, start, 1),
        }
    }
}

fn is_letter(properties: Properties) -> bool {
    properties & LETTER != 0
}

fn is_space(properties: Properties) -> bool {
    properties & SPACE != 0
}

/// `[^\s\p{L}\p{N}]`.
fn is_symbol(properties: Properties) -> bool {
    properties & (LETTER | NUMBER | SPACE) == 0
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// With `CUT`, numeric characters stand alone, and to the rest each is the end of the text.
#[inline]
fn gpt2<const CUT: bool>(text: &str, start: usize) -> usize {
    let is_cut = |properties| CUT && properties & NUMERIC != 0;
    let byte = text.as_bytes()[start];
    let (mut class, length) = properties_at(text, start);
    let mut at = start + length;
    if is_cut(class) {
        return at;
    }
    if byte == b'\''
        && let Some(end) = contraction(text, start, false)
    {
        return end;
    }
    if byte == b' ' {
        // A space belongs to the word after it.
        let (next, length) = properties_at(text, at);
        if length > 0 && !is_space(next) && !is_cut(next) {
            (class, at) = (next, at + length);
        }
    }
    if is_letter(class) {
        return run(text, at, |next| is_letter(next) && !is_cut(next));
    }
    if is_symbol(class) {
        return run(text, at, |next| is_symbol(next) && !is_cut(next));
    }
    if class & NUMBER != 0 {
        return run(text, at, |next| next & NUMBER != 0 && !is_cut(next));
    }
    let end = run(text, at, is_space);
    let (next, length) = properties_at(text, end);
    if length == 0 || is_cut(next) {
        return end;
    }
    without_last(text, start, end)
}

#[inline]
fn llama3(text: &str, start: usize, digits: usize) -> usize {
    let byte = text.as_bytes()[start];
    let (first, length) = properties_at(text, start);
    let at = start + length;
    if is_letter(first) {
        return run(text, at, is_letter);
    }
    if byte == b'\''
        && let Some(end) = contraction(text, start, true)
    {
        return end;
    }
    if first & NUMBER != 0 {
        let mut left = digits - 1;
        return run(text, at, |next| {
            let taken = left > 0 && next & NUMBER != 0;
            left -= usize::from(taken);
            taken
        });
    }
    // Any one character belongs to the letters after it, and a space to the symbols after it.
    let (second, length) = properties_at(text, at);
    if is_letter(second) && !is_line_end(byte) {
        return run(text, at + length, is_letter);
    }
    let spaced = byte == b' ' && length > 0 && is_symbol(second);
    if spaced || is_symbol(first) {
        let end = run(text, at, is_symbol);
        let line_ends = text.as_bytes()[end..].iter();
        return end + line_ends.take_while(|&&byte| is_line_end(byte)).count();
    }
    let end = run(text, at, is_space);
    let spaces = &text.as_bytes()[start..end];
    if let Some(last) = spaces.iter().rposition(|&byte| is_line_end(byte)) {
        return start + last + 1;
    }
    if end == text.len() {
        return end;
    }
    without_last(text, start, end)
}

/// The end of the characters from `at` on that are all `taken`.
#[inline]
fn run(text: &str, mut at: usize, mut taken: impl FnMut(Properties) -> bool) -> usize {
    loop {
        let (properties, length) = properties_at(text, at);
        if length == 0 || !taken(properties) {
            return at;
        }
        at += length;
    }
}

/// The end of the contraction (as in "it's") at byte `start`, where there is an apostrophe.
fn contraction(text: &str, start: usize, ignore_case: bool) -> Option<usize> {
    let rest = &text.as_bytes()[start + 1..];
    let fold = |byte: &u8| {
        if ignore_case {
            byte.to_ascii_lowercase()
        } else {
            *byte
        }
    };
    let length = match (rest.first().map(fold)?, rest.get(1).map(fold)) {
        (b's' | b't' | b'm' | b'd', _) => 1,
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => 2,
        // The long s, which in Unicode is a case of s.
        _ if ignore_case && rest.starts_with("\u{17f}".as_bytes()) => 2,
        _ => return None,
    };
    Some(start + 1 + length)
}

/// The end of the spaces `start..end` without the last of several, which belongs to what follows.
fn without_last(text: &str, start: usize, end: usize) -> usize {
    let last = text[start..end]
        .chars()
        .next_back()
        .map_or(0, char::len_utf8);
    if end - last > start { end - last } else { end }
}
