//! What publishers here have said and NATS has not taken yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Subject;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::assembly::MAX_PAYLOAD_BYTES;
use super::message::{HEADER_BYTES, Message};
use crate::event_plane::Stamp;
use crate::nats::connection::NatsConnection;
use crate::nats::metrics::Metrics;

/// Events that may wait.
const MAX_EVENTS: usize = 4_096;
/// Bytes that may wait.
const MAX_BYTES: usize = MAX_PAYLOAD_BYTES;

/// A queue that never makes a publisher wait: when it is full, the oldest events are lost.
#[derive(Debug)]
pub(super) struct Outbound {
    queue: Mutex<Queue>,
    filled: Notify,
    /// How many events NATS has taken or were lost.
    gone: watch::Sender<u64>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Queued>,
    bytes: usize,
    /// How many events were ever in it.
    taken: u64,
}

#[derive(Debug)]
struct Queued {
    line: Arc<Line>,
    stamp: Stamp,
    payload: Bytes,
}

/// A publisher's way out.
#[derive(Debug)]
pub(super) struct Line {
    subject: Subject,
    /// The sequence after that of the last event that was sent.
    next: AtomicU64,
}

impl Line {
    pub(super) fn new(subject: Subject) -> Self {
        Self {
            subject,
            next: AtomicU64::new(0),
        }
    }
}

impl Outbound {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            gone: watch::Sender::new(0),
            metrics,
        }
    }

    /// Takes an event; one that is too large is lost.
    pub(super) fn push(&self, line: &Arc<Line>, stamp: Stamp, payload: Bytes) {
        if payload.len() > MAX_PAYLOAD_BYTES {
            self.metrics.events_dropped.inc();
            return;
        }
        let mut queue = self.queue.lock();
        queue.taken += 1;
        queue.bytes += payload.len();
        queue.events.push_back(Queued {
            line: line.clone(),
            stamp,
            payload,
        });
        while queue.events.len() > MAX_EVENTS || queue.bytes > MAX_BYTES {
            queue.pop();
            self.gone.send_modify(|gone| *gone += 1);
            self.metrics.events_dropped.inc();
        }
        self.note_depth(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    /// Hands everything over to NATS, in order, for as long as it is not dropped. An event that
    /// it has begun is lost then.
    pub(super) async fn run(self: Arc<Self>, connection: NatsConnection) {
        loop {
            match self.pop() {
                Some(event) => {
                    self.send(&connection, event).await;
                    self.gone.send_modify(|gone| *gone += 1);
                }
                None => self.filled.notified().await,
            }
        }
    }

    /// Waits until NATS has what was published before, if it takes anything.
    pub(super) async fn drained(&self) {
        let taken = self.queue.lock().taken;
        let mut gone = self.gone.subscribe();
        let drained = gone.wait_for(|gone| *gone >= taken).await;
        drained.expect("the sender is here");
    }

    fn pop(&self) -> Option<Queued> {
        let mut queue = self.queue.lock();
        let event = queue.pop();
        self.note_depth(&queue);
        event
    }

    async fn send(&self, connection: &NatsConnection, event: Queued) {
        let Queued {
            line,
            stamp,
            payload,
        } = event;
        let next = line.next.swap(stamp.sequence + 1, Ordering::Relaxed);
        let unsent = u32::try_from(stamp.sequence - next).unwrap_or(u32::MAX);
        let client = connection.client();
        let part_bytes = client.max_payload().saturating_sub(HEADER_BYTES).max(1);
        let payload_bytes = u32::try_from(payload.len()).expect("at most 64 MiB");
        let mut offset = 0;
        loop {
            let end = payload.len().min(offset + part_bytes);
            let message = Message {
                stamp,
                unsent,
                payload_bytes,
                offset: u32::try_from(offset).expect("at most 64 MiB"),
                part: payload.slice(offset..end),
            };
            let bytes = message.encode();
            self.metrics.sent_bytes.inc_by(bytes.len() as u64);
            if let Err(error) = client.publish(line.subject.clone(), bytes).await {
                self.metrics.events_dropped.inc();
                tracing::debug!(subject = %line.subject, %error, "an event could not be published");
                return;
            }
            offset = end;
            if offset == payload.len() {
                return;
            }
        }
    }

    fn note_depth(&self, queue: &Queue) {
        let depth = i64::try_from(queue.events.len()).unwrap_or(i64::MAX);
        self.metrics.event_queue_depth.set(depth);
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Queued> {
        let event = self.events.pop_front()?;
        self.bytes -= event.payload.len();
        Some(event)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use forebay_observability::Registry;
    use forebay_tokens::WorkerId;

    use super::*;

    fn outbound() -> Outbound {
        Outbound::new(Metrics::new(&Registry::new()))
    }

    fn push(outbound: &Outbound, sequence: u64, payload: Bytes) {
        let stamp = Stamp {
            publisher: WorkerId(1),
            epoch: 1,
            sequence,
        };
        let line = Arc::new(Line::new("subject".into()));
        outbound.push(&line, stamp, payload);
    }

    #[test]
    fn the_oldest_are_lost_when_there_are_too_many() {
        let outbound = outbound();
        let events = MAX_EVENTS as u64;
        for sequence in 0..events + 10 {
            push(&outbound, sequence, Bytes::from_static(b"x"));
        }
        for sequence in 10..events + 10 {
            assert_eq!(outbound.pop().unwrap().stamp.sequence, sequence);
        }
        assert!(outbound.pop().is_none());
        assert_eq!(outbound.metrics.events_dropped.get(), 10);
        assert_eq!(outbound.queue.lock().bytes, 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let outbound = outbound();
        let half = Bytes::from(vec![0; MAX_BYTES / 2]);
        for sequence in 0..3 {
            push(&outbound, sequence, half.clone());
        }
        push(&outbound, 3, Bytes::from(vec![0; MAX_PAYLOAD_BYTES + 1]));
        assert_eq!(outbound.metrics.events_dropped.get(), 2);
        assert_eq!(outbound.pop().unwrap().stamp.sequence, 1);
        assert_eq!(outbound.pop().unwrap().stamp.sequence, 2);
        assert!(outbound.pop().is_none());
    }
}
