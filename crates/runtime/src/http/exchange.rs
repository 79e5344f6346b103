use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

/// Where a connection is between two requests: what the [`Wire`](super::wire::Wire) below HTTP and
/// the [`Exchanges`] above it tell each other.
///
/// One task polls both, so the fields need no order among them.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    /// Whether some of the next request's head has been read.
    head_begun: AtomicBool,
    /// Whether some of the current request's body has not been read.
    body_unread: AtomicBool,
    /// The status with which HTTP itself refused a head; 0 if it did not.
    refusal: AtomicU16,
}

/// A head is awaited or read, and nothing is left to write.
const HEAD: u8 = 0;
/// A request is with the router, or its response is being made.
const SERVING: u8 = 1;
/// The response is made, and not all of it is with the system yet.
const ANSWERED: u8 = 2;

impl Exchange {
    /// Whether nothing is going on: the last answer has left, nothing of it is missing from what
    /// was read, and nothing has come since.
    pub(super) fn is_idle(&self) -> bool {
        self.in_head() && !self.head_begun.load(Relaxed) && !self.body_unread.load(Relaxed)
    }

    /// Whether the client has begun a head and not ended it.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head() && self.head_begun.load(Relaxed)
    }

    /// The status with which HTTP itself refused what should have been a head.
    pub(super) fn refusal(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refusal.load(Relaxed)).ok()
    }

    fn in_head(&self) -> bool {
        self.phase.load(Relaxed) == HEAD
    }

    /// Bytes were read.
    pub(super) fn read(&self) {
        if self.in_head() {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// Bytes are to be written. False if nobody answers a request: HTTP itself speaks then, and
    /// says no more than a status.
    pub(super) fn may_write(&self, bytes: &[u8]) -> bool {
        if !self.in_head() {
            return true;
        }
        let digits = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|b| b.get(..3));
        let status = digits.and_then(|digits| StatusCode::from_bytes(digits).ok());
        if let Some(status) = status {
            self.refusal.store(status.as_u16(), Relaxed);
        }
        false
    }

    /// Everything that was written is with the system.
    pub(super) fn flushed(&self) {
        if self.phase.load(Relaxed) == ANSWERED {
            self.phase.store(HEAD, Relaxed);
        }
    }

    fn request(&self, body: &Incoming) {
        self.phase.store(SERVING, Relaxed);
        self.head_begun.store(false, Relaxed);
        self.body_unread.store(!body.is_end_stream(), Relaxed);
    }
}

/// Serves the requests of one connection, and keeps its [`Exchange`].
pub(super) struct Exchanges {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) exchange: Arc<Exchange>,
}

impl Service<Request<Incoming>> for Exchanges {
    type Response = Response<Answer>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.exchange.request(request.body());
        let exchange = self.exchange.clone();
        let request = request.map(|body| Received {
            body,
            exchange: exchange.clone(),
        });
        let response = self.router.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if exchange.body_unread.load(Relaxed) {
                // What is left of the request would be read as the next one.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok(response.map(|body| Answer {
                body,
                _end: AnswerEnd(exchange),
            }))
        })
    }
}

/// A request's body, which tells when it was read to its end.
struct Received {
    body: Incoming,
    exchange: Arc<Exchange>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            _ => false,
        };
        if ended {
            self.exchange.body_unread.store(false, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body; HTTP drops it when it has taken all of it.
pub(super) struct Answer {
    body: Body,
    _end: AnswerEnd,
}

struct AnswerEnd(Arc<Exchange>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.phase.store(ANSWERED, Relaxed);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
