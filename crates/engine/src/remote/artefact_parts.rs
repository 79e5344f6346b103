//! An artefact on its way: in parts, as it may be of many megabytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_protocols::worker::{Artefact, ArtefactPart, artefact::Content};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::ResponseStream;
use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use super::artefact::{ArtefactDigest, Artefacts};
use super::frames::{broken, decode, encode};

/// The bytes of a part.
const PART_BYTES: usize = 256 << 10;

/// The most bytes of an artefact: several times the largest tokenizers of the field.
const MOST_BYTES: usize = 128 << 20;

/// How long the next part is waited for: 256 KiB, over any network that carries tokens.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to who asks for an artefact.
pub(super) fn send(artefacts: &Artefacts, digest: &[u8]) -> ResponseStream {
    let digest = digest.try_into().ok().map(ArtefactDigest);
    match digest.and_then(|digest| artefacts.get(&digest)) {
        Some(bytes) => {
            let bytes = bytes.clone();
            let parts = (0..bytes.len()).step_by(PART_BYTES).map(move |from| {
                let part = bytes.slice(from..bytes.len().min(from + PART_BYTES));
                Ok(encode(&ArtefactPart {
                    bytes: part.to_vec(),
                    total_bytes: bytes.len() as u64,
                }))
            });
            stream::iter(parts).boxed()
        }
        None => {
            let message = "this worker does not have the artefact";
            let error = Error::new(ErrorClass::NotFound, "unknown_artefact", message);
            stream::iter([Err(error)]).boxed()
        }
    }
}

/// Takes an artefact from such an answer, and holds it against its digest.
pub(super) async fn receive(
    mut parts: ResponseStream,
    digest: ArtefactDigest,
) -> Result<Content, Error> {
    let mut bytes = BytesMut::new();
    while let Some(part) = next(&mut parts).await? {
        let part: ArtefactPart = decode(part?)?;
        let total = usize::try_from(part.total_bytes).unwrap_or(usize::MAX);
        let so_far = bytes.len() + part.bytes.len();
        if total > MOST_BYTES || so_far > total || part.bytes.is_empty() {
            return Err(broken("an artefact of another size than was said"));
        }
        bytes.reserve(total - bytes.len());
        bytes.extend_from_slice(&part.bytes);
    }
    read(bytes.freeze(), digest)
}

async fn next(parts: &mut ResponseStream) -> Result<Option<Result<Bytes, Error>>, Error> {
    let part = timeout(PART_TIMEOUT, parts.next()).await;
    part.map_err(|_| {
        let message = "a worker does not send the next part of an artefact";
        Error::new(ErrorClass::Deadline, "artefact_timeout", message)
    })
}

