//! A client for `forebay`'s HTTP surfaces, over plain sockets and without a runtime.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a read waits: long enough for anything that is going to come at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The lines before the body.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends a GET.
///
/// # Errors
///
/// If nobody listens, or there is no answer within half a minute.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    send(address, &request)?.rest()
}

/// Sends a POST of JSON.
///
/// # Errors
///
/// As [`get`].
pub fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<Response> {
    post_with(address, path, &[], body)
}

/// Sends a POST of JSON with more header fields.
///
/// # Errors
///
/// As [`get`].
pub fn post_with(
    address: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    open(address, path, fields, body)?.rest()
}

/// Sends a POST of JSON whose answer is taken as it comes.
///
/// # Errors
///
/// As [`get`]. The answer's head has come when this returns.
pub fn stream(address: SocketAddr, path: &str, body: &str) -> io::Result<Streaming> {
    open(address, path, &[], body)
}

fn open(
    address: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> io::Result<Streaming> {
    let length = body.len();
    let fields = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields: String = fields.collect();
    send(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             {fields}content-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// HTTP/1.0, where a body is over when the connection is.
fn send(address: SocketAddr, request: &str) -> io::Result<Streaming> {
    let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    (&socket).write_all(request.as_bytes())?;
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            let message = format!("an answer that ends in its head: {head:?}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Streaming {
        status,
        head,
        reader,
    })
}

/// An answer of which the head has come. Dropping it leaves.
#[derive(Debug)]
pub struct Streaming {
    /// The status code.
    pub status: u16,
    head: String,
    reader: BufReader<TcpStream>,
}

impl Streaming {
    /// The data of the next server-sent event; `None` at the end of the body.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or nothing comes for half a minute.
    pub fn event(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Ok(Some(data.trim_end().to_owned()));
            }
        }
    }

    /// Everything that is still to come.
    ///
    /// # Errors
    ///
    /// As [`Streaming::event`].
    pub fn rest(mut self) -> io::Result<Response> {
        let mut body = String::new();
        self.reader.read_to_string(&mut body)?;
        Ok(Response {
            status: self.status,
            head: self.head,
            body,
        })
    }
}
