//! A peer that says what it likes.

use bytes::BytesMut;
use forebay_mux::session::{Hello, Preface};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::in_time;

/// Says hello, and reads the answer to it, and nothing more.
pub(crate) async fn say_hello(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: Hello,
) -> Preface {
    let bytes = Preface::Hello(hello).encode();
    stream.write_all(&bytes).await.unwrap();
    let mut input = BytesMut::new();
    loop {
        if let Some(preface) = Preface::decode(&mut input).unwrap() {
            return preface;
        }
        input.extend_from_slice(&[in_time(stream.read_u8()).await.unwrap()]);
    }
}
