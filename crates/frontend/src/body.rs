use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use forebay_observability::{Gauge, Registry};
use forebay_protocols::{Error, ErrorClass};
use forebay_runtime::http::Refusal;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

/// A body up to this many bytes needs no share of the budget: ordinary requests are taken however
/// many large ones there are. It is about what HTTP reads at once anyway.
const FREE_BYTES: usize = 16 << 10;

/// When another try may find room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads request bodies, within limits for each and for all together.
#[derive(Debug)]
pub(crate) struct Bodies {
    limit: usize,
    timeout: Duration,
    budget: Arc<Semaphore>,
    held_bytes: Gauge,
}

impl Bodies {
    pub(crate) fn new(limits: &Limits, registry: &Registry) -> Self {
        let registry = registry.component("frontend");
        let budget = limits.body_budget_bytes.min(Semaphore::MAX_PERMITS);
        registry
            .gauge(
                "body_budget_bytes",
                "The most bytes of long request bodies that are held at a time",
            )
            .set(i64::try_from(budget).unwrap_or(i64::MAX));
        Self {
            limit: limits.body_bytes,
            timeout: limits.body_timeout,
            budget: Arc::new(Semaphore::new(budget)),
            held_bytes: registry.gauge("body_bytes", "Bytes of long request bodies that are held"),
        }
    }

    /// The JSON body of a request. Its share of the budget is given back when the last clone of
    /// it is dropped.
    ///
    /// Another content type than JSON is refused, and an absent one, too: a browser sends those
    /// across origins without asking.
    pub(crate) async fn read_json(&self, request: Request<Body>) -> Result<Bytes, Refusal> {
        if !is_json(request.headers()) {
            return Err(Refusal::of_http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "the header content-type must be application/json".to_owned(),
            ));
        }
        let body = request.into_body();
        // What the client announces need not be read to be refused.
        if body.size_hint().lower() > self.limit as u64 {
            return Err(self.too_large().into());
        }
        match tokio::time::timeout(self.timeout, self.collect(body)).await {
            Ok(read) => Ok(read?),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                let message = format!("the body did not arrive within {seconds} s");
                Err(Refusal::of_http(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_timeout",
                    message,
                ))
            }
        }
    }

    async fn collect(&self, mut body: Body) -> Result<Bytes, Error> {
        let announced = body.size_hint().exact();
        let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
        let mut whole = Held::default();
        while let Some(frame) = body.frame().await {
            // What is not data are trailers, which say nothing here.
            let Ok(data) = frame.map_err(incomplete)?.into_data() else {
                continue;
            };
            let is_whole = whole.bytes.is_empty() && body.is_end_stream();
            if is_whole && data.len() <= self.limit.min(FREE_BYTES) {
                return Ok(data);
            }
            self.append(&mut whole, &data, announced.unwrap_or(self.limit))?;
        }
        Ok(Bytes::from_owner(whole))
    }

    /// Appends to what has arrived of a body that will have at most so many bytes. Memory is taken
    /// for what has come, not for what is announced, and only with its share.
    fn append(&self, whole: &mut Held, data: &[u8], most: usize) -> Result<(), Error> {
        let length = whole.bytes.len() + data.len();
        if length > self.limit {
            return Err(self.too_large());
        }
        if length > whole.bytes.capacity() {
            // Doubled, so that little is copied often; where there is no room for that, to measure.
            let doubled = length.next_power_of_two().min(most).max(length);
            let room = match self.grow(&mut whole.share, doubled) {
                true => doubled,
                false if self.grow(&mut whole.share, length) => length,
                false => return Err(exhausted()),
            };
            whole.bytes.reserve_exact(room - whole.bytes.len());
        }
        whole.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Makes a share this large, or leaves it as it is if there is no room for it, and says which.
    /// A short body needs none.
    fn grow(&self, share: &mut Option<Share>, bytes: usize) -> bool {
        if bytes <= FREE_BYTES {
            return true;
        }
        let held = share.as_ref().map_or(0, |share| share.permit.num_permits());
        let Ok(more) = u32::try_from(bytes - held) else {
            return false;
        };
        let Ok(permit) = self.budget.clone().try_acquire_many_owned(more) else {
            return false;
        };
        self.held_bytes.inc_by(more.into());
        match share {
            Some(share) => share.permit.merge(permit),
            None => {
                *share = Some(Share {
                    permit,
                    held_bytes: self.held_bytes.clone(),
                });
            }
        }
        true
    }

    fn too_large(&self) -> Error {
        let limit = self.limit;
        let message = format!("the body has more than {limit} bytes");
        Error::new(ErrorClass::TooLarge, "body_too_large", message)
    }
}

