/// Finds stop strings in text that arrives in pieces.
///
/// The match that is *completed* first wins, whatever the pieces; of those completed by the same
/// byte, the one listed first. Text is held back only while it could be the beginning of a stop
/// string, so at most one byte less than the longest of them.
///
/// An empty stop string never matches.
///
/// ```
/// use forebay_chat::StopStrings;
///
/// let mut stops = StopStrings::new(["\nUser:"], false);
/// let mut text = String::new();
/// assert_eq!(stops.push("Hi.\nUs", &mut text), None);
/// assert_eq!(text, "Hi.");
/// assert_eq!(stops.push("er: more", &mut text), Some(0));
/// assert_eq!(text, "Hi.");
/// ```
#[derive(Clone, Debug)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    held: String,
    include_in_output: bool,
    stopped: Option<usize>,
}

/// One stop string with its Knuth-Morris-Pratt automaton.
#[derive(Clone, Debug)]
struct Pattern {
    bytes: Box<[u8]>,
    /// For each length of a matched prefix, the length of its longest proper border.
    borders: Box<[usize]>,
    /// Length of the longest prefix that ends the text so far.
    matched: usize,
}

impl StopStrings {
    /// A matcher for `stops`, at the beginning of a stream.
    ///
    /// With `include_in_output` the matched stop string stays at the end of the text, without it
    /// is cut off.
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>, include_in_output: bool) -> Self {
        Self {
            patterns: stops
                .into_iter()
                .map(|stop| Pattern::new(stop.as_ref()))
                .collect(),
            held: String::new(),
            include_in_output,
            stopped: None,
        }
    }

    /// Takes the next piece of the text and appends what is final to `out`.
    ///
    /// Returns the index of the stop string that ended the stream, if one did; everything after
    /// it, in this piece and in later ones, is dropped.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        self.advance(text, out, true)
    }

    /// Like [`push`](Self::push), but no stop string may end within this piece.
    ///
    /// For text below a minimum length (`min_tokens`); a stop string may begin in it and end later.
    pub fn push_exempt(&mut self, text: &str, out: &mut String) {
        self.advance(text, out, false);
    }

    /// Ends the stream: appends the text still held back to `out`.
    pub fn finish(&mut self, out: &mut String) {
        if self.stopped.is_none() {
            out.push_str(&self.held);
        }
        self.held.clear();
        for pattern in &mut self.patterns {
            pattern.matched = 0;
        }
    }

    /// Index of the stop string that ended the stream, if one did.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    fn advance(&mut self, text: &str, out: &mut String, may_stop: bool) -> Option<usize> {
        if self.stopped.is_some() {
            return self.stopped;
        }
        if self.patterns.is_empty() {
            out.push_str(text);
            return None;
        }
        let seen = self.held.len();
        self.held.push_str(text);
        for (position, byte) in text.bytes().enumerate() {
            let mut hit = None;
            for (index, pattern) in self.patterns.iter_mut().enumerate() {
                if pattern.advance(byte) && hit.is_none() {
                    hit = Some((index, pattern.bytes.len()));
                }
            }
            if let Some((index, length)) = hit.filter(|_| may_stop) {
                let end = seen + position + 1;
                let kept = if self.include_in_output {
                    end
                } else {
                    end - length
                };
                out.push_str(&self.held[..kept]);
                self.held.clear();
                self.stopped = Some(index);
                return self.stopped;
            }
        }
        // A stop string begins with the first byte of a character, so this is a boundary.
        let possible = self
            .patterns
            .iter()
            .map(|pattern| pattern.matched)
            .max()
            .unwrap_or(0);
        let decided = self.held.len() - possible;
        out.push_str(&self.held[..decided]);
        self.held.drain(..decided);
        None
    }
}

impl Pattern {
    fn new(stop: &str) -> Self {
        let bytes: Box<[u8]> = stop.as_bytes().into();
        let mut borders = vec![0; bytes.len() + 1];
        let mut border = 0;
        for length in 2..=bytes.len() {
            let byte = bytes[length - 1];
            while border > 0 && bytes[border] != byte {
                border = borders[border];
            }
            border += usize::from(bytes[border] == byte);
            borders[length] = border;
        }
        Self {
            bytes,
            borders: borders.into(),
            matched: 0,
        }
    }

    /// Takes one byte; whether it completes the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        let complete = self.matched == self.bytes.len();
        if complete {
            self.matched = self.borders[self.matched];
        }
        complete
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, by search in the whole text: the first character at which some stop string
    /// ends, and the first listed of those that end there.
    fn naive(
        stops: &[String],
        text: &str,
        exempt: usize,
        include: bool,
    ) -> (String, Option<usize>) {
        for end in exempt + 1..=text.len() {
            for (index, stop) in stops.iter().enumerate() {
                if !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes()) {
                    let kept = if include { end } else { end - stop.len() };
                    return (text[..kept].to_owned(), Some(index));
                }
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn equals_search_in_the_whole_text(
            stops in prop::collection::vec("[abé🙂]{0,4}", 0..4),
            pieces in prop::collection::vec("[abé🙂]{0,5}", 0..12),
            exempt in 0..4usize,
            include: bool,
        ) {
            let mut matcher = StopStrings::new(&stops, include);
            let mut out = String::new();
            let mut stopped = None;
            let longest = stops.iter().map(String::len).max().unwrap_or(0);
            let mut sent = 0;
            for (number, piece) in pieces.iter().enumerate() {
                if number < exempt {
                    matcher.push_exempt(piece, &mut out);
                } else {
                    stopped = matcher.push(piece, &mut out);
                }
                sent += piece.len();
                if stopped.is_none() {
                    prop_assert!(sent - out.len() < longest.max(1), "held back too much");
                }
            }
            matcher.finish(&mut out);
            let exempt_bytes = pieces.iter().take(exempt).map(String::len).sum();
            let expected = naive(&stops, &pieces.concat(), exempt_bytes, include);
            prop_assert_eq!((out, stopped), expected);
        }

        #[test]
        fn holds_back_only_a_possible_beginning(text in "[ab]{0,12}") {
            let mut matcher = StopStrings::new(["abab"], false);
            let mut out = String::new();
            if matcher.push(&text, &mut out).is_none() {
                let held = &text[out.len()..];
                prop_assert!("abab".starts_with(held));
                let longer = (out.len().saturating_sub(3)..out.len()).map(|start| &text[start..]);
                for suffix in longer {
                    prop_assert!(!"abab".starts_with(suffix));
                }
            }
        }
    }

    #[test]
    fn the_first_listed_of_equal_ends_wins() {
        let mut out = String::new();
        assert_eq!(
            StopStrings::new(["c", "bc"], false).push("abc", &mut out),
            Some(0)
        );
        assert_eq!(out, "ab");
        out.clear();
        assert_eq!(
            StopStrings::new(["bc", "c"], false).push("abc", &mut out),
            Some(0)
        );
        assert_eq!(out, "a");
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut stops = StopStrings::new(["."], true);
        let mut out = String::new();
        assert_eq!(stops.push("a.b", &mut out), Some(0));
        assert_eq!(stops.push("c", &mut out), Some(0));
        stops.finish(&mut out);
        assert_eq!(out, "a.");
    }
}
