//! How a connection is closed so that its client learns why.

use std::io;
use std::time::Duration;

use forebay_protocols::openai::ErrorEnvelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::random_request_id;
use super::refusal::Refusal;

/// How long a client that was answered may take to end its side, and to send what it still sends.
const LINGER: Duration = Duration::from_secs(5);

/// How long it may do nothing meanwhile.
const LINGER_IDLE: Duration = Duration::from_secs(1);

/// Answers what could not be read as a request.
pub(super) async fn write(stream: &mut TcpStream, refusal: &Refusal) -> io::Result<()> {
    let (status, error) = (refusal.status(), refusal.error());
    let id = random_request_id();
    tracing::info!(
        request_id = %id,
        status = status.as_u16(),
        reason = &*error.reason,
        "request refused before it was read"
    );
    let body = serde_json::to_string(&ErrorEnvelope::from(error)).map_err(io::Error::other)?;
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nx-request-id: {id}\r\n\r\n{body}",
        body.len()
    );
    timeout(LINGER, stream.write_all(response.as_bytes())).await?
}

/// Ends our side and waits until the client has ended its own, throwing away what it sends.
///
/// A socket that is closed while bytes wait to be read is reset, and a client that is still
/// sending then never sees its answer.
pub(super) async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut sink = vec![0; 16 << 10];
    let drain =
        async { while let Ok(Ok(1..)) = timeout(LINGER_IDLE, stream.read(&mut sink)).await {} };
    // Whatever the client did: its time is over.
    let _ = timeout(LINGER, drain).await;
}
