use std::fmt;

/// Longest head of a response.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Most digits of a chunk's size, so that it fits.
const MAX_SIZE_DIGITS: u8 = 15;

/// Most headers of a response.
const MAX_HEADERS: usize = 100;

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the body is a stream of server-sent events.
    pub(crate) is_event_stream: bool,
    /// Whether the connection can take another request after this response.
    pub(crate) keep_alive: bool,
}

/// A part of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Head(Head),
    /// The next bytes of the body; never empty.
    Body(&'a [u8]),
    /// The response is complete.
    End,
}

/// Reads one HTTP/1.1 response to a request other than HEAD, without IO: takes bytes as they
/// arrive and hands out parts, the body's without copying them.
///
/// Why not a client library: a load generator's own cost is in every number that it reports, and
/// the moment at which bytes were read has to be known for each of them.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    /// The beginning of a head that is not complete.
    head: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head,
    /// Bytes of the body that are left.
    Length(u64),
    /// The body ends with the connection.
    UntilClose,
    Chunked(Chunked),
    End,
}

#[derive(Debug)]
enum Chunked {
    /// In a chunk's size; `digits` of it have been read.
    Size {
        size: u64,
        digits: u8,
    },
    /// After the size, to the end of the line.
    Extension {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// The line end after the data.
    DataEnd,
    /// After the last chunk: lines until an empty one.
    Trailer {
        line_is_empty: bool,
    },
}

/// Why bytes are no response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl ResponseReader {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
        }
    }

    /// Takes the next part off the front of `bytes`; `None` if there is no more in them.
    pub(crate) fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Malformed> {
        match &mut self.state {
            State::Head => self.read_head(bytes),
            State::Length(0) => {
                self.state = State::End;
                Ok(Some(Part::End))
            }
            State::Length(left) => {
                let part = take(bytes, *left);
                *left -= part.len() as u64;
                Ok((!part.is_empty()).then_some(Part::Body(part)))
            }
            State::UntilClose => {
                let part = take(bytes, u64::MAX);
                Ok((!part.is_empty()).then_some(Part::Body(part)))
            }
            State::Chunked(chunked) => {
                let part = chunked.read(bytes)?;
                if part == Some(Part::End) {
                    self.state = State::End;
                }
                Ok(part)
            }
            State::End => Ok(None),
        }
    }

    /// Whether a response is complete if the connection ends here.
    pub(crate) fn may_end(&self) -> bool {
        matches!(
            self.state,
            State::UntilClose | State::Length(0) | State::End
        )
    }

    fn read_head<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Malformed> {
        if !self.head.is_empty() {
            // The head came in pieces: what was read of this one is found by its length.
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let head = std::mem::take(&mut self.head);
            let Some((length, part)) = self.parse_head(&head)? else {
                self.head = head;
                *bytes = &[];
                return Ok(None);
            };
            *bytes = &bytes[length - before..];
            return Ok(Some(part));
        }
        let Some((length, part)) = self.parse_head(bytes)? else {
            self.head.extend_from_slice(bytes);
            *bytes = &[];
            return Ok(None);
        };
        *bytes = &bytes[length..];
        Ok(Some(part))
    }

    /// Reads a head at the beginning of `bytes` and gives its length; interim responses are
    /// passed over.
    fn parse_head<'a>(&mut self, bytes: &[u8]) -> Result<Option<(usize, Part<'a>)>, Malformed> {
        let mut skipped = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response
                .parse(&bytes[skipped..])
                .map_err(|_| Malformed("the head is not HTTP/1.1"))?;
            let httparse::Status::Complete(length) = parsed else {
                return if bytes.len() > MAX_HEAD_BYTES {
                    Err(Malformed("the head is longer than 64 KiB"))
                } else {
                    Ok(None)
                };
            };
            let status = response.code.unwrap_or_default();
            if status == 101 {
                return Err(Malformed("the server switched protocols"));
            }
            skipped += length;
            if status / 100 != 1 {
                let head = self.begin_body(status, &response)?;
                return Ok(Some((skipped, Part::Head(head))));
            }
        }
    }

    fn begin_body(
        &mut self,
        status: u16,
        response: &httparse::Response<'_, '_>,
    ) -> Result<Head, Malformed> {
        let mut head = Head {
            status,
            is_event_stream: false,
            keep_alive: response.version == Some(1),
        };
        let mut chunked = false;
        let mut length = None;
        for header in &*response.headers {
            let value = header.value.trim_ascii();
            match header.name.len() {
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    if has_token(value, b"close") {
                        head.keep_alive = false;
                    } else if has_token(value, b"keep-alive") {
                        head.keep_alive = true;
                    }
                }
                12 if header.name.eq_ignore_ascii_case("content-type") => {
                    head.is_event_stream = value
                        .get(..17)
                        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    let number = std::str::from_utf8(value)
                        .ok()
                        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                        .and_then(|text| text.parse::<u64>().ok())
                        .ok_or(Malformed("content-length is no number"))?;
                    if length.replace(number).is_some_and(|other| other != number) {
                        return Err(Malformed("two different content-lengths"));
                    }
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed("a transfer-encoding other than chunked"));
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        self.state = match length {
            _ if matches!(status, 204 | 304) => State::Length(0),
            _ if chunked => State::Chunked(Chunked::START),
            Some(length) => State::Length(length),
            None => {
                head.keep_alive = false;
                State::UntilClose
            }
        };
        Ok(head)
    }
}

