use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Request, ServerAddr};
use forebay_observability::Registry;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::NatsConfig;
use super::metrics::Metrics;
use crate::health::{Degradation, Health};
use crate::planes::PlaneError;
use crate::tasks::{TaskHandle, TaskKind, Tasks};

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Doubled with every attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// A connection on which nothing came for so long is asked for a sign of life; it is made anew at
/// the third question without an answer.
const PING: Duration = Duration::from_secs(1);
/// The pause before the server is asked for a sign of life that shows whether it is away. That is
/// known sooner than that a connection is broken, and than that a peer behind it is silent. From
/// then on this process is silent itself, so that a peer that can still hear it needs both times
/// to find that it cannot be reached: together they stay below 1.5 s.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// How long it may take to answer.
const PROBE: Duration = Duration::from_millis(300);
/// What a check may be late by.
const LATE: Duration = Duration::from_millis(100);
/// How long to wait for what has been sent to arrive at the server.
const SETTLE: Duration = Duration::from_secs(2);
/// How long after the server's return others may still be on their way to it.
const STEADY: Duration = Duration::from_secs(2);
/// A subject on which nobody listens.
const NOBODY: &str = "forebay.nobody";
/// Messages that one subscription of the client holds until they are taken; what comes then is
/// lost. Every subscription has a task that takes them at once.
const SUBSCRIPTION_MESSAGES: usize = 8_192;

/// A process's one connection to NATS. Clones are handles on the same one.
///
/// A connection that breaks is made again for as long as it takes, after pauses of at most 250 ms,
/// and every subscription with it. What was in flight is lost. A server that does not answer within
/// 300 ms counts as away until it does.
///
/// Metrics: `forebay_nats_*`.
#[derive(Clone)]
pub struct NatsConnection {
    client: Client,
    connected: watch::Receiver<bool>,
    state: Arc<State>,
    metrics: Metrics,
    _probe: Arc<CancelOnDrop>,
}

impl NatsConnection {
    /// Connects, and waits [`NatsConfig::connect_timeout`] for a server that is not there yet. A
    /// task of `tasks` looks after the connection while there is a handle on it. Absences of the
    /// server are told in `health` as `nats`; until it is there for the first time, the process is
    /// not ready.
    ///
    /// # Errors
    ///
    /// [`PlaneError::Unreachable`], if none of the servers answered in time, or at once if one
    /// does not let us in.
    pub async fn connect(
        config: &NatsConfig,
        tasks: &Tasks,
        registry: &Registry,
        health: &Health,
    ) -> Result<Self, PlaneError> {
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
            standing: Mutex::new(Standing::default()),
            degradation: health.degradation("nats"),
            metrics: metrics.clone(),
        });
        let reason = "nats has not answered yet";
        state.degradation.set(reason);
        let start = health.condition("nats", reason);
        let until = Instant::now() + config.connect_timeout;
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
        start.set_ready();
        let probe = tasks.spawn(
            TaskKind::Critical,
            "nats_probe",
            probe(client.clone(), state.clone()),
        );
        Ok(Self {
            client,
            connected,
            state,
            metrics,
            _probe: Arc::new(CancelOnDrop(probe)),
        })
    }

    /// Whether the server is there, now and at each change.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Whether the server has been there for long enough that others who lost it with us are back.
    pub(super) fn is_steady(&self) -> bool {
        let standing = self.state.standing.lock();
        let is_steady = |back: Instant| back.elapsed() >= STEADY;
        standing.is_there() && standing.back_since.is_none_or(is_steady)
    }

    /// Waits for the end of the next absence of the server, and until it has the subscriptions again.
    pub(super) async fn back(&self) {
        let mut connected = self.connected();
        for is_there in [false, true] {
            if connected.wait_for(|now| *now == is_there).await.is_err() {
                // It will not be back.
                return std::future::pending().await;
            }
        }
        self.settle().await;
    }

    /// Waits until the server has what was sent before, for a moment at most; not at all while it
    /// is away.
    pub(super) async fn settle(&self) {
        if *self.connected.borrow() {
            // Whether it answered or not: what is lost shows.
            let _ = timeout(SETTLE, round_trip(&self.client)).await;
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Whether the server is there, by the client's events and the probe's.
struct State {
    connected: watch::Sender<bool>,
    standing: Mutex<Standing>,
    degradation: Degradation,
    metrics: Metrics,
}

#[derive(Default)]
struct Standing {
    connects: u64,
    /// It has been away since it was first there.
    was_away: bool,
    /// The client has a connection.
    is_connected: bool,
    /// The server did not answer on it.
    is_silent: bool,
    /// When the last absence ended.
    back_since: Option<Instant>,
}

impl Standing {
    fn is_there(&self) -> bool {
        self.is_connected && !self.is_silent
    }
}

impl State {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => self.change(|standing| {
                standing.connects += 1;
                standing.is_connected = true;
                standing.is_silent = false;
                if standing.connects > 1 {
                    self.metrics.reconnects.inc();
                }
            }),
            Event::Disconnected => self.change(|standing| standing.is_connected = false),
            // Messages that were lost show as gaps; attempts to connect are many; and only this
            // process closes the connection, at its end.
            _ => (),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock();
        change(&mut standing);
        let connected = standing.is_there();
        if connected == *self.connected.borrow() {
            return;
        }
        self.metrics.connected.set(i64::from(connected));
        if !connected {
            standing.was_away = true;
            self.degradation.set("the nats server is away");
            tracing::warn!("nats is away");
        } else {
            self.degradation.clear();
            if standing.was_away {
                standing.back_since = Some(Instant::now());
                tracing::info!("nats is back");
            }
        }
        self.connected.send_replace(connected);
    }
}

/// Asks the server for signs of life.
async fn probe(client: Client, state: Arc<State>) {
    loop {
        sleep(PROBE_PAUSE).await;
        if !state.standing.lock().is_connected {
            continue;
        }
        let asked = Instant::now();
        let answers = timeout(PROBE, round_trip(&client)).await.is_ok();
        // A check that ran late says more of this process than of the server.
        if answers || asked.elapsed() < PROBE + LATE {
            state.change(|standing| standing.is_silent = !answers);
        }
    }
}

/// Waits for the server's answer to whatever was sent before, however long.
async fn round_trip(client: &Client) {
    // Nobody listens there, and the server says so: that is its answer.
    let _ = client
        .send_request(NOBODY, Request::new().timeout(None))
        .await;
}

struct CancelOnDrop(TaskHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn options(config: &NatsConfig, state: &Arc<State>) -> ConnectOptions {
    let state = state.clone();
    let mut options = ConnectOptions::new()
        .name("forebay")
        .connection_timeout(ATTEMPT)
        .ping_interval(PING)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .require_tls(config.tls.is_on())
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            state.note(&event);
            std::future::ready(())
        });
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.reveal().to_owned());
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
