use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::http::StatusCode;
use bytes::Bytes;
use forebay_observability::Registry;
use futures::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::closing;
use super::exchange::{Exchange, Exchanges};
use super::limits::HttpLimits;
use super::metrics::{ConnectionMetrics, End};
use super::refusal::Refusal;
use super::wire::Wire;

/// The most bytes that HTTP reads at a time, and that it keeps of a response which the client
/// does not take.
const HTTP_BUFFER_BYTES: usize = 64 << 10;

/// The connections of one server: what is between their sockets and its router.
///
/// HTTP is hyper's. Around it is what hyper leaves open: between two requests nothing of HTTP is
/// kept but the socket, every wait has an end, and who is refused is told why before the socket
/// closes.
///
/// Metrics, under the name of the component: `connections`, `connections_limit`,
/// `connections_ended_total{end}`.
pub struct Connections {
    http: http1::Builder,
    router: Router,
    limits: HttpLimits,
    places: Arc<Semaphore>,
    /// Told when a client waits for a place: the connection that is idle for longest makes room.
    pressure: Notify,
    /// Told when the server closes.
    closing: CancellationToken,
    metrics: ConnectionMetrics,
}

/// What came of serving requests.
enum Turn {
    /// All that came is answered.
    Idle(TcpStream),
    /// The connection is of no more use.
    Ended(End),
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// Those of a `component`, of which `router` answers the requests.
    pub fn new(router: Router, limits: HttpLimits, component: &str, registry: &Registry) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            // An event is small: one piece costs less than a list of three.
            .writev(false)
            .max_header_size(limits.head_bytes)
            .max_buf_size(HTTP_BUFFER_BYTES.max(limits.head_bytes));
        Self {
            http,
            router,
            limits,
            places: Arc::new(Semaphore::new(
                limits.connections.min(Semaphore::MAX_PERMITS),
            )),
            pressure: Notify::new(),
            closing: CancellationToken::new(),
            metrics: ConnectionMetrics::new(component, limits.connections, registry),
        }
    }

    /// Told when the server closes: connections finish the requests that they have, and end.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// A place for one more connection, which is taken until it is dropped: the one that is idle
    /// for longest makes room if there is none. Cancel-safe.
    pub async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        self.pressure.notify_one();
        let place = self.places.clone().acquire_owned().await;
        // None was idle, and one that ended by itself made room: nobody else has to.
        let _ = self.pressure.notified().now_or_never();
        place.expect("the semaphore is never closed")
    }

    /// Serves a client's requests until one of the two closes, in its [place](Self::place).
    ///
    /// A client that leaves in the middle drops its request with the connection, and with it
    /// everything that is done for it.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let _open = self.metrics.open();
        let mut idle = stream;
        let end = loop {
            let readable = tokio::select! {
                biased;
                () = self.closing.cancelled() => break End::Closing,
                readable = idle.readable() => readable,
                () = self.pressure.notified() => break End::MadeRoom,
                () = tokio::time::sleep(self.limits.idle_timeout) => break End::Idle,
            };
            if readable.is_err() {
                break End::Lost;
            }
            // Boxed: thousands wait here, and few are beyond.
            match Box::pin(self.requests(idle)).await {
                Turn::Idle(stream) => idle = stream,
                Turn::Ended(end) => break end,
            }
        };
        self.metrics.ended(end);
    }

    /// Serves the requests that come one after the other.
    async fn requests(&self, mut stream: TcpStream) -> Turn {
        let mut ahead = Bytes::new();
        loop {
            let exchange = Arc::new(Exchange::default());
            let write_timeout = self.limits.write_timeout;
            let wire = Wire::new(stream, ahead, exchange.clone(), write_timeout);
            let exchanges = Exchanges {
                router: TowerToHyperService::new(self.router.clone()),
                exchange: exchange.clone(),
            };
            let mut http = self.http.serve_connection(TokioIo::new(wire), exchanges);
            let mut closing = pin!(self.closing.cancelled());
            let mut told = false;
            // `None` once nothing goes on.
            let served = poll_fn(|cx| {
                if !told && closing.as_mut().poll(cx).is_ready() {
                    // What it has is finished, and nothing more is taken.
                    Pin::new(&mut http).graceful_shutdown();
                    told = true;
                }
                match http.poll_without_shutdown(cx) {
                    Poll::Pending if exchange.is_idle() => Poll::Ready(None),
                    served => served.map(Some),
                }
            })
            .await;
            let parts = http.into_parts();
            let ended;
            (stream, ended) = parts.io.into_inner().into_stream();
            let Some(served) = served else {
                if parts.read_buf.is_empty() {
                    return Turn::Idle(stream);
                }
                // The next request has begun to come with the last.
                ahead = parts.read_buf;
                continue;
            };
            return Turn::Ended(self.end(stream, ended, served, &exchange).await);
        }
    }

    /// Ends a connection that HTTP is done with: the client is told why if it was told nothing,
    /// and has time to read it.
    async fn end(
        &self,
        mut stream: TcpStream,
        client_ended: bool,
        served: hyper::Result<()>,
        exchange: &Exchange,
    ) -> End {
        let (end, refusal) = match served {
            Ok(()) => (End::Finished, None),
            Err(error) if error.is_timeout() && exchange.is_in_head() => {
                (End::HeaderTimeout, Some(self.header_timeout()))
            }
            Err(error) if error.is_parse() => {
                tracing::debug!(%error, "malformed request");
                (End::Malformed, Some(self.malformed(exchange.refusal())))
            }
            Err(error) => {
                tracing::debug!(%error, "connection ended early");
                return match is_timeout(&error) {
                    true => End::WriteTimeout,
                    false => End::Lost,
                };
            }
        };
        if let Some(refusal) = refusal
            && closing::write(&mut stream, &refusal).await.is_err()
        {
            return end;
        }
        if !client_ended {
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = closing::linger(&mut stream) => {}
            }
        }
        end
    }

    fn header_timeout(&self) -> Refusal {
        let seconds = self.limits.header_timeout.as_secs_f64();
        let message = format!("the request's head did not arrive within {seconds} s");
        Refusal::of_http(StatusCode::REQUEST_TIMEOUT, "header_timeout", message)
    }

    fn malformed(&self, status: Option<StatusCode>) -> Refusal {
        let limit = self.limits.head_bytes;
        let (status, reason, message) = match status {
            Some(status @ StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => (
                status,
                "head_too_large",
                format!("the request's head has more than {limit} bytes or 100 fields"),
            ),
            Some(status @ StatusCode::URI_TOO_LONG) => {
                (status, "uri_too_long", "the URI is too long".to_owned())
            }
            _ => (
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "this is not a request of HTTP/1.1 or 1.0".to_owned(),
            ),
        };
        Refusal::of_http(status, reason, message)
    }
}

/// Whether the system's error behind `error` is that a time is over.
fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}
