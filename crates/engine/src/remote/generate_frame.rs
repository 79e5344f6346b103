//! The frame that asks for a generation, at the speed of a copy.
//!
//! It is an ordinary `WorkerRequest`. A message's fields may come in any order, so the prompt, which
//! is nearly all of it, is put first: there it is found without a search, and both ends take it as
//! a whole instead of number by number.

use std::mem;

use bytes::{BufMut as _, Bytes};
use forebay_protocols::Error;
use forebay_protocols::worker::{GenerateRequest, WorkerRequest, worker_request::Operation};
use forebay_tokens::TokenId;
use prost::Message as _;
use prost::{decode_length_delimiter, encode_length_delimiter, length_delimiter_len};

use super::frames::decode;

/// The key of `WorkerRequest.generate`: field 1, with a length.
const GENERATE: u8 = 1 << 3 | 2;
/// The key of `GenerateRequest.prompt_token_ids`: field 3, with a length.
const PROMPT: u8 = 3 << 3 | 2;

/// The frame for a request.
pub(super) fn encode_generate(mut request: GenerateRequest) -> Bytes {
    let prompt = mem::take(&mut request.prompt_token_ids);
    let prompt_bytes = size_of::<TokenId>() * prompt.len();
    let prompt_field = 1 + length_delimiter_len(prompt_bytes) + prompt_bytes;
    let body = prompt_field + request.encoded_len();
    let mut frame = Vec::with_capacity(1 + length_delimiter_len(body) + body);
    let length = |bytes, frame: &mut Vec<u8>| {
        encode_length_delimiter(bytes, frame).expect("a Vec grows");
    };
    frame.put_u8(GENERATE);
    length(body, &mut frame);
    frame.put_u8(PROMPT);
    length(prompt_bytes, &mut frame);
    let at = frame.len();
    frame.resize(at + prompt_bytes, 0);
    let places = frame[at..].as_chunks_mut().0;
    for (place, token) in places.iter_mut().zip(prompt) {
        *place = token.to_le_bytes();
    }
    request.encode(&mut frame).expect("a Vec grows");
    frame.into()
}

/// The operation of a frame; `None`, if this version does not know it.
pub(super) fn decode_operation(frame: Bytes) -> Result<Option<Operation>, Error> {
    let Some((prompt, rest)) = split(&frame) else {
        return decode::<WorkerRequest>(frame).map(|request| request.operation);
    };
    let tokens = prompt.as_chunks().0.iter();
    let mut tokens: Vec<_> = tokens.map(|token| TokenId::from_le_bytes(*token)).collect();
    let mut request: GenerateRequest = decode(frame.slice_ref(rest))?;
    tokens.append(&mut request.prompt_token_ids);
    request.prompt_token_ids = tokens;
    Ok(Some(Operation::Generate(request)))
}

/// The prompt's bytes and those of the fields after it, if a frame is as [`encode_generate`] makes
/// it.
fn split(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = field(GENERATE, frame)
        .filter(|(_, rest)| rest.is_empty())?
        .0;
    field(PROMPT, body).filter(|(prompt, _)| prompt.len() % size_of::<TokenId>() == 0)
}

/// What is in the field that `bytes` begin with, and what comes after it.
fn field(key: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut bytes = bytes.strip_prefix(&[key])?;
    let length = decode_length_delimiter(&mut bytes).ok()?;
    bytes.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use forebay_protocols::worker::{LoadRequest, SamplingParams};
    use proptest::prelude::*;

    use super::super::frames::ask;
    use super::*;

    fn request() -> impl Strategy<Value = GenerateRequest> {
        let tokens = || prop::collection::vec(any::<u32>(), 0..300);
        (tokens(), tokens(), ".{0,20}", any::<Option<u64>>()).prop_map(
            |(prompt_token_ids, emitted_token_ids, request_id, seed)| GenerateRequest {
                request_id,
                prompt_token_ids,
                emitted_token_ids,
                sampling: seed.map(|seed| SamplingParams {
                    seed,
                    ..Default::default()
                }),
                ..Default::default()
            },
        )
    }

    proptest! {
        #[test]
        fn the_frame_is_an_ordinary_message(request in request()) {
            let frame = encode_generate(request.clone());
            let operation = Some(Operation::Generate(request));
            let ordinary: WorkerRequest = decode(frame.clone())?;
            prop_assert_eq!(&ordinary.operation, &operation);
            prop_assert_eq!(decode_operation(frame)?, operation);
        }

        #[test]
        fn an_ordinary_message_is_read(request in request()) {
            let operation = Operation::Generate(request);
            let frame = ask(operation.clone());
            prop_assert_eq!(decode_operation(frame)?, Some(operation));
        }

        /// Cut, changed and extended frames too.
        #[test]
        fn any_frame_is_read_as_an_ordinary_message_would_be(
            request in request(),
            keep in any::<prop::sample::Index>(),
            change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            extra in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut frame = encode_generate(request).to_vec();
            if let Some((at, byte)) = change {
                // Mostly where the lengths and keys are.
                let at = at.index(frame.len().min(16));
                frame[at] = byte;
            }
            frame.truncate(keep.index(frame.len() + 1).max(frame.len().min(4)));
            frame.extend(extra);
            let frame = Bytes::from(frame);
            let ordinary = decode::<WorkerRequest>(frame.clone());
            match (decode_operation(frame), ordinary) {
                (Ok(operation), Ok(ordinary)) => prop_assert_eq!(operation, ordinary.operation),
                (read, ordinary) => prop_assert!(read.is_err() && ordinary.is_err()),
            }
        }
    }

    #[test]
    fn other_operations_are_read() {
        let load = Operation::Load(LoadRequest {});
        assert_eq!(decode_operation(ask(load.clone())), Ok(Some(load)));
        assert_eq!(decode_operation(Bytes::new()), Ok(None));
        assert!(decode_operation(Bytes::from_static(b"\x0a")).is_err());
    }
}