/// What has arrived of a body, with its share of the budget.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    share: Option<Share>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Share {
    permit: OwnedSemaphorePermit,
    held_bytes: Gauge,
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = i64::try_from(self.permit.num_permits()).unwrap_or(i64::MAX);
        self.held_bytes.dec_by(bytes);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    content_type.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    })
}

fn incomplete(error: axum::Error) -> Error {
    Error::new(
        ErrorClass::InvalidRequest,
        "body_incomplete",
        "the body did not arrive whole",
    )
    .with_diagnostic(error.to_string())
}

fn exhausted() -> Error {
    Error::new(
        ErrorClass::CapacityExhausted,
        "body_budget_exhausted",
        "too many long bodies are being read",
    )
    .with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::config::FrontendConfig;

    fn bodies(body_budget_bytes: usize) -> Bodies {
        let config = FrontendConfig {
            body_limit_bytes: 100_000,
            body_budget_bytes,
            ..FrontendConfig::default()
        };
        Bodies::new(&config.limits().unwrap(), &Registry::new())
    }

    /// A body of these many bytes in pieces of 10,000, without its length.
    fn body(length: usize) -> Body {
        let pieces = vec![7; length];
        let pieces: Vec<_> = pieces
            .chunks(10_000)
            .map(|c| Ok::<_, Error>(Bytes::copy_from_slice(c)))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn long_bodies_share_a_budget_and_short_ones_need_none() {
        let bodies = bodies(80_000);
        let first = bodies.collect(body(70_000)).await.unwrap();
        assert_eq!(&first[..], vec![7; 70_000]);
        assert_eq!(bodies.held_bytes.get(), 70_000);

        let error = bodies.collect(body(20_000)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::CapacityExhausted);
        assert_eq!(error.retry_after, Some(RETRY_AFTER));
        assert_eq!(
            bodies.held_bytes.get(),
            70_000,
            "a refused one holds nothing"
        );
        assert_eq!(
            bodies.collect(body(FREE_BYTES)).await.unwrap().len(),
            FREE_BYTES
        );
        assert_eq!(bodies.held_bytes.get(), 70_000);

        // It is held by every clone.
        let clone = first.slice(..10);
        drop(first);
        assert_eq!(bodies.held_bytes.get(), 70_000);
        drop(clone);
        assert_eq!(bodies.held_bytes.get(), 0);
        assert_eq!(bodies.budget.available_permits(), 80_000);
        assert_eq!(bodies.collect(body(80_000)).await.unwrap().len(), 80_000);
    }

    #[test]
    fn what_is_announced_and_not_sent_takes_nothing() {
        let bodies = bodies(80_000);
        let mut begun: Vec<_> = (0..100).map(|_| Held::default()).collect();
        for whole in &mut begun {
            bodies.append(whole, &[7; 1000], 90_000).unwrap();
            assert!(whole.bytes.capacity() <= FREE_BYTES);
        }
        assert_eq!(bodies.held_bytes.get(), 0);

        // What there is memory for has its share, whatever the pieces.
        let whole = &mut begun[0];
        for length in (2000..=70_000).step_by(1000) {
            bodies.append(whole, &[7; 1000], 90_000).unwrap();
            let held = usize::try_from(bodies.held_bytes.get()).unwrap();
            let capacity = whole.bytes.capacity();
            assert!(capacity <= held.max(FREE_BYTES), "{capacity} of {length}");
        }
        assert_eq!(whole.bytes, vec![7; 70_000]);
    }

    #[tokio::test]
    async fn the_limit_holds_without_a_length_too() {
        let bodies = bodies(usize::MAX);
        let whole = bodies.collect(body(100_000)).await.unwrap();
        assert_eq!(whole.len(), 100_000);
        let error = bodies.collect(body(100_001)).await.unwrap_err();
        assert_eq!(error.reason, "body_too_large");
        assert_eq!(bodies.collect(Body::empty()).await.unwrap(), Bytes::new());
    }
}
