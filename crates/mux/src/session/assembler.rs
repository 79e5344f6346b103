use bytes::{Bytes, BytesMut};

/// A message that is longer than its reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message longer than {limit_bytes} bytes")]
pub struct TooLong {
    /// What the reader takes.
    pub limit_bytes: usize,
}

/// Makes messages of chunks. One that came whole is passed on as it is.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: BytesMut,
}

impl Assembler {
    /// Adds a chunk of [`Event::Chunk`](super::Event::Chunk); returns the message if it is the last.
    ///
    /// # Errors
    ///
    /// [`TooLong`] beyond `limit_bytes`; what was there is dropped.
    pub fn push(
        &mut self,
        chunk: Bytes,
        last: bool,
        limit_bytes: usize,
    ) -> Result<Option<Bytes>, TooLong> {
        if self.parts.len() + chunk.len() > limit_bytes {
            self.parts = BytesMut::new();
            return Err(TooLong { limit_bytes });
        }
        if last && self.parts.is_empty() {
            return Ok(Some(chunk));
        }
        self.parts.extend_from_slice(&chunk);
        Ok(last.then(|| std::mem::take(&mut self.parts).freeze()))
    }
}
