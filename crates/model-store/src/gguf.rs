//! The one thing this crate knows about a model file's inside.

use std::io::{self, Read};

/// A GGUF file's first four bytes
/// (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// Whether `file`, read from its start, begins as a GGUF file does.
pub(crate) fn has_magic(mut file: impl Read) -> io::Result<bool> {
    let mut start = [0; 4];
    match file.read_exact(&mut start) {
        Ok(()) => Ok(start == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
