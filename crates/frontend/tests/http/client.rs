//! An HTTP client that hides nothing.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| &**value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    /// The events of a stream, each without `data: `.
    pub(crate) fn events(&self) -> Vec<&str> {
        let body = self.body.strip_suffix("\n\n").expect("whole events");
        let events = body.split("\n\n");
        events
            .map(|event| event.strip_prefix("data: ").expect("a data line"))
            .collect()
    }

    /// Panics unless it is an error of OpenAI's form with this status, code and param.
    pub(crate) fn assert_error(&self, status: u16, code: &str, param: Option<&str>) {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{}", self.body);
        assert_eq!(error["param"].as_str(), param, "{}", self.body);
        assert!(error["message"].is_string() && error["type"].is_string());
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    send(address, &format!("GET {path} HTTP/1.1\r\n"), "").await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\n");
    send(address, &head, &body.to_string()).await
}

/// Sends a request whose head lacks only the host, the length and the end.
pub(crate) async fn send(address: SocketAddr, head: &str, body: &str) -> Response {
    let mut stream = open(address, head, body).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    parse(&bytes)
}

/// The same, and leaves the answer to be read.
pub(crate) async fn open(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request =
        format!("{head}host: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn open_post(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\n");
    open(address, &head, &body.to_string()).await
}

/// Reads until `text` has arrived; gives everything so far.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut bytes = Vec::new();
    loop {
        let read = stream.read_buf(&mut bytes).await.unwrap();
        let so_far = String::from_utf8_lossy(&bytes);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
        assert!(read > 0, "ended before {text:?}: {so_far}");
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Response {
    let text = std::str::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    Response {
        status: status.parse().unwrap(),
        headers,
        body: match chunked {
            true => chunks(body).concat(),
            false => body.to_owned(),
        },
    }
}

/// The chunks of a body in the chunked encoding, which must be whole.
pub(crate) fn chunks(mut body: &str) -> Vec<&str> {
    let mut chunks = Vec::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            assert_eq!(rest, "\r\n");
            return chunks;
        }
        chunks.push(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap();
    }
}