impl Chunked {
    const START: Self = Self::Size { size: 0, digits: 0 };

    fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, Malformed> {
        while !bytes.is_empty() {
            match self {
                Self::Data { left } => {
                    let part = take(bytes, *left);
                    *left -= part.len() as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Some(Part::Body(part)));
                }
                Self::Trailer { line_is_empty } => match next(bytes) {
                    b'\r' => {}
                    b'\n' if *line_is_empty => return Ok(Some(Part::End)),
                    b'\n' => *line_is_empty = true,
                    _ => *line_is_empty = false,
                },
                Self::DataEnd => match next(bytes) {
                    b'\r' => {}
                    b'\n' => *self = Self::START,
                    _ => return Err(Malformed("a chunk is longer than its size")),
                },
                Self::Size { size, digits } => {
                    let byte = next(bytes);
                    match (byte as char).to_digit(16) {
                        Some(digit) if *digits < MAX_SIZE_DIGITS => {
                            *size = *size << 4 | u64::from(digit);
                            *digits += 1;
                        }
                        None if *digits > 0 => *self = Self::after_size(*size, byte),
                        _ => return Err(Malformed("a chunk's size is no number")),
                    }
                }
                Self::Extension { size } => *self = Self::after_size(*size, next(bytes)),
            }
        }
        Ok(None)
    }

    /// In what follows a size only the end of the line matters.
    fn after_size(size: u64, byte: u8) -> Self {
        match (byte, size) {
            (b'\n', 0) => Self::Trailer {
                line_is_empty: true,
            },
            (b'\n', left) => Self::Data { left },
            _ => Self::Extension { size },
        }
    }
}

/// Takes the first byte off `bytes`, which are not empty.
fn next(bytes: &mut &[u8]) -> u8 {
    let first = bytes[0];
    *bytes = &bytes[1..];
    first
}

fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    let (part, rest) = bytes.split_at(length);
    *bytes = rest;
    part
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a response that arrives in these pieces: its head, its body, whether it is complete,
    /// and how many bytes were left over.
    fn read(pieces: &[&[u8]]) -> Result<(Option<Head>, Vec<u8>, bool, usize), Malformed> {
        let mut reader = ResponseReader::new();
        let (mut head, mut body, mut ended, mut left) = (None, Vec::new(), false, 0);
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(part) = reader.read(&mut bytes)? {
                match part {
                    Part::Head(read) => head = Some(read),
                    Part::Body(part) => {
                        assert!(!part.is_empty());
                        body.extend_from_slice(part);
                    }
                    Part::End => ended = true,
                }
            }
            left += bytes.len();
        }
        Ok((head, body, ended, left))
    }

    const OK: &str = "HTTP/1.1 200 OK\r\n";

    #[test]
    fn a_body_has_its_length() {
        let text = format!("{OK}Content-Length: 5\r\n\r\nhelloX");
        let (head, body, ended, left) = read(&[text.as_bytes()]).unwrap();
        assert!(head.unwrap().keep_alive);
        assert_eq!((&*body, ended, left), (&b"hello"[..], true, 1));
        let (_, _, ended, _) =
            read(&[format!("{OK}content-length: 0\r\n\r\n").as_bytes()]).unwrap();
        assert!(ended);
    }

    #[test]
    fn a_chunked_body_is_put_together() {
        let text = format!(
            "{OK}transfer-encoding: chunked\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\n\r\n\
             5;name=value\r\nhello\r\n6 \r\n world\r\n0\r\ntrailer: x\r\n\r\n"
        );
        let (head, body, ended, left) = read(&[text.as_bytes()]).unwrap();
        assert!(head.unwrap().is_event_stream);
        assert_eq!((&*body, ended, left), (&b"hello world"[..], true, 0));
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let (head, body, ended, _) = read(&[format!("{OK}\r\nabc").as_bytes()]).unwrap();
        assert!(!head.unwrap().keep_alive);
        assert_eq!((&*body, ended), (&b"abc"[..], false));
    }

    #[test]
    fn interim_responses_are_passed_over() {
        let text = format!("HTTP/1.1 100 Continue\r\n\r\n{OK}content-length: 1\r\n\r\nx");
        let (head, body, ended, _) = read(&[text.as_bytes()]).unwrap();
        assert_eq!(head.unwrap().status, 200);
        assert_eq!((&*body, ended), (&b"x"[..], true));
    }

    #[test]
    fn the_connection_closes_when_the_server_says_so() {
        for (text, keeps) in [
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
            (
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n",
                true,
            ),
        ] {
            let (head, ..) = read(&[text.as_bytes()]).unwrap();
            assert_eq!(head.unwrap().keep_alive, keeps, "{text}");
        }
    }

    #[test]
    fn what_is_no_response_is_told_apart() {
        for (text, says) in [
            ("SSH-2.0-x\r\n\r\n".to_owned(), "not HTTP"),
            (format!("{OK}content-length: x\r\n\r\n"), "no number"),
            (format!("{OK}content-length: -1\r\n\r\n"), "no number"),
            (
                format!("{OK}content-length: 1\r\ncontent-length: 2\r\n\r\n"),
                "two different",
            ),
            (
                format!("{OK}transfer-encoding: gzip\r\n\r\n"),
                "other than chunked",
            ),
            (
                format!("{OK}transfer-encoding: chunked\r\n\r\nzz\r\n"),
                "no number",
            ),
            (
                format!("{OK}transfer-encoding: chunked\r\n\r\n{}", "f".repeat(17)),
                "no number",
            ),
            (
                format!("{OK}transfer-encoding: chunked\r\n\r\n1\r\nabc"),
                "longer",
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
                "switched",
            ),
            (format!("{OK}x: {}", "y".repeat(MAX_HEAD_BYTES)), "64 KiB"),
        ] {
            let error = read(&[text.as_bytes()]).unwrap_err();
            assert!(error.0.contains(says), "{text:.80}: {error}");
        }
    }

    #[test]
    fn only_some_ends_of_a_connection_are_the_end_of_a_response() {
        let cases = [
            ("", false),
            ("HTTP/1.1 200", false),
            ("HTTP/1.1 200 OK\r\n\r\nab", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", false),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
                false,
            ),
        ];
        for (text, may_end) in cases {
            let mut reader = ResponseReader::new();
            let mut bytes = text.as_bytes();
            while reader.read(&mut bytes).unwrap().is_some() {}
            assert_eq!(reader.may_end(), may_end, "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut text = format!("{OK}transfer-encoding: chunked\r\n\r\n").into_bytes();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let (head, body, ended, left) = read(&pieces).unwrap();
            prop_assert_eq!(head.unwrap().status, 200);
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(ended);
            prop_assert_eq!(left, 0);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let mut reader = ResponseReader::new();
            'pieces: for piece in &pieces {
                let mut bytes = &piece[..];
                loop {
                    match reader.read(&mut bytes) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'pieces,
                    }
                }
            }
        }
    }
}
