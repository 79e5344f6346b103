/// The longest event that is read.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Reads server-sent events from bytes that arrive in any pieces, after the WHATWG's rules: lines
/// end with CR, LF or both, `data` lines of one event are joined, lines that begin with a colon
/// are comments, and an event ends with an empty line.
///
/// An event that is one `data` line within one piece, as nearly all are, is handed out where it
/// lies.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// The `data` so far of an event that has not ended, if it was kept.
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    /// A line ended with CR, so that an LF next belongs to it.
    after_cr: bool,
    has_begun: bool,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) data: &'a [u8],
    /// Whether its type is `error`.
    pub(crate) is_error: bool,
}

/// An event is longer than this reader takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl SseReader {
    /// Takes the next piece and hands each event that it completes to `on_event`.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<(), TooLong> {
        // The only `data` line so far of an event, in this piece.
        let mut single: Option<&[u8]> = None;
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                break;
            };
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.after_cr = bytes[end] == b'\r';
            bytes = rest;
            if self.line.is_empty() {
                self.take_line(line, &mut single, &mut on_event);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let mut none = None;
                self.keep(&mut single);
                self.take_line(&whole, &mut none, &mut on_event);
                self.keep(&mut none);
                whole.clear();
                self.line = whole;
            }
        }
        self.keep(&mut single);
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
            return Err(TooLong);
        }
        Ok(())
    }

    fn take_line<'a>(
        &mut self,
        mut line: &'a [u8],
        single: &mut Option<&'a [u8]>,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        if !self.has_begun {
            self.has_begun = true;
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            if let Some(data) = single.take().or(self.has_data.then_some(&self.data)) {
                on_event(Event {
                    data,
                    is_error: self.is_error,
                });
            }
            self.data.clear();
            (self.has_data, self.is_error) = (false, false);
            return;
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" if single.is_none() && !self.has_data => *single = Some(value),
            b"data" => {
                self.keep(single);
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            }
            b"event" => self.is_error = value == b"error",
            _ => {}
        }
    }

    /// Copies a line that is needed beyond its piece.
    fn keep(&mut self, single: &mut Option<&[u8]>) {
        if let Some(data) = single.take() {
            self.data.extend_from_slice(data);
            self.has_data = true;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            let mut take = |event: Event<'_>| {
                let data = String::from_utf8_lossy(event.data).into_owned();
                events.push((data, event.is_error));
            };
            reader.read(piece, &mut take).unwrap();
        }
        events
    }

    fn data(text: &str) -> Vec<String> {
        read(&[text.as_bytes()])
            .into_iter()
            .map(|(data, _)| data)
            .collect()
    }

    #[test]
    fn events_end_with_an_empty_line() {
        assert_eq!(
            data("data: a\n\ndata:b\r\n\r\ndata:  c\r\rdata: cut"),
            ["a", "b", " c"]
        );
        assert_eq!(data("data: a\r\n\ndata: b\n\r\n"), ["a", "b"]);
    }

    #[test]
    fn data_lines_are_joined() {
        assert_eq!(data("data: a\ndata\ndata: b\n\n"), ["a\n\nb"]);
        assert_eq!(data("data\n\n"), [""]);
    }

    #[test]
    fn comments_and_other_fields_are_passed_over() {
        assert_eq!(
            data(": ping\n\nid: 7\nretry: 5\n\ndata: a\ndatas: x\n: b\n\n"),
            ["a"]
        );
        assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
    }

    #[test]
    fn an_error_event_is_told_apart() {
        let text =
            b"event: error\ndata: a\n\nevent: message\ndata: b\n\nevent: error\n\ndata: c\n\n";
        let events = [
            ("a".to_owned(), true),
            ("b".to_owned(), false),
            ("c".to_owned(), false),
        ];
        assert_eq!(read(&[text]), events);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = SseReader::default();
        let piece = vec![b'x'; MAX_EVENT_BYTES];
        assert_eq!(reader.read(&piece, |_| {}), Ok(()));
        assert_eq!(reader.read(b"y", |_| {}), Err(TooLong));
        let mut reader = SseReader::default();
        let line = [b"data: ", &piece[..MAX_EVENT_BYTES / 2], b"\n"].concat();
        let results = [reader.read(&line, |_| {}), reader.read(&line, |_| {})];
        assert_eq!(results, [Ok(()), Err(TooLong)]);
    }

    /// The rules, applied to the whole text at once.
    fn naive(text: &str) -> Vec<(String, bool)> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.pop();
        let (mut events, mut data, mut kind) = (Vec::new(), Vec::new(), "");
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" if line.is_empty() => {
                    if !data.is_empty() {
                        events.push((data.join("\n"), kind == "error"));
                    }
                    (data, kind) = (Vec::new(), "");
                }
                "data" => data.push(value),
                "event" => kind = value,
                _ => {}
            }
        }
        events
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "data: a", "data:", "data", "event: error", "event:x", ": c", "id: 1", "x", "\u{feff}", "é",
                    "\n", "\n", "\n\n", "\r", "\r\n", "\r\n\r\n",
                ]),
                0..40,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = parts.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), naive(&text));
        }
    }
}
