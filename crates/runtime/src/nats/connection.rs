use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Request, ServerAddr};
use forebay_observability::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::config::NatsConfig;
use super::metrics::Metrics;
use crate::planes::PlaneError;

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Doubled with every attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// A connection on which nothing came for so long is asked for a sign of life; it counts as broken
/// at the third question without an answer.
const PING: Duration = Duration::from_secs(1);
/// How long to wait for what has been sent to arrive at the server.
const SETTLE: Duration = Duration::from_secs(2);
/// A subject on which nobody listens.
const NOBODY: &str = "forebay.nobody";
/// Messages that one subscription of the client holds until they are taken; what comes then is
/// lost. Every subscription has a task that takes them at once.
const SUBSCRIPTION_MESSAGES: usize = 8_192;

/// A process's one connection to NATS. Clones are handles on the same one.
///
/// A connection that breaks is made again for as long as it takes, after pauses of at most 250 ms,
/// and every subscription with it. What was in flight is lost.
///
/// Metrics: `forebay_nats_*`.
#[derive(Clone)]
pub struct NatsConnection {
    client: Client,
    connected: watch::Receiver<bool>,
    metrics: Metrics,
}

impl NatsConnection {
    /// Connects, and waits [`NatsConfig::connect_seconds`] for a server that is not there yet.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Unreachable`], if none of the servers answered in time, or at once if one
    /// does not let us in.
    pub async fn connect(config: &NatsConfig, registry: &Registry) -> Result<Self, PlaneError> {
        let metrics = Metrics::new(registry);
        let servers: Vec<ServerAddr> = config
            .servers
            .iter()
            .map(|server| server.parse())
            .collect::<Result<_, std::io::Error>>()
            .map_err(|error| unreachable(config, error))?;
        let (sender, mut connected) = watch::channel(false);
        let state = Arc::new(State {
            connected: sender,
            connects: AtomicU64::new(0),
            metrics: metrics.clone(),
        });
        let until = Instant::now() + config.connect_time();
        let mut attempts = 0;
        let client = loop {
            let attempt = options(config, &state).connect(&servers[..]);
            let error = match timeout_at(until + ATTEMPT, attempt).await {
                Ok(Ok(client)) => break client,
                Ok(Err(error)) => error,
                Err(_) => ConnectErrorKind::TimedOut.into(),
            };
            let is_refused = matches!(
                error.kind(),
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation
            );
            if is_refused || Instant::now() >= until {
                return Err(unreachable(config, error));
            }
            if attempts == 0 {
                tracing::info!(servers = ?config.servers, %error, "waiting for nats");
            }
            attempts += 1;
            sleep(pause(attempts)).await;
        };
        let first = connected.wait_for(|connected| *connected).await;
        first.map_err(|error| unreachable(config, error))?;
        Ok(Self {
            client,
            connected,
            metrics,
        })
    }

    /// Whether the connection stands, now and at each change.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Waits until the server has what was sent before, for a moment at most; not at all while it
    /// is away.
    pub(super) async fn settle(&self) {
        if *self.connected.borrow() {
            let nothing = Request::new().timeout(Some(SETTLE));
            // Nobody listens there, and the server says so: that is its answer.
            let _ = self.client.send_request(NOBODY, nothing).await;
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// What the client's events say.
struct State {
    connected: watch::Sender<bool>,
    connects: AtomicU64,
    metrics: Metrics,
}

impl State {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                if self.connects.fetch_add(1, Ordering::Relaxed) > 0 {
                    self.metrics.reconnects.inc();
                    tracing::info!("nats is back");
                }
                self.set(true);
            }
            Event::Disconnected => {
                tracing::warn!("nats is away");
                self.set(false);
            }
            Event::Closed => self.set(false),
            // Messages that were lost show as gaps; attempts to connect are many.
            _ => (),
        }
    }

    fn set(&self, connected: bool) {
        self.metrics.connected.set(i64::from(connected));
        self.connected.send_replace(connected);
    }
}

fn options(config: &NatsConfig, state: &Arc<State>) -> ConnectOptions {
    let state = state.clone();
    let mut options = ConnectOptions::new()
        .name("forebay")
        .connection_timeout(ATTEMPT)
        .ping_interval(PING)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .require_tls(config.tls.required)
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            state.note(&event);
            std::future::ready(())
        });
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.clone());
    }
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    if let Some(ca) = &config.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options
}

/// The pause before an attempt, by how many there were.
fn pause(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => {
            let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
            (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
        }
    }
}

fn unreachable(config: &NatsConfig, error: impl Error + Send + Sync + 'static) -> PlaneError {
    let servers = config.servers.join(", ");
    PlaneError::Unreachable(Box::new(NoServer {
        servers,
        source: Box::new(error),
    }))
}

/// No server of NATS could be used.
#[derive(Debug, thiserror::Error)]
#[error("no nats server at {servers}")]
struct NoServer {
    servers: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Debug for NatsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnection")
            .field("connected", &*self.connected.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(20));
        assert_eq!(pause(3), Duration::from_millis(40));
        assert_eq!(pause(10), LONGEST_PAUSE);
        assert_eq!(pause(usize::MAX), LONGEST_PAUSE);
    }
}