fn read(bytes: Bytes, digest: ArtefactDigest) -> Result<Content, Error> {
    let got = ArtefactDigest::of(&bytes);
    if got != digest {
        let message = "a worker's artefact is not the one that was asked for";
        let error = Error::new(ErrorClass::BackendProtocol, "wrong_artefact", message);
        return Err(error.with_diagnostic(format!("asked for {digest}, got {got}")));
    }
    let artefact: Artefact = decode(bytes)?;
    artefact
        .content
        .ok_or_else(|| broken("an artefact of a kind that this version does not know"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt as _;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn template(bytes: usize) -> Content {
        Content::Template("x".repeat(bytes))
    }

    fn receive_now(parts: ResponseStream, digest: ArtefactDigest) -> Result<Content, Error> {
        receive(parts, digest).now_or_never().unwrap()
    }

    proptest! {
        /// No frames but its own are taken for the artefact that was asked for, and none make more
        /// of it than they say.
        #[test]
        fn any_frames_are_the_artefact_or_refused(
            noise in vec(vec(any::<u8>(), 0..40), 0..3),
            lies in vec((vec(any::<u8>(), 0..40), any::<u64>()), 0..3),
            is_noise: bool,
        ) {
            let lies = lies.into_iter().map(|(bytes, total_bytes)| {
                encode(&ArtefactPart { bytes, total_bytes })
            });
            let frames: Vec<Bytes> = match is_noise {
                true => noise.into_iter().map(Bytes::from).collect(),
                false => lies.collect(),
            };
            let parts = stream::iter(frames.into_iter().map(Ok)).boxed();
            let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let _entered = clock.as_ref().unwrap().enter();
            prop_assert!(receive_now(parts, ArtefactDigest([7; 32])).is_err());
        }

        /// Of the digest that was asked for, but of any content.
        #[test]
        fn any_bytes_of_the_right_digest_are_read_or_refused(bytes in vec(any::<u8>(), 0..60)) {
            let digest = ArtefactDigest::of(&bytes);
            if let Ok(content) = read(bytes.into(), digest) {
                let digest = Artefacts::new().insert(content.clone());
                let again = encode(&Artefact { content: Some(content.clone()) });
                prop_assert!(read(again, digest).unwrap() == content);
            }
        }
    }

    fn part(bytes: &[u8], total: usize) -> Result<Bytes, Error> {
        Ok(encode(&ArtefactPart {
            bytes: bytes.to_vec(),
            total_bytes: total as u64,
        }))
    }

    #[tokio::test]
    async fn an_artefact_arrives_whatever_its_size() {
        for bytes in [0, 1, PART_BYTES - 20, PART_BYTES, 3 * PART_BYTES + 5] {
            let mut artefacts = Artefacts::new();
            let digest = artefacts.insert(template(bytes));
            let received = receive_now(send(&artefacts, &digest.0), digest);
            assert!(received.unwrap() == template(bytes), "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn what_a_worker_does_not_have_is_not_found() {
        let digest = ArtefactDigest([7; 32]);
        let received = receive_now(send(&Artefacts::new(), &digest.0), digest);
        assert_eq!(received.unwrap_err().reason, "unknown_artefact");
        let received = receive_now(send(&Artefacts::new(), b"short"), digest);
        assert_eq!(received.unwrap_err().reason, "unknown_artefact");
    }

    #[tokio::test]
    async fn another_artefact_than_was_asked_for_is_refused() {
        let mut artefacts = Artefacts::new();
        let (asked, other) = (ArtefactDigest([7; 32]), artefacts.insert(template(5)));
        let received = receive_now(send(&artefacts, &other.0), asked);
        assert_eq!(received.unwrap_err().reason, "wrong_artefact");
    }

    #[tokio::test]
    async fn a_worker_that_sends_too_much_is_not_heard_out() {
        let digest = ArtefactDigest([7; 32]);
        for first in [part(b"xy", 1), part(b"", 1), part(b"x", MOST_BYTES + 1)] {
            // Nothing that comes after the lie is waited for.
            let parts = stream::iter([first]).chain(stream::pending()).boxed();
            let error = receive_now(parts, digest).unwrap_err();
            assert_eq!(error.class, ErrorClass::BackendProtocol);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_slow_is_waited_for_and_one_that_is_silent_is_not() {
        let mut artefacts = Artefacts::new();
        let digest = artefacts.insert(template(3 * PART_BYTES));
        let slow = send(&artefacts, &digest.0).then(|part| async {
            sleep(PART_TIMEOUT - Duration::from_millis(1)).await;
            part
        });
        let received = receive(slow.boxed(), digest).await;
        assert!(received.unwrap() == template(3 * PART_BYTES));

        let before = Instant::now();
        let silent = send(&artefacts, &digest.0).take(1).chain(stream::pending());
        let error = receive(silent.boxed(), digest).await.unwrap_err();
        assert_eq!(
            (error.class, &*error.reason),
            (ErrorClass::Deadline, "artefact_timeout")
        );
        assert_eq!(before.elapsed(), PART_TIMEOUT);
    }
}
