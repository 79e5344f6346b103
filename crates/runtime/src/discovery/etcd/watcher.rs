use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use etcd_client::{Event, EventType, KeyValue, ResponseHeader, WatchResponse, WatchStream};
use forebay_observability::ErrorChain;
use forebay_protocols::discovery::InstanceRecord;
use forebay_tokens::WorkerId;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::super::board::{Board, Gone};
use super::super::metrics::Metrics;
use super::super::record;
use super::access::{Access, EtcdError};
use super::availability::{Availability, Away};
use super::back_off::BackOff;
use super::prefix;
use super::seen::Seen;
use crate::names::EndpointId;

/// How often a watch is asked for a sign of life.
const ASK: Duration = Duration::from_secs(2);
/// A watch that has said nothing for so long is begun anew.
const SILENCE: Duration = Duration::from_secs(6);

/// Keeps what the board shows of one endpoint to what etcd has.
pub(super) struct Watcher {
    access: Access,
    availability: Availability,
    metrics: Metrics,
    board: Board,
    endpoint: EndpointId,
    prefix: String,
    /// Up to where the board is; none if it must be listed anew.
    seen: Option<Seen>,
    /// Whether it was ever listed.
    is_listed: bool,
    /// Keys that were complained about.
    warned: HashSet<Vec<u8>>,
}

/// Why a watch has to begin anew.
enum Broken {
    /// From where it was.
    Cut(EtcdError),
    /// With a list: the history between is not to be had.
    Lost(EtcdError),
    /// With a list: etcd is well, and has another history than before.
    Changed,
}

impl Watcher {
    pub(super) fn new(
        access: Access,
        availability: Availability,
        metrics: Metrics,
        board: Board,
        endpoint: EndpointId,
    ) -> Self {
        Self {
            access,
            availability,
            metrics,
            board,
            prefix: prefix(&endpoint),
            endpoint,
            seen: None,
            is_listed: false,
            warned: HashSet::new(),
        }
    }

    /// Follows until `is_over`, which is asked every few seconds. `ready` is called each time the
    /// board is known to be right.
    pub(super) async fn run(mut self, ready: impl Fn(), is_over: impl Fn() -> bool) {
        let mut back_off = BackOff::new();
        let mut away: Option<Away> = None;
        while !is_over() {
            let begun = self.begin().await;
            let broken = match begun {
                Ok(stream) => {
                    back_off = BackOff::new();
                    away = None;
                    ready();
                    match self.follow(stream, &is_over).await {
                        Ok(()) => return,
                        Err(broken) => broken,
                    }
                }
                Err(broken) => broken,
            };
            if !matches!(broken, Broken::Cut(_)) {
                self.seen = None;
            }
            if let Broken::Cut(error) | Broken::Lost(error) = broken
                && away.is_none()
            {
                away = Some(self.availability.away(&error));
            }
            sleep(back_off.wait()).await;
        }
    }

    /// Brings the board to where etcd is, and begins to watch from there on.
    async fn begin(&mut self) -> Result<WatchStream, Broken> {
        let seen = match self.seen {
            Some(seen) => seen,
            None => self.list().await.map_err(Broken::Lost)?,
        };
        let begun = async {
            let mut stream = self.access.watch(&self.prefix, seen.revision + 1).await?;
            // The first answer says that the watch is there, and how far etcd is.
            let first = timeout(SILENCE, stream.message()).await;
            let first = first.map_err(|_| EtcdError::Silent)??;
            Ok((stream, first))
        };
        let (stream, first) = begun.await.map_err(Broken::Cut)?;
        let first = alive(first)?;
        let now = Seen::of(header(&first)?);
        if !seen.goes_on_at(&now) {
            return Err(Broken::Changed);
        }
        self.apply(&first);
        Ok(stream)
    }

    async fn list(&mut self) -> Result<Seen, EtcdError> {
        let (keys, seen) = self.access.list(&self.prefix).await?;
        let mut present = Vec::new();
        for record in keys.iter().filter_map(|key| self.record(key)) {
            if !record.leaving {
                present.push(record);
            }
        }
        let instance = |record| record::instance(record, &self.endpoint);
        let present = present.into_iter().map(instance).collect();
        self.board.present(&self.endpoint, present);
        if mem::replace(&mut self.is_listed, true) {
            self.metrics.resyncs.inc();
        }
        self.seen = Some(seen);
        Ok(seen)
    }

