//! A Rust file as a flat list of tokens.

use std::str::FromStr;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The tokens of one file, in order; `::` is one token.
pub(super) struct Code {
    tokens: Vec<Token>,
}

struct Token {
    text: String,
    line: usize,
    is_test: bool,
}

impl Code {
    /// Reads `text`. Everything counts as test code if `is_test`; otherwise
    /// items under `#[cfg(test)]`, `#[test]` and the like do.
    pub(super) fn parse(text: &str, is_test: bool) -> Result<Self> {
        let stream = TokenStream::from_str(text).map_err(|error| anyhow!("{error}"))?;
        let mut code = Self { tokens: Vec::new() };
        code.flatten(stream, is_test);
        Ok(code)
    }

    /// The lines, outside test code, where one of `patterns` is written.
    /// A pattern is tokens separated by spaces: `"tokio :: spawn"`.
    pub(super) fn find<'p>(&self, patterns: &[&'p str]) -> Vec<(usize, &'p str)> {
        self.search(patterns, |token| !token.is_test)
    }

    /// As [`Code::find`], in test code too.
    pub(super) fn find_anywhere<'p>(&self, patterns: &[&'p str]) -> Vec<(usize, &'p str)> {
        self.search(patterns, |_| true)
    }

    fn search<'p>(
        &self,
        patterns: &[&'p str],
        counts: impl Fn(&Token) -> bool,
    ) -> Vec<(usize, &'p str)> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            if !counts(token) {
                continue;
            }
            let hit = patterns.iter().find(|pattern| {
                let mut here = self.tokens[at..].iter();
                pattern
                    .split(' ')
                    .all(|word| here.next().is_some_and(|token| token.text == word))
            });
            found.extend(hit.map(|pattern| (token.line, *pattern)));
        }
        found
    }

    fn flatten(&mut self, stream: TokenStream, is_test: bool) {
        let mut is_test = is_test;
        // Inside an item that a test attribute marks, up to its end.
        let mut in_test_item = false;
        let mut after_hash = false;
        let mut is_inner = false;
        for tree in stream {
            match tree {
                TokenTree::Group(group) => {
                    if after_hash && is_test_attribute(&group) {
                        if is_inner {
                            is_test = true;
                        } else {
                            in_test_item = true;
                        }
                    }
                    self.group(&group, is_test || in_test_item);
                    if group.delimiter() == Delimiter::Brace {
                        in_test_item = false;
                    }
                    after_hash = false;
                    is_inner = false;
                }
                TokenTree::Punct(punct) => {
                    let character = punct.as_char();
                    is_inner = after_hash && character == '!';
                    after_hash = character == '#' || is_inner;
                    let line = punct.span().start().line;
                    self.punct(character, line, is_test || in_test_item);
                    if character == ';' {
                        in_test_item = false;
                    }
                }
                TokenTree::Ident(ident) => {
                    after_hash = false;
                    let line = ident.span().start().line;
                    self.push(ident.to_string(), line, is_test || in_test_item);
                }
                TokenTree::Literal(literal) => {
                    after_hash = false;
                    let line = literal.span().start().line;
                    self.push(literal.to_string(), line, is_test || in_test_item);
                }
            }
        }
    }

    fn group(&mut self, group: &Group, is_test: bool) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => ("", ""),
        };
        let line = group.span_open().start().line;
        self.push(open.to_owned(), line, is_test);
        self.flatten(group.stream(), is_test);
        let line = group.span_close().start().line;
        self.push(close.to_owned(), line, is_test);
    }

    fn punct(&mut self, character: char, line: usize, is_test: bool) {
        match self.tokens.last_mut() {
            Some(last) if character == ':' && last.text == ":" && last.line == line => {
                last.text.push(':');
            }
            _ => self.push(character.to_string(), line, is_test),
        }
    }

    fn push(&mut self, text: String, line: usize, is_test: bool) {
        self.tokens.push(Token {
            text,
            line,
            is_test,
        });
    }
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`.
fn is_test_attribute(group: &Group) -> bool {
    let text: String = group.stream().to_string().split_whitespace().collect();
    match text.strip_prefix("cfg(") {
        Some(condition) => {
            !condition.contains("not(test")
                && condition
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == "test")
        }
        None => text == "test" || text.ends_with("::test") || text.starts_with("tokio::test("),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(text: &str, pattern: &str) -> Vec<usize> {
        let code = Code::parse(text, false).unwrap();
        code.find(&[pattern])
            .into_iter()
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn comments_and_strings_do_not_match() {
        let text = "// a::b\n/// a::b\nfn f() { \"a::b\"; r#\"a::b\"#; a::b() }\n";
        assert_eq!(lines(text, "a :: b"), [3]);
    }

    #[test]
    fn paths_match_across_macros_and_spacing() {
        assert_eq!(lines("m! { x => a ::b }\nuse a::b;", "a :: b"), [1, 2]);
    }

    #[test]
    fn test_items_do_not_match() {
        let text = "
            #[cfg(test)]
            #[allow(x)]
            mod tests { fn f() { a::b() } }
            #[test]
            fn t() { a::b() }
            #[tokio::test(flavor = \"x\")]
            async fn t() { a::b() }
            #[cfg(test)]
            use a::b;
            fn real() { a::b() }
            #[cfg(not(test))]
            fn also_real() { a::b() }
        ";
        assert_eq!(lines(text, "a :: b"), [11, 13]);
        assert_eq!(lines("#![cfg(test)]\nfn f() { a::b() }", "a :: b"), [0; 0]);
    }
}