    async fn follow(
        &mut self,
        mut stream: WatchStream,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Broken> {
        let mut heard = Instant::now();
        let mut ask = heard + ASK;
        loop {
            tokio::select! {
                message = stream.message() => {
                    let message = message.map_err(|error| Broken::Cut(error.into()))?;
                    let response = alive(message)?;
                    heard = Instant::now();
                    self.apply(&response);
                }
                () = sleep_until(ask) => {
                    if is_over() {
                        return Ok(());
                    }
                    let now = Instant::now();
                    // Who was late itself looks again before it takes the other for silent.
                    let was_late = now > ask + ASK;
                    if !was_late && now > heard + SILENCE {
                        return Err(Broken::Cut(EtcdError::Silent));
                    }
                    ask = now + ASK;
                    // A stream that takes no question gives no answer, which shows.
                    let _ = timeout(ASK, stream.request_progress()).await;
                }
            }
        }
    }

    fn apply(&mut self, response: &WatchResponse) {
        for event in response.events() {
            self.apply_event(event);
        }
        // Only what came is seen: an answer to a question may name a revision whose events are
        // still on their way.
        let latest = response.events().iter().filter_map(Event::kv);
        let latest = latest.map(KeyValue::mod_revision).max();
        if let (Some(seen), Some(latest)) = (&mut self.seen, latest) {
            seen.revision = seen.revision.max(latest);
        }
    }

    fn apply_event(&mut self, event: &Event) {
        let Some(key) = event.kv() else {
            return;
        };
        match event.event_type() {
            EventType::Put => {
                let Some(record) = self.record(key) else {
                    return;
                };
                if record.leaving {
                    let worker = WorkerId(record.worker);
                    self.board.remove(&self.endpoint, worker, Gone::Left);
                } else {
                    self.board.put(record::instance(record, &self.endpoint));
                }
            }
            EventType::Delete => {
                self.warned.remove(key.key());
                // After a goodbye it is gone already.
                if let Some(worker) = self.worker(key) {
                    self.board.remove(&self.endpoint, worker, Gone::Expired);
                }
            }
        }
    }

    /// What is kept under a key of this endpoint; none if it is no record.
    fn record(&mut self, key: &KeyValue) -> Option<InstanceRecord> {
        let reason = match self.worker(key) {
            Some(worker) => match record::read(key.value(), &self.endpoint, worker) {
                Ok(record) => return Some(record),
                Err(error) => ErrorChain(&error).to_string(),
            },
            None => "its name is no worker's".to_owned(),
        };
        if self.warned.insert(key.key().to_vec()) {
            let key = String::from_utf8_lossy(key.key());
            warn!(%key, reason, "key of etcd is not used");
        }
        None
    }

    fn worker(&self, key: &KeyValue) -> Option<WorkerId> {
        let name = key.key().strip_prefix(self.prefix.as_bytes())?;
        record::worker(str::from_utf8(name).ok()?)
    }
}

/// An answer of a watch that goes on.
fn alive(message: Option<WatchResponse>) -> Result<WatchResponse, Broken> {
    let Some(response) = message else {
        let reason = "the stream is over".to_owned();
        return Err(Broken::Cut(EtcdError::WatchEnded(reason)));
    };
    if response.compact_revision() > 0 {
        info!("etcd was compacted; workers are listed anew");
        return Err(Broken::Changed);
    }
    if response.canceled() {
        let reason = response.cancel_reason().to_owned();
        return Err(Broken::Lost(EtcdError::WatchEnded(reason)));
    }
    Ok(response)
}

fn header(response: &WatchResponse) -> Result<&ResponseHeader, Broken> {
    let reason = || "it does not say where it is".to_owned();
    let header = response.header();
    header.ok_or_else(|| Broken::Lost(EtcdError::WatchEnded(reason())))
}
